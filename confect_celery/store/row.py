"""The row's values: its states, the transitions between them, and what the store hands out.

The state machine stands here once; `docs/states.md` draws it, and a test holds the two and the SQL equal.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, NewType

from confect_celery.timing import DateTime

__all__ = [
    "TRANSITIONS",
    "Delivery",
    "EncodedCall",
    "ErrorInfo",
    "NewRow",
    "Pending",
    "RowKind",
    "ScheduledFunction",
    "ScheduledFunctionId",
    "State",
    "StateKind",
    "Transition",
]

ScheduledFunctionId = NewType("ScheduledFunctionId", str)
"""The row's id: a UUIDv7 in its text form, and the Celery task id of its run."""

RowKind = Literal["mutation", "action", "task"]


class StateKind(enum.StrEnum):
    """The five states of a scheduled function. The last three are terminal: such a row never changes again."""

    PENDING = "pending"
    IN_PROGRESS = "inProgress"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def terminal(self) -> bool:
        """Whether a row in this state never changes again."""
        return self in (StateKind.SUCCESS, StateKind.FAILED, StateKind.CANCELED)


@dataclass(frozen=True, slots=True)
class Transition:
    """One edge of the state machine: the states a row may leave (none: the row is new) and the one it enters."""

    leaves: tuple[StateKind, ...]
    enters: StateKind


_P, _I, _S, _F, _C = StateKind

TRANSITIONS: Final[Mapping[str, Transition]] = {
    "schedule": Transition((), _P),
    "bear_canceled": Transition((), _C),
    "succeed_pending": Transition((_P,), _S),
    "fail_pending": Transition((_P,), _F),
    "start": Transition((_P,), _I),
    "succeed_running": Transition((_I,), _S),
    "fail_running": Transition((_I,), _F),
    "retry": Transition((_I,), _P),
    "hand_over": Transition((_P,), _P),
    "hold": Transition((_P,), _P),
    "doubt": Transition((_P,), _P),
    "release": Transition((_P,), _P),
    "reschedule": Transition((_P,), _P),
    "postpone": Transition((_P,), _P),
    "cancel": Transition((_P, _I), _C),
}
"""Every change of state there is, by the name of the statement that makes it (`store.statements`)."""


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """Why a function failed: `tag` is the error's class name, `data` the fields of a declared error."""

    tag: str
    message: str
    data: Any = None
    traceback: str | None = None

    @classmethod
    def from_json(cls, stored: Any) -> ErrorInfo:
        """Read what the row holds; a hand-written oddity becomes tag `Unreadable` rather than an exception."""
        if not isinstance(stored, Mapping) or "tag" not in stored:
            return cls("Unreadable", repr(stored)[:1000])
        return cls(str(stored["tag"]), str(stored.get("message", "")), stored.get("data"), stored.get("traceback"))


@dataclass(frozen=True, slots=True)
class State:
    """The state's `kind`, and the `error` of a failed row."""

    kind: StateKind
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class ScheduledFunction:
    """One scheduled function as its row tells it. All times are UTC.

    `scheduled_time` is the time asked for; `completed_time` is set once the state is terminal. `attempt` grows with
    each claim, retry or reschedule. `next_at` is when the row next needs attention, None once it is terminal.
    """

    id: ScheduledFunctionId
    name: str
    kind: RowKind
    args: Any
    scheduled_time: DateTime
    creation_time: DateTime
    completed_time: DateTime | None
    state: State
    attempt: int
    next_at: DateTime | None
    parent_id: ScheduledFunctionId | None
    options: Mapping[str, Any]
    deliveries: int = 0
    """How often this attempt was handed to the broker."""
    losses: int = 0
    """How many workers died while they ran this mutation."""


@dataclass(frozen=True, slots=True)
class EncodedCall:
    """A call of a function or a task, checked and in its JSON form; `options` are those of its message."""

    name: str
    kind: RowKind
    args: Any
    options: Mapping[str, Any] = field(default_factory=dict)


_NO_OPTIONS: Final[Mapping[str, Any]] = {}


class NewRow(NamedTuple):
    """What the scheduler writes: encoded, validated, its times decided. Thousands are made in one call, which no
    dataclass is quick enough for.

    `args` is a JSON value; or the text of one, ASCII in bytes: as the database will have it, so that none is made of
    the value again, and of a kind that Python's garbage collector need not look at.
    """

    id: ScheduledFunctionId
    name: str
    kind: RowKind
    args: Any
    scheduled_time: DateTime
    creation_time: DateTime
    due: DateTime
    options: Mapping[str, Any] = _NO_OPTIONS
    parent_id: ScheduledFunctionId | None = None

    def decoded_args(self) -> Any:
        """The JSON value, of its text too."""
        return json.loads(self.args.decode()) if isinstance(self.args, bytes) else self.args

    def to_delivery(self) -> Delivery:
        """The row on its way to Celery, at once."""
        args = self.decoded_args()
        return Delivery(self.id, self.name, self.kind, args, self.due, 0, self.options, self.parent_id)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A pending row on its way to Celery: published at `due`, valid for this `attempt` only."""

    id: ScheduledFunctionId
    name: str
    kind: RowKind
    args: Any
    due: DateTime
    attempt: int
    options: Mapping[str, Any]
    parent_id: ScheduledFunctionId | None
    deliveries: int = 0
    """How often this attempt was handed over before."""


@dataclass(frozen=True, slots=True)
class Pending:
    """What the gate needs to know of a row before it runs it."""

    id: ScheduledFunctionId
    name: str
    kind: RowKind
    args: Any
    attempt: int
    scheduled_time: DateTime
    options: Mapping[str, Any]
    creation_time: DateTime
    parent_id: ScheduledFunctionId | None = None

    @property
    def due(self) -> DateTime:
        """What was scheduled for a time in the past was due when it was scheduled."""
        return max(self.scheduled_time, self.creation_time)
