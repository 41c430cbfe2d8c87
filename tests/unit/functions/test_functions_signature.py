"""What is read from a function's parameters, and what is refused with its name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
import typing_extensions
from pydantic import BaseModel, Field

from confect_celery.errors import ServiceError
from confect_celery.functions import Group, Registry, Services, Signature
from confect_celery.functions.signature import Parameter, parameters_of


class Args(BaseModel):
    x: int


class Mapped(typing_extensions.TypedDict):
    x: int


class Mailer: ...


class Odd(typing_extensions.TypedDict):
    mailer: Mailer


def analysed(function: Callable[..., Any]) -> Signature:
    return Signature.of(function, function.__name__)


def test_the_first_parameter_is_the_model() -> None:
    def remind(args: Args, mailer: Mailer, limit: Mailer | None = None) -> None: ...

    signature = analysed(remind)
    assert signature.model is Args
    assert signature.adapter is not None
    assert signature.services == {"mailer": Parameter(Mailer), "limit": Parameter(Mailer | None, optional=True)}


def test_a_typed_dict_is_a_model() -> None:
    def remind(args: Mapped) -> None: ...

    assert analysed(remind).model is Mapped


def test_an_annotated_model_is_a_model() -> None:
    def remind(args: Annotated[Args, Field(description="whom")]) -> None: ...

    assert analysed(remind).model is Args


def test_without_a_model_all_are_services() -> None:
    def nothing() -> None: ...
    def service_first(mailer: Mailer, args: Args) -> None: ...

    assert analysed(nothing) == Signature(None, None, {})
    assert analysed(service_first).services == {"mailer": Parameter(Mailer), "args": Parameter(Args)}
    assert analysed(service_first).model is None


def test_an_unannotated_parameter_keeps_its_default() -> None:
    def remind(args: Args, times=3) -> None: ...  # type: ignore[no-untyped-def]

    assert analysed(remind).services == {}


def test_a_model_may_be_positional_only_and_services_keyword_only() -> None:
    def remind(args: Args, /, *, mailer: Mailer) -> None: ...

    assert analysed(remind).services == {"mailer": Parameter(Mailer)}


async def is_async() -> None: ...
async def is_async_generator() -> Any:
    yield 1


def is_generator() -> Any:
    yield 1


def unannotated(args: Args, mailer) -> None: ...  # type: ignore[no-untyped-def]
def unannotated_first(args) -> None: ...  # type: ignore[no-untyped-def]
def variadic(args: Args, *mailers: Mailer) -> None: ...
def keywords(args: Args, **mailers: Mailer) -> None: ...
def positional_service(args: Args, mailer: Mailer, /) -> None: ...
def keyword_model(*, args: Args) -> None: ...


@pytest.mark.parametrize(
    ("function", "parameter", "reason"),
    [
        (is_async, None, "async"),
        (is_async_generator, None, "async"),
        (is_generator, None, "generator"),
        (unannotated, "mailer", "no annotation"),
        (unannotated_first, "args", "no annotation"),
        (variadic, "mailers", "not \\* or \\*\\*"),
        (keywords, "mailers", "not \\* or \\*\\*"),
        (positional_service, "mailer", "after the /"),
        (keyword_model, "args", "before the \\*"),
    ],
)
def test_what_cannot_be_filled_is_refused_by_name(
    function: Callable[..., Any], parameter: str | None, reason: str
) -> None:
    with pytest.raises(ServiceError, match=reason) as raised:
        analysed(function)
    assert (raised.value.function, raised.value.parameter) == (function.__name__, parameter)


def test_what_pydantic_refuses_names_the_parameter() -> None:
    def remind(args: Odd) -> None: ...

    with pytest.raises(ServiceError, match="Unable to generate pydantic-core schema") as raised:
        analysed(remind)
    assert raised.value.parameter == "args"


@pytest.mark.skipif("sys.version_info >= (3, 12)", reason="only before 3.12 does pydantic refuse typing's")
def test_typings_own_typed_dict_is_refused_with_the_remedy() -> None:
    class Old(TypedDict):
        x: int

    def remind(args: Old) -> None: ...

    with pytest.raises(ServiceError, match=r"typing_extensions\.TypedDict"):
        analysed(remind)


def test_names_local_to_the_functions_around_are_found() -> None:
    class Local(BaseModel):
        x: int

    def outer() -> Signature:
        class Inner: ...

        class Holder:
            @staticmethod
            def method(args: Local, inner: Inner) -> None: ...

        return analysed(Holder.method)

    assert outer().model is Local
    assert "inner" in outer().services


def test_locals_of_a_mere_caller_are_not_mistaken_for_the_modules() -> None:
    Mailer = int  # noqa: F841, N806  # on purpose: it hides the module's

    assert analysed(at_module_level).services == {"mailer": Parameter(globals()["Mailer"])}


def at_module_level(args: Args, mailer: Mailer) -> None: ...


def test_a_name_defined_later_is_looked_up_again() -> None:
    services = Services()
    services.provide(Mailer, Mailer)
    group = Group(Registry(), "users")
    namespace: dict[str, Any] = {"group": group, "BaseModel": BaseModel, "__name__": "later"}
    code = "from __future__ import annotations\n@group.query\ndef read(args: Later) -> None: ...\n"
    exec(code, namespace)
    read = namespace["read"]
    with pytest.raises(ServiceError, match=r"'Later' is not defined.* in the function's module"):
        services.check(read)
    exec("class Later(BaseModel): ...", namespace)
    services.check(read)
    assert read.signature.model is namespace["Later"]


def test_a_model_that_is_not_complete_yet_is_looked_up_again() -> None:
    services = Services()
    group = Group(Registry(), "users")
    namespace: dict[str, Any] = {"group": group, "BaseModel": BaseModel, "__name__": "later"}
    exec("class Half(BaseModel):\n    a: 'Later'\n@group.query\ndef read(args: Half) -> None: ...\n", namespace)
    with pytest.raises(ServiceError, match="Half names types that are not defined yet"):
        services.check(namespace["read"])
    exec("class Later(BaseModel): ...\nHalf.model_rebuild(_types_namespace={'Later': Later})", namespace)
    services.check(namespace["read"])


def test_what_a_function_returns_need_not_be_known_at_run_time() -> None:
    def read(args: Args) -> OnlyForCheckers:  # type: ignore[name-defined]  # noqa: F821
        return None

    assert analysed(read).model is Args


def test_factories_of_every_shape_are_read() -> None:
    class WithInit:
        def __init__(self, mailer: Mailer, host: str = "localhost") -> None: ...

    class Bare: ...

    class Instance:
        def __call__(self, mailer: Mailer) -> Bare:
            return Bare()

        def method(self, mailer: Mailer) -> Bare:
            return Bare()

        @classmethod
        def maker(cls, mailer: Mailer) -> Bare:
            return Bare()

    def two(mailer: Mailer, number: int) -> Bare:
        return Bare()

    wanted = {"mailer": Parameter(Mailer)}
    assert parameters_of(WithInit, "f") == {**wanted, "host": Parameter(str, optional=True)}
    assert parameters_of(Bare, "f") == {}
    assert parameters_of(Instance(), "f") == wanted
    assert parameters_of(Instance().method, "f") == wanted
    assert parameters_of(Instance.maker, "f") == wanted
    assert parameters_of(lambda: 3, "f") == {}
    assert parameters_of(functools.partial(two, number=3), "f") == {**wanted, "number": Parameter(int, optional=True)}


def test_a_factory_whose_parameters_python_cannot_tell_is_refused() -> None:
    with pytest.raises(ServiceError, match="Wrap it in a function"):
        parameters_of(type, "type")
