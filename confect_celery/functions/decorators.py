"""The decorators of a group. One class a kind, so that a type checker knows what each one makes."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, TypeVar, overload

from pydantic import BaseModel

from confect_celery.functions.ref import (
    ActionRef,
    FunctionRef,
    InternalActionRef,
    InternalMutationRef,
    MutationRef,
    QueryRef,
)
from confect_celery.timing import Duration

__all__ = [
    "ActionDecorator",
    "Errors",
    "InternalActionDecorator",
    "InternalMutationDecorator",
    "MutationDecorator",
    "QueryDecorator",
]

M = TypeVar("M", bound=BaseModel | Mapping[str, object])
R = TypeVar("R")
Limit = Duration | dt.timedelta | None
Errors = tuple[type[Exception], ...]


class _Decorator:
    """Bare, or with options: `queue`, `priority`, `time_limit` (a Duration or timedelta), `errors` (those the function
    is known to raise: they are kept with their fields and without a traceback)."""

    _makes: type[FunctionRef[Any, Any]]

    def __init__(self, add: Callable[..., Any]) -> None:
        self._add = add

    def _decorate(self, function: tuple[Callable[..., Any], ...], options: dict[str, Any]) -> Any:
        if not function:
            return functools.partial(self._add, self._makes, **options)
        return self._add(self._makes, *function, **options)


class QueryDecorator(_Decorator):
    """Makes a query."""

    _makes = QueryRef

    @overload
    def __call__(self, function: Callable[Concatenate[M, ...], R], /) -> QueryRef[M, R]: ...
    @overload  # not hidden by the one before: a service is no model
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, function: Callable[..., R], /
    ) -> QueryRef[None, R]: ...
    @overload
    def __call__(
        self, *, queue: str | None = None, priority: int | None = None, time_limit: Limit = None, errors: Errors = ()
    ) -> QueryDecorator: ...
    def __call__(self, *function: Any, **options: Any) -> Any:
        return self._decorate(function, options)


class MutationDecorator(_Decorator):
    """Makes a public mutation."""

    _makes = MutationRef

    @overload
    def __call__(self, function: Callable[Concatenate[M, ...], R], /) -> MutationRef[M, R]: ...
    @overload  # not hidden by the one before: a service is no model
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, function: Callable[..., R], /
    ) -> MutationRef[None, R]: ...
    @overload
    def __call__(
        self, *, queue: str | None = None, priority: int | None = None, time_limit: Limit = None, errors: Errors = ()
    ) -> MutationDecorator: ...
    def __call__(self, *function: Any, **options: Any) -> Any:
        return self._decorate(function, options)


class ActionDecorator(_Decorator):
    """Makes a public action."""

    _makes = ActionRef

    @overload
    def __call__(self, function: Callable[Concatenate[M, ...], R], /) -> ActionRef[M, R]: ...
    @overload  # not hidden by the one before: a service is no model
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, function: Callable[..., R], /
    ) -> ActionRef[None, R]: ...
    @overload
    def __call__(
        self, *, queue: str | None = None, priority: int | None = None, time_limit: Limit = None, errors: Errors = ()
    ) -> ActionDecorator: ...
    def __call__(self, *function: Any, **options: Any) -> Any:
        return self._decorate(function, options)


class InternalMutationDecorator(_Decorator):
    """Makes an internal mutation."""

    _makes = InternalMutationRef

    @overload
    def __call__(self, function: Callable[Concatenate[M, ...], R], /) -> InternalMutationRef[M, R]: ...
    @overload  # not hidden by the one before: a service is no model
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, function: Callable[..., R], /
    ) -> InternalMutationRef[None, R]: ...
    @overload
    def __call__(
        self, *, queue: str | None = None, priority: int | None = None, time_limit: Limit = None, errors: Errors = ()
    ) -> InternalMutationDecorator: ...
    def __call__(self, *function: Any, **options: Any) -> Any:
        return self._decorate(function, options)


class InternalActionDecorator(_Decorator):
    """Makes an internal action."""

    _makes = InternalActionRef

    @overload
    def __call__(self, function: Callable[Concatenate[M, ...], R], /) -> InternalActionRef[M, R]: ...
    @overload  # not hidden by the one before: a service is no model
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, function: Callable[..., R], /
    ) -> InternalActionRef[None, R]: ...
    @overload
    def __call__(
        self, *, queue: str | None = None, priority: int | None = None, time_limit: Limit = None, errors: Errors = ()
    ) -> InternalActionDecorator: ...
    def __call__(self, *function: Any, **options: Any) -> Any:
        return self._decorate(function, options)
