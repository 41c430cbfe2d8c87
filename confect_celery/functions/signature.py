"""What a function asks for: its arguments' model, and services by annotation."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel, PydanticUserError, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError
from typing_extensions import is_typeddict  # typing's own knows only typing's TypedDict, which pydantic refuses on 3.11

from confect_celery.errors import ServiceError
from confect_celery.functions.scalars import Scalars

__all__ = ["Parameter", "Signature", "is_model", "parameters_of"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """The service that a parameter asks for; an optional one has a default, for when nobody provides that."""

    service: Any
    optional: bool = False


def parameters_of(function: Callable[..., Any], name: str) -> dict[str, Parameter]:
    """What each parameter asks for, by the parameter's name; one without an annotation keeps its default.

    Raises ServiceError for a parameter that has neither, or that cannot be filled by name; NameError while an
    annotation names something that is not defined yet.
    """
    try:
        signed = inspect.signature(function)
    except ValueError:
        raise ServiceError(name, None, "Python cannot tell its parameters. Wrap it in a function.") from None
    hints = _annotations(function)
    found = {}
    for position, parameter in enumerate(signed.parameters.values()):
        optional = parameter.default is not parameter.empty
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ServiceError(name, parameter.name, "a function takes its arguments' model and services, not * or **.")
        if parameter.name not in hints:
            if optional:
                continue
            raise ServiceError(name, parameter.name, "it has no annotation, so nobody knows what to inject.")
        model_first = position == 0 and is_model(hints[parameter.name])
        if parameter.kind is parameter.POSITIONAL_ONLY and not model_first:
            raise ServiceError(name, parameter.name, "services are passed by name: put it after the /.")
        if parameter.kind is parameter.KEYWORD_ONLY and model_first:
            raise ServiceError(name, parameter.name, "the arguments' model is passed by position: put it before the *.")
        found[parameter.name] = Parameter(hints[parameter.name], optional)
    return found


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    # A class's annotations are those of its __init__, a callable object's those of its __call__.
    carrier: Any = function
    if inspect.isclass(function):
        carrier = function.__init__
    elif not hasattr(function, "__annotations__"):
        carrier = getattr(function, "func", type(function).__call__)
    carrier = inspect.unwrap(carrier)
    # What it returns is not looked at, and so may be a type that is imported for type checkers only.
    annotations = {name: hint for name, hint in getattr(carrier, "__annotations__", {}).items() if name != "return"}
    holder = SimpleNamespace(__annotations__=annotations, __globals__=getattr(carrier, "__globals__", {}))
    return typing.get_type_hints(holder, localns=_enclosing_names(carrier), include_extras=True)


def _enclosing_names(function: Any) -> dict[str, Any]:
    """What is local to the functions that `function` is being defined in.

    Under `from __future__ import annotations` an annotation is text, and get_type_hints knows the module's names only:
    a function that a test defines beside its model could not be analysed. While the decorator runs, the functions
    around it are on the stack; they are found by name, so that no other caller's locals are mistaken for them.
    """
    around: list[str] = []
    inner = getattr(function, "__qualname__", "")
    while "<locals>" in inner:
        inner = inner.rpartition(".<locals>")[0]
        around.append(inner)
    names: dict[str, Any] = {}
    frame = sys._getframe() if around else None
    while frame is not None:
        if frame.f_code.co_qualname in around and frame.f_globals.get("__name__") == function.__module__:
            names = {**frame.f_locals, **names}
        frame = frame.f_back
    return names


def is_model(annotation: Any) -> bool:
    """Whether a first parameter of this type takes the arguments: a pydantic model or a TypedDict."""
    bare = _bare(annotation)
    return (inspect.isclass(bare) and issubclass(bare, BaseModel)) or is_typeddict(bare)


def _bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation


@dataclass(frozen=True, slots=True)
class Signature:
    """`model` is the class of the first parameter, a pydantic model or a TypedDict, None for a function without
    arguments; `scalars` are its fields, where there is nothing else; `services` are the other parameters."""

    model: Any
    adapter: TypeAdapter[Any] | None
    services: Mapping[str, Parameter]
    scalars: Scalars | None = None

    @classmethod
    def of(cls, function: Callable[..., Any], name: str) -> Signature:
        """Analyse a function; raises as `parameters_of` does, and ServiceError for a model that pydantic refuses."""
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise ServiceError(name, None, "it is async; Celery's pools run plain functions. Use def.")
        if inspect.isgeneratorfunction(function):
            raise ServiceError(name, None, "it is a generator; calling it would run nothing. Return a list.")
        parameters = parameters_of(function, name)
        first = next(iter(parameters), None)
        if first is None or not is_model(parameters[first].service):
            return cls(None, None, parameters)
        annotation = parameters.pop(first).service
        try:
            adapter = TypeAdapter(annotation)
        except (PydanticUserError, PydanticSchemaGenerationError) as error:
            raise ServiceError(name, first, str(error).splitlines()[0]) from None
        if not adapter.pydantic_complete:
            raise NameError(f"{_bare(annotation).__name__} names types that are not defined yet")
        return cls(_bare(annotation), adapter, parameters, Scalars.of(adapter))
