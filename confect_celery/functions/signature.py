"""What a function asks for: its arguments' model, and services by annotation."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter

from confect_celery.errors import ServiceError

__all__ = ["Signature", "parameters_of"]


def parameters_of(function: Callable[..., Any], name: str) -> dict[str, Any]:
    """The annotation of each parameter, by the parameter's name.

    Raises ServiceError for a parameter that has none, or that is variadic; NameError while an annotation names
    something that is not defined yet.
    """
    signed = inspect.signature(function)
    # A class's annotations are those of its __init__; anything else carries its own.
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function, include_extras=True)
    found = {}
    for parameter in signed.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ServiceError(name, parameter.name, "a function takes its arguments' model and services, not * or **.")
        if parameter.name not in hints:
            if parameter.default is not parameter.empty:
                continue
            raise ServiceError(name, parameter.name, "it has no annotation, so nobody knows what to inject.")
        found[parameter.name] = hints[parameter.name]
    return found


def _is_model(annotation: Any) -> bool:
    return (inspect.isclass(annotation) and issubclass(annotation, BaseModel)) or typing.is_typeddict(annotation)


@dataclass(frozen=True, slots=True)
class Signature:
    """`model` is the class of the first parameter, a pydantic model or a TypedDict, None for a function without
    arguments; `services` maps the other parameters to what they ask for."""

    model: Any
    adapter: TypeAdapter[Any] | None
    services: Mapping[str, Any]

    @classmethod
    def of(cls, function: Callable[..., Any], name: str) -> Signature:
        """Analyse a function; raises as `parameters_of` does."""
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise ServiceError(name, None, "it is async; Celery's pools run plain functions. Use def.")
        parameters = parameters_of(function, name)
        first = next(iter(parameters), None)
        if first is None or not _is_model(parameters[first]):
            return cls(None, None, parameters)
        model = parameters.pop(first)
        return cls(model, TypeAdapter(model), parameters)
