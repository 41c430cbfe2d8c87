"""The functions of an app, by name, and the groups that define them."""

from __future__ import annotations

import datetime as dt
import difflib
import inspect
import keyword
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from confect_celery.errors import DuplicateFunction, ServiceError, UnknownFunction
from confect_celery.functions.decorators import (
    ActionDecorator,
    Errors,
    InternalActionDecorator,
    InternalMutationDecorator,
    MutationDecorator,
    QueryDecorator,
)
from confect_celery.functions.ref import FunctionOptions, FunctionRef, InternalPath, Kind, PublicPath, Visibility
from confect_celery.timing import Duration

__all__ = ["Group", "Registry"]


class Registry:
    """The functions, by name. `on_add` is told of each one."""

    def __init__(self, on_add: Callable[[FunctionRef[Any, Any]], None] = lambda _: None) -> None:
        self._refs: dict[str, FunctionRef[Any, Any]] = {}
        self._on_add = on_add

    def add(self, ref: FunctionRef[Any, Any]) -> None:
        """Register a function. A module that is imported anew replaces its own; else a name taken raises
        DuplicateFunction."""
        known = self._refs.get(ref.name)
        if known is not None and _origin(known) != _origin(ref):
            raise DuplicateFunction(ref.name)
        with suppress(NameError):  # an annotation that is defined further down: `check` looks again at start
            _ = ref.signature
        self._refs[ref.name] = ref
        self._on_add(ref)

    def get(self, name: str) -> FunctionRef[Any, Any]:
        """The function called `name`; raises UnknownFunction with the names most like it."""
        try:
            return self._refs[name]
        except KeyError:
            raise UnknownFunction(name, difflib.get_close_matches(name, self._refs, 3)) from None

    def resolve(self, function: object) -> FunctionRef[Any, Any]:
        """The function that a ref or a path stands for; raises UnknownFunction."""
        if isinstance(function, FunctionRef):
            if function.name not in self._refs:  # another app's: no worker of this one knows it
                raise UnknownFunction(function.name)
            return function
        if isinstance(function, (InternalPath, PublicPath)):
            return self.get(function.name)
        raise TypeError(f"{function!r} is no function of Confect's; decorate it, or use confect.refs.")

    def __iter__(self) -> Iterator[FunctionRef[Any, Any]]:
        return iter(list(self._refs.values()))

    def __contains__(self, name: object) -> bool:
        return name in self._refs


def _origin(ref: FunctionRef[Any, Any]) -> tuple[str, str]:
    return ref.function.__module__, ref.function.__qualname__


class Group:
    """A named set of functions; its decorators register them.

    >>> users = Group(Registry(), "users")
    >>> @users.internal_mutation(queue="mail")
    ... def remind() -> None: ...
    >>> remind.name, remind.options.queue
    ('internal/users/remind', 'mail')
    """

    def __init__(self, registry: Registry, path: str) -> None:
        for part in path.split("."):
            _check_name(part, path)
        self._registry = registry
        self.path = path
        self.query = QueryDecorator(self._adder("query", "public"))
        self.mutation = MutationDecorator(self._adder("mutation", "public"))
        self.action = ActionDecorator(self._adder("action", "public"))
        self.internal_query = QueryDecorator(self._adder("query", "internal"))
        self.internal_mutation = InternalMutationDecorator(self._adder("mutation", "internal"))
        self.internal_action = InternalActionDecorator(self._adder("action", "internal"))

    def group(self, path: str) -> Group:
        """A group inside this one."""
        return Group(self._registry, f"{self.path}.{path}")

    def _adder(self, kind: Kind, visibility: Visibility) -> Callable[..., Any]:
        def add(
            cls: type[FunctionRef[Any, Any]],
            function: Callable[..., Any],
            queue: str | None = None,
            priority: int | None = None,
            time_limit: Duration | dt.timedelta | None = None,
            errors: Errors = (),
        ) -> FunctionRef[Any, Any]:
            called = getattr(function, "__name__", None)
            if called is None or inspect.isclass(function):
                raise TypeError(f"{function!r} is no function: define one with def.")
            _check_name(called, called)
            name = "/".join([visibility, *self.path.split("."), called])
            ref = cls(function, name, kind, visibility, _options(name, queue, priority, time_limit, errors))
            self._registry.add(ref)
            return ref

        return add


def _options(
    name: str, queue: str | None, priority: int | None, time_limit: Duration | dt.timedelta | None, errors: Errors
) -> FunctionOptions:
    limit = None if time_limit is None else Duration.of(time_limit)
    if limit is not None and limit <= Duration.zero:
        raise ServiceError(name, None, f"its time_limit of {limit} would let it do nothing.")
    # `failure.describe` must be able to rely on these.
    if not isinstance(errors, tuple) or not all(
        inspect.isclass(each) and issubclass(each, Exception) for each in errors
    ):
        raise ServiceError(name, None, "its errors are a tuple of exception classes, as in errors=(EmailTaken,).")
    return FunctionOptions(queue, priority, None if limit is None else limit.total_seconds(), errors)


def _check_name(part: str, whole: str) -> None:
    if not part.isidentifier() or not part.isascii() or part.startswith("_"):
        raise ServiceError(whole, None, f"{part!r} is no name for it: use letters, digits and _, not _ first.")
    if keyword.iskeyword(part) or part == "name":  # a ref's own attribute
        raise ServiceError(whole, None, f"{part!r} is no name for it: confect.refs could not be followed by it.")
