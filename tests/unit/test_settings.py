"""Settings are checked at start, and an error names the setting."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from celery import Celery

from confect_celery import Confect, Duration, InvalidSettings, Settings


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = Settings.read({})
    assert settings.database_url == "sqlite:///confect.db"
    assert (settings.horizon, settings.poll_interval) == (Duration.seconds(2), Duration.seconds(1))
    assert (settings.batch_size, settings.redelivery) == (500, Duration.seconds(30))
    assert (settings.time_limit, settings.min_delay) == (Duration.minutes(10), Duration.seconds(1))
    assert (settings.max_delay, settings.retention) == (Duration.days(5 * 366), Duration.days(7))
    assert (settings.dispatcher, settings.show_args, settings.schema_) == ("worker", True, None)


@pytest.mark.parametrize("value", [5, 5.0, dt.timedelta(seconds=5), Duration.seconds(5)])
def test_durations_may_be_seconds_timedeltas_or_durations(value: Any) -> None:
    assert Settings.read({"confect_horizon": value}).horizon == Duration.seconds(5)


@pytest.mark.parametrize(
    ("conf", "named"),
    [
        ({"confect_horizn": 3}, "confect_horizon"),
        ({"confect_horizon": "soon"}, "confect_horizon"),
        ({"confect_horizon": 0}, "confect_horizon"),
        ({"confect_horizon": True}, "confect_horizon"),
        ({"confect_horizon": float("inf")}, "confect_horizon"),
        ({"confect_redelivery": 1}, "confect_redelivery"),
        ({"confect_dispatcher": "cron"}, "confect_dispatcher"),
        ({"confect_batch_size": 0}, "confect_batch_size"),
        ({"confect_min_delay": -1}, "confect_min_delay"),
        ({"confect_max_delay": 0.5}, "confect_max_delay"),
        ({"confect_schema": "a; drop table users"}, "confect_schema"),
    ],
)
def test_an_unusable_setting_is_named(conf: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        Settings.read(conf)
    assert named in str(caught.value)
    assert any(key.startswith("confect_") for key in caught.value.problems)


def test_all_misspelt_names_are_told_at_once_with_the_one_that_was_meant() -> None:
    with pytest.raises(InvalidSettings) as caught:
        Settings.read({"confect_horizn": 3, "confect_retentoin": 4})
    assert set(caught.value.problems) == {"confect_horizn", "confect_retentoin"}
    assert "did you mean confect_retention?" in caught.value.problems["confect_retentoin"]


def test_celerys_own_configuration_is_read_and_a_horizon_beyond_the_visibility_timeout_refused() -> None:
    app = Celery("settings", set_as_current=False)
    app.conf.update(confect_horizon=20, broker_transport_options={"visibility_timeout": 10})
    confect = Confect(app)
    assert confect.settings.horizon == Duration.seconds(20)
    with pytest.raises(InvalidSettings, match="visibility_timeout"):
        confect.check()


def test_an_unsupported_database_is_refused_by_name() -> None:
    app = Celery("settings", set_as_current=False)
    app.conf.confect_database_url = "oracle://x/y"
    with pytest.raises(InvalidSettings, match="oracle"):
        _ = Confect(app).store
