"""Services: who may have which, how they are made, and what happens to them when the call ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NewType, Optional
from unittest.mock import MagicMock

import pytest
from pydantic import BaseModel

from confect_celery.errors import ServiceError
from confect_celery.functions import FunctionRef, Group, Kind, Registry, Services

RowId = NewType("RowId", str)


class Reader: ...


class Writer: ...


class Mailer:
    def __init__(self, log: list[str] | None = None) -> None:
        self.log = log


class Args(BaseModel):
    x: int


@pytest.fixture
def services() -> Services:
    services = Services()
    services.declare(Reader, frozenset[Kind]({"query", "mutation"}))
    services.declare(Writer, frozenset[Kind]({"mutation"}))
    services.declare(RowId | None, frozenset[Kind]({"query", "mutation", "action"}))
    return services


@pytest.fixture
def group() -> Group:
    return Group(Registry(), "users")


SCOPE: dict[Any, Callable[[], object]] = {Reader: Reader, Writer: Writer, RowId | None: lambda: "row"}


def injected(services: Services, ref: FunctionRef[Any, Any]) -> dict[str, Any]:
    with ExitStack() as stack:
        return services.inject(ref, SCOPE, stack)


def refused(services: Services, ref: FunctionRef[Any, Any]) -> tuple[str, str | None, str]:
    with pytest.raises(ServiceError) as raised:
        services.check(ref)
    with pytest.raises(ServiceError):
        injected(services, ref)
    return raised.value.function, raised.value.parameter, raised.value.reason


def test_built_in_services_come_from_the_scope(services: Services, group: Group) -> None:
    @group.mutation
    def both(reader: Reader, writer: Writer, again: Reader) -> None: ...

    values = injected(services, both)
    assert isinstance(values["reader"], Reader)
    assert isinstance(values["writer"], Writer)
    assert values["again"] is values["reader"]


def test_a_service_that_a_kind_may_not_have(services: Services, group: Group) -> None:
    @group.query
    def read(args: Args, writer: Writer) -> None: ...

    function, parameter, reason = refused(services, read)
    assert (function, parameter) == ("public/users/read", "writer")
    assert reason == "query functions may not have Writer: it is for mutation functions only."


def test_an_unknown_service(services: Services, group: Group) -> None:
    @group.query
    def read(mailer: Mailer) -> None: ...

    assert refused(services, read)[1:] == (
        "mailer",
        "there is no service Mailer. Provide it with confect.provide(Mailer, …), or check the annotation.",
    )


def test_a_model_in_the_wrong_place_is_told_so(services: Services, group: Group) -> None:
    @group.query
    def read(reader: Reader, args: Args) -> None: ...

    assert refused(services, read)[1:] == ("args", "there is no service Args. The arguments' model comes first.")


def test_a_service_that_is_a_model_may_not_come_first(services: Services, group: Group) -> None:
    services.provide(Args, lambda: Args(x=1))

    @group.query
    def first(args: Args, reader: Reader) -> None: ...
    @group.query
    def second(reader: Reader, args: Args) -> None: ...

    assert "Args is a service, but a model that comes first" in refused(services, first)[2]
    assert injected(services, second)["args"] == Args(x=1)


def test_optional_types_are_keys_however_they_are_written(services: Services, group: Group) -> None:
    @group.action
    def own_id(a: RowId | None, b: None | RowId, c: Optional[RowId]) -> None: ...  # noqa: UP045, RUF036

    assert injected(services, own_id) == {"a": "row", "b": "row", "c": "row"}


def test_a_default_stands_in_for_what_nobody_provides(services: Services, group: Group) -> None:
    @group.mutation
    def send(reader: Reader, mailer: Mailer | None = None, limit: int = 10) -> tuple[Any, int]:
        return mailer, limit

    assert set(injected(services, send)) == {"reader"}
    assert send.invoke(None, injected(services, send)) == (None, 10)
    services.provide(int, lambda: 5)
    assert send.invoke(None, injected(services, send)) == (None, 5)


def test_a_default_is_no_way_round_the_kinds(services: Services, group: Group) -> None:
    @group.query
    def read(writer: Writer = None) -> None: ...  # type: ignore[assignment]

    assert "may not have Writer" in refused(services, read)[2]


def test_factories_need_services_too_each_made_once_a_call(services: Services, group: Group) -> None:
    made: list[str] = []

    class Log: ...

    def log(reader: Reader) -> Log:
        made.append("log")
        return Log()

    def mailer(log: Log, writer: Writer, retries: int = 3) -> tuple[object, ...]:
        made.append("mailer")
        return log, writer, retries

    services.provide(Log, log)
    services.provide(Mailer, mailer)

    @group.mutation
    def send(mailer: Mailer, log: Log, again: Mailer, writer: Writer) -> None: ...

    values = injected(services, send)
    assert values["mailer"] == (values["log"], values["writer"], 3)
    assert values["again"] is values["mailer"]
    assert made == ["log", "mailer"]
    assert injected(services, send)["log"] is not values["log"]
    assert made == ["log", "mailer"] * 2


def test_kinds_hold_for_what_factories_need(services: Services, group: Group) -> None:
    class Log: ...

    def mailer(log: Log) -> Mailer:
        return Mailer()

    def log(writer: Writer) -> Log:
        return Log()

    services.provide(Mailer, mailer)
    services.provide(Log, log)

    @group.query
    def read(mailer: Mailer) -> None: ...

    assert refused(services, read)[1:] == (
        "mailer",
        "query functions may not have Writer, which Log needs: it is for mutation functions only.",
    )
    services.provide(Log, lambda: Log())
    services.check(read)


def test_what_a_factory_lacks_is_named(services: Services, group: Group) -> None:
    class Log: ...

    def mailer(log: Log) -> Mailer:
        return Mailer()

    def unknown(log: Nowhere) -> Mailer:  # type: ignore[name-defined]  # noqa: F821
        return Mailer()

    @group.query
    def read(mailer: Mailer) -> None: ...

    services.provide(Mailer, mailer)
    assert "there is no service Log, which Mailer needs" in refused(services, read)[2]
    services.provide(Mailer, unknown)
    assert refused(services, read)[0] == "unknown"
    assert "'Nowhere' is not defined" in refused(services, read)[2]


def test_factories_in_a_circle(services: Services, group: Group) -> None:
    class Log:
        def __init__(self, mailer: Mailer) -> None: ...

    class Circular:
        def __init__(self, log: Log) -> None: ...

    services.provide(Mailer, Circular)
    services.provide(Log, Log)

    @group.query
    def read(mailer: Mailer) -> None: ...

    assert refused(services, read)[2] == "the factories need each other: Mailer → Log → Mailer."


@pytest.mark.parametrize("factory", ["mailer", None, Mailer()])
def test_a_factory_is_called(services: Services, factory: Any) -> None:
    with pytest.raises(ServiceError, match="is called to make it"):
        services.provide(Mailer, factory)


def test_a_factory_that_cannot_be_one_is_refused_at_once(services: Services) -> None:
    async def later() -> None: ...
    def unannotated(x): ...  # type: ignore[no-untyped-def]
    def variadic(*x: Reader) -> None: ...

    for factory, reason in (
        (later, "async"),
        (unannotated, "no annotation"),
        (variadic, "not \\*"),
        (MagicMock(), "not \\*"),
    ):
        with pytest.raises(ServiceError, match=reason):
            services.provide(Mailer, factory)


def test_built_in_services_are_not_replaced(services: Services) -> None:
    with pytest.raises(ServiceError, match="Confect's own"):
        services.provide(Reader, Reader)
