"""Typed handles on functions: the decorated object itself, or a path that is looked up when it is used."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from confect_celery.functions.signature import Signature

__all__ = [
    "ActionRef",
    "FunctionOptions",
    "FunctionRef",
    "InternalActionRef",
    "InternalMutationRef",
    "InternalPath",
    "Kind",
    "MutationRef",
    "PublicPath",
    "QueryRef",
    "Refs",
    "Schedulable",
    "Visibility",
]

Kind = Literal["query", "mutation", "action"]
Visibility = Literal["internal", "public"]

Args = TypeVar("Args")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class FunctionOptions:
    """What a decorator was told: where and how the function runs, and the errors it is known to raise.

    `time_limit` is in seconds.
    """

    queue: str | None = None
    priority: int | None = None
    time_limit: float | None = None
    errors: tuple[type[Exception], ...] = ()


class FunctionRef(Generic[Args, Result]):
    """A function registered with Confect. Calling it calls the plain function: pass services yourself in a unit test.

    `name` is its path, such as `internal/users/send_reminder`: the row's name and the Celery task's as well.
    """

    def __init__(
        self, function: Callable[..., Result], name: str, kind: Kind, visibility: Visibility, options: FunctionOptions
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name
        self.kind: Kind = kind
        self.visibility: Visibility = visibility
        self.options = options

    @cached_property
    def message_options(self) -> Mapping[str, Any]:
        """What its options say of its messages."""
        said = self.options
        given = {"queue": said.queue, "priority": said.priority, "time_limit": said.time_limit}
        return {name: value for name, value in given.items() if value is not None}

    @cached_property
    def signature(self) -> Signature:
        """What it asks for; raises ServiceError where that cannot be told, NameError for an undefined annotation."""
        return Signature.of(self.function, self.name)

    def __call__(self, *args: Any, **kwargs: Any) -> Result:
        return self.function(*args, **kwargs)

    def invoke(self, args: Args, services: Mapping[str, object]) -> Result:
        """Call it with the model, where it takes one, and its services."""
        if self.signature.adapter is None:
            return self.function(**services)
        return self.function(args, **services)

    def __reduce__(self) -> str:
        return self.function.__qualname__  # copied and pickled as what it is: a name in its module

    def __repr__(self) -> str:
        return f"<{self.visibility} {self.kind} {self.name}>"


# The methods below exist for type checkers only: through them the overloads of runners and scheduler learn what a
# function takes as a ParamSpec, and so both mypy and pyright check a dict literal against a TypedDict.


class QueryRef(FunctionRef[Args, Result]):
    """A query."""

    if TYPE_CHECKING:

        def _as_query(self, args: Args) -> Result: ...


class MutationRef(FunctionRef[Args, Result]):
    """A mutation."""

    if TYPE_CHECKING:

        def _as_mutation(self, args: Args) -> Result: ...


class ActionRef(FunctionRef[Args, Result]):
    """An action."""

    if TYPE_CHECKING:

        def _as_action(self, args: Args) -> Result: ...


class Schedulable(FunctionRef[Args, Result]):
    """What the scheduler takes: internal mutations and actions."""

    if TYPE_CHECKING:

        def _as_scheduled(self, args: Args) -> object: ...


class InternalMutationRef(MutationRef[Args, Result], Schedulable[Args, Result]):
    """An internal mutation."""


class InternalActionRef(ActionRef[Args, Result], Schedulable[Args, Result]):
    """An internal action."""


class _Path:
    """A name that is looked up when it is used, so that modules need not import each other."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Path) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"refs.{self.name.replace('/', '.')}"


class InternalPath(_Path):
    """A path to an internal function, or to a group on the way to one."""

    def __getattr__(self, part: str) -> InternalPath:
        return InternalPath(_joined(self, part))


class PublicPath(_Path):
    """A path to a public function, or to a group on the way to one; the scheduler does not take it."""

    def __getattr__(self, part: str) -> PublicPath:
        return PublicPath(_joined(self, part))


def _joined(path: _Path, part: str) -> str:
    if part.startswith("_"):  # copy, pickle and IPython ask for such names, copy even before there is a `path.name`
        raise AttributeError(part)
    return f"{path.name}/{part}"


class Refs:
    """The root of all paths.

    >>> Refs().internal.billing.invoices.send.name
    'internal/billing/invoices/send'
    """

    internal = InternalPath("internal")
    public = PublicPath("public")
