"""Services that are context managers, and services that a test replaces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import Mock

import pytest

from confect_celery.errors import ServiceError
from confect_celery.functions import FunctionRef, Group, Kind, Registry, Services

Factory = Callable[..., Any]


class Reader: ...


class Writer: ...


class Mailer: ...


SCOPE: dict[Any, Callable[[], object]] = {Reader: Reader, Writer: Writer}


@pytest.fixture
def services() -> Services:
    services = Services()
    services.declare(Reader, frozenset[Kind]({"query", "mutation"}))
    services.declare(Writer, frozenset[Kind]({"mutation"}))
    return services


@pytest.fixture
def group() -> Group:
    return Group(Registry(), "users")


def injected(services: Services, ref: FunctionRef[Any, Any]) -> dict[str, Any]:
    with ExitStack() as stack:
        return services.inject(ref, SCOPE, stack)


def refused(services: Services, ref: FunctionRef[Any, Any]) -> str:
    with pytest.raises(ServiceError) as raised:
        services.check(ref)
    return raised.value.reason


@pytest.mark.parametrize("wrap", [lambda f: f, contextmanager], ids=["bare", "contextmanager"])
def test_context_managers_are_entered_and_left(
    services: Services, group: Group, wrap: Callable[[Factory], Factory]
) -> None:
    events: list[str] = []

    class Log: ...

    @wrap
    def log(reader: Reader) -> Iterator[Log]:
        events.append("log in")
        yield Log()
        events.append("log out")

    @wrap
    def mailer(log: Log) -> Iterator[Mailer]:
        events.append("mailer in")
        try:
            yield Mailer()
        except ValueError as error:
            events.append(f"mailer sees {error}")
            raise
        finally:
            events.append("mailer out")

    services.provide(Log, log)
    services.provide(Mailer, mailer)

    @group.query
    def read(mailer: Mailer, log: Log) -> None: ...

    with ExitStack() as stack:
        values = services.inject(read, SCOPE, stack)
        assert isinstance(values["mailer"], Mailer)
        assert events == ["log in", "mailer in"]
    assert events[2:] == ["mailer out", "log out"]

    events.clear()
    with pytest.raises(ValueError, match="bad"), ExitStack() as stack:
        services.inject(read, SCOPE, stack)
        raise ValueError("bad")
    assert events == ["log in", "mailer in", "mailer sees bad", "mailer out"]


def test_a_service_may_turn_an_exception_into_another_but_not_swallow_it(services: Services, group: Group) -> None:
    def swallowing() -> Iterator[Mailer]:
        try:
            yield Mailer()
        except KeyError:
            pass
        except ValueError as error:
            raise OSError("turned") from error

    services.provide(Mailer, swallowing)

    @group.query
    def read(mailer: Mailer) -> None: ...

    with pytest.raises(KeyError), ExitStack() as stack:
        services.inject(read, SCOPE, stack)
        raise KeyError
    with pytest.raises(OSError, match="turned"), ExitStack() as stack:
        services.inject(read, SCOPE, stack)
        raise ValueError


class Fake(Mailer): ...


def fake_factory(reader: Reader) -> tuple[str, Reader]:
    return "made", reader


def test_overriding(services: Services, group: Group) -> None:
    services.provide(Mailer, Mailer)

    @group.query
    def read(mailer: Mailer) -> None: ...

    def with_fake(fake: object) -> Any:
        with services.override(Mailer, fake):
            services.check(read)
            return injected(services, read)["mailer"]

    fake, mock = Fake(), Mock()
    assert with_fake(fake) is fake
    assert with_fake(mock) is mock
    mock.assert_not_called()
    assert isinstance(with_fake(Fake), Fake)
    assert with_fake(lambda: 3) == 3
    assert with_fake(None) is None
    assert with_fake(fake_factory)[0] == "made"
    assert type(injected(services, read)["mailer"]) is Mailer


def test_an_override_nests_and_ends_with_an_exception(services: Services, group: Group) -> None:
    @group.query
    def read(mailer: Mailer) -> None: ...

    with pytest.raises(KeyError), services.override(Mailer, 1), services.override(Mailer, 2):
        assert injected(services, read) == {"mailer": 2}
        raise KeyError
    assert "there is no service Mailer" in refused(services, read)


def test_an_override_of_a_built_in_keeps_its_kinds(services: Services, group: Group) -> None:
    @group.query
    def read(writer: Writer) -> None: ...
    @group.mutation
    def write(writer: Writer) -> None: ...

    with services.override(Writer, "fake"):
        assert injected(services, write) == {"writer": "fake"}
        assert "may not have Writer" in refused(services, read)
    assert isinstance(injected(services, write)["writer"], Writer)
