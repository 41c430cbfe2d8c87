"""The shop as a whole: it is put together rightly, in every configuration."""

from __future__ import annotations

import importlib
import sys

import celery
import pytest
from celery.app.utils import find_app

import tasks
from confect_celery import Confect, Duration, ServiceError, Settings
from confect_celery.testing import Harness
from tasks.delays import Delays
from tasks.services import Mailer, mailer
from tasks.users import Register, register, send_verification_reminder

CONFIGS = ["config.embedded", "config.redis", "config.rabbitmq", "config.postgres"]


def test_the_whole_shop_is_checked() -> None:
    tasks.confect.check()


def test_celery_finds_the_app() -> None:
    assert find_app("tasks") is tasks.app


def test_scheduled_functions_are_celery_tasks_by_name() -> None:
    assert "internal/users/send_verification_reminder" in tasks.app.tasks
    assert "public/users/register" not in tasks.app.tasks


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_is_usable(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("SHOP_BROKER_FOLDER", str(tmp_path))
    for variable in ("SHOP_BROKER_URL", "SHOP_DATABASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module(name)
    app = celery.Celery("configured", set_as_current=False)
    app.config_from_object(module)
    settings = Settings.read(app.conf)
    settings.check_broker(app.conf.broker_transport_options)
    assert app.conf.broker_url == module.broker_url
    assert module.__doc__ is not None
    assert 5 <= len(module.__doc__.splitlines()) <= 15


@pytest.mark.parametrize("name", CONFIGS)
def test_the_environment_gives_the_addresses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_BROKER_URL", "redis://elsewhere:1/2")
    monkeypatch.setenv("SHOP_DATABASE_URL", "sqlite:///elsewhere.db")
    monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module(name)
    assert module.broker_url == "redis://elsewhere:1/2"
    assert module.confect_database_url == "sqlite:///elsewhere.db"


def test_the_delays_are_those_of_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_TIME_SCALE", raising=False)
    delays = Delays.from_env()
    assert delays == Delays()
    assert delays.verification_reminder == Duration.hours(24)
    assert delays.trial == Duration.days(14)
    assert delays.webhook == Duration.seconds(30)


def test_a_demo_shrinks_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TIME_SCALE", "3600")
    delays = Delays.from_env()
    assert delays.verification_reminder == Duration.seconds(24)
    assert delays.trial == Duration.seconds(14 * 24)
    assert delays.webhook == Duration.seconds(1)


@pytest.mark.parametrize("scale", ["0", "-1", "nan", "soon"])
def test_a_senseless_scale_is_refused(scale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TIME_SCALE", scale)
    with pytest.raises(ValueError, match=r"SHOP_TIME_SCALE|could not convert"):
        Delays.from_env()


def test_the_delays_are_a_service(shop: Harness) -> None:
    shop.provide(Delays, Delays(verification_reminder=Duration.hours(1)))
    shop.confect.run_mutation(register, Register(email="bo@example.org"))
    shop.assert_scheduled(send_verification_reminder, at=shop.clock.now() + Duration.hours(1))


def test_a_mailer_is_for_mutations_only() -> None:
    other = Confect(celery.Celery("other", set_as_current=False))
    other.provide(Delays, Delays.from_env)
    other.provide(Mailer, mailer)

    @other.group("letters").internal_action
    def write(mailer: Mailer) -> None:
        mailer.send("bo@example.org", "Hello")

    with pytest.raises(ServiceError, match="may not have DatabaseWriter") as caught:
        other.check()
    assert (caught.value.function, caught.value.parameter) == (write.name, "mailer")


def test_the_plugins_fixture(confect_harness: Harness, confect: Confect) -> None:
    assert confect_harness.confect is confect
    confect_harness.confect.run_mutation(register, Register(email="bo@example.org"))
    assert len(confect_harness.scheduled()) == 1
