"""How functions call one another: the runners, typed so that a checker sees arguments that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from pydantic import BaseModel

from confect_celery.functions.ref import ActionRef, InternalPath, MutationRef, PublicPath, QueryRef

__all__ = ["ActionRunner", "MutationRunner", "QueryRunner", "ScheduledTaking", "SignatureLike", "TaskLike"]

Model = TypeVar("Model", bound=BaseModel)
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)
P = ParamSpec("P")
Call = Callable[[Any, Any], Any]


class TaskLike(Protocol):
    """A Celery task."""

    name: str

    @property
    def apply_async(self) -> Callable[..., Any]:
        """What makes it a task."""
        ...


class SignatureLike(Protocol):
    """A Celery signature."""

    @property
    def task(self) -> str | None:
        """The task's name."""
        ...

    @property
    def options(self) -> dict[str, Any]:
        """What `.set(…)` set."""
        ...


class _QueryTaking(Protocol[P, Result_co]):
    @property
    def _as_query(self) -> Callable[P, Result_co]: ...


class _MutationTaking(Protocol[P, Result_co]):
    @property
    def _as_mutation(self) -> Callable[P, Result_co]: ...


class _ActionTaking(Protocol[P, Result_co]):
    @property
    def _as_action(self) -> Callable[P, Result_co]: ...


class ScheduledTaking(Protocol[P]):
    """An internal mutation or action by what it takes."""

    @property
    def _as_scheduled(self) -> Callable[P, object]: ...


class QueryRunner:
    """Runs a query by ref or path and gives back its result.

    Raises InvalidArguments, UnknownFunction, and whatever the function raises.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    @overload
    def __call__(self, function: QueryRef[None, Result], args: None = None) -> Result: ...
    @overload
    def __call__(self, function: QueryRef[Model, Result], args: Model | Mapping[str, Any]) -> Result: ...
    @overload
    def __call__(self, function: _QueryTaking[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result: ...
    @overload
    def __call__(
        self, function: InternalPath | PublicPath, args: BaseModel | Mapping[str, Any] | None = None
    ) -> Any: ...
    def __call__(self, function: Any, args: Any = None) -> Any:  # type: ignore[misc]  # P is (args)
        return self._call(function, args)


class MutationRunner:
    """Runs a mutation by ref or path and gives back its result; inside a mutation it is a part of the transaction that
    may fail alone, elsewhere it has a transaction of its own.

    Raises InvalidArguments, UnknownFunction, and whatever the function raises.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    @overload
    def __call__(self, function: MutationRef[None, Result], args: None = None) -> Result: ...
    @overload
    def __call__(self, function: MutationRef[Model, Result], args: Model | Mapping[str, Any]) -> Result: ...
    @overload
    def __call__(self, function: _MutationTaking[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result: ...
    @overload
    def __call__(
        self, function: InternalPath | PublicPath, args: BaseModel | Mapping[str, Any] | None = None
    ) -> Any: ...
    def __call__(self, function: Any, args: Any = None) -> Any:  # type: ignore[misc]  # P is (args)
        return self._call(function, args)


class ActionRunner:
    """Runs an action by ref or path and gives back its result, here and now.

    Raises InvalidArguments, UnknownFunction, and whatever the function raises.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    @overload
    def __call__(self, function: ActionRef[None, Result], args: None = None) -> Result: ...
    @overload
    def __call__(self, function: ActionRef[Model, Result], args: Model | Mapping[str, Any]) -> Result: ...
    @overload
    def __call__(self, function: _ActionTaking[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result: ...
    @overload
    def __call__(
        self, function: InternalPath | PublicPath, args: BaseModel | Mapping[str, Any] | None = None
    ) -> Any: ...
    def __call__(self, function: Any, args: Any = None) -> Any:  # type: ignore[misc]  # P is (args)
        return self._call(function, args)
