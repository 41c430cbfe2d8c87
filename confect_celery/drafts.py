"""Calls become rows: validated, encoded, their times decided."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Final, overload

from confect_celery.errors import DelayOutOfRange, NotSchedulable
from confect_celery.functions import FunctionRef, InternalPath, PublicPath, Registry, codec
from confect_celery.settings import Settings
from confect_celery.store import EncodedCall, NewRow, RowKind, ScheduledFunctionId, new_id, new_ids
from confect_celery.timing import DateTime, Duration
from confect_celery.tracing import traced

__all__ = ["Drafts", "delay_or_time", "with_times"]

_Aim = tuple[DateTime, DateTime, DateTime, bool]
"""What jobs of the same time share: when that is, when they are made, when they are due; and whether that is near."""

_SHARED_TIMES: Final = 100
"""How many times are remembered: where there are more, each job has its own, most likely."""

_Maker = Callable[[ScheduledFunctionId, Any, _Aim], NewRow]


@dataclass(frozen=True, slots=True)
class Drafts:
    """Rows as the scheduler will write them."""

    registry: Registry
    settings: Settings
    plain: Callable[[Any, Any], EncodedCall]
    """Encodes a call of a Celery task or signature, or of one that it has encoded with more arguments."""

    def rows(
        self,
        jobs: Sequence[tuple[Duration | DateTime, Any, Any]],
        now: DateTime,
        parent: ScheduledFunctionId | None,
        block: int | None = None,
    ) -> tuple[Sequence[NewRow], bool]:
        """A new row for each `(delay or time, function, arguments)`, and whether any is near; raises as
        `Scheduler.run_after` does. Of more than `block` they are made on demand, and whether one is near is not told.

        What jobs share, their time or all of the function but its arguments, is worked out once, and the rows share it.
        """
        if len(jobs) == 1:
            when, function, args = jobs[0]
            aim = self._aimed(when, now)
            return [self._row(new_id(now), function, args, aim, parent)], aim[3]
        if block is not None and len(jobs) > block:
            return self.rows_on_demand(jobs, now, parent, block), False
        return self._rows(jobs, new_ids(now, len(jobs)), now, parent)

    def rows_on_demand(
        self,
        jobs: Sequence[tuple[Duration | DateTime, Any, Any]],
        now: DateTime,
        parent: ScheduledFunctionId | None,
        block: int,
    ) -> Sequence[NewRow]:
        """The same rows, so many made at a time, when they are first asked for; it raises then."""
        ids = new_ids(now, len(jobs))

        def made(start: int) -> list[NewRow]:
            end = start + block
            return self._rows(jobs[start:end], ids[start:end], now, parent)[0]

        return _OnDemand(len(jobs), block, made)

    def _rows(
        self,
        jobs: Sequence[tuple[Duration | DateTime, Any, Any]],
        ids: Sequence[ScheduledFunctionId],
        now: DateTime,
        parent: ScheduledFunctionId | None,
    ) -> tuple[list[NewRow], bool]:
        aims: dict[int, _Aim] = {}
        makers: dict[int, _Maker | None] = {}
        rows, near = [], False
        for (when, function, args), own in zip(jobs, ids, strict=True):
            aim = aims.get(id(when))
            if aim is None:
                aim = self._aimed(when, now)
                near = near or aim[3]
                if len(aims) < _SHARED_TIMES:
                    aims[id(when)] = aim
            make = makers.get(id(function))
            if make is not None:
                rows.append(make(own, args, aim))
                continue
            rows.append(self._row(own, function, args, aim, parent))
            # It pays from the second of its calls on; of signatures each job has its own, mostly.
            makers[id(function)] = self._maker(function, parent) if id(function) in makers else None
        return rows, near

    def call(self, function: Any, args: Any) -> EncodedCall:
        """The call as its row would hold it; raises as `Scheduler.run_after` does."""
        found = self._found(function)
        if found is None:
            return self.plain(function, args)
        ref, kind = found
        return EncodedCall(ref.name, kind, codec.encode(ref, args), ref.message_options)

    def aim(self, when: Duration | DateTime, now: DateTime) -> tuple[DateTime, DateTime]:
        """The time asked for, and when the row is due; raises DelayOutOfRange."""
        shortest, longest = self.settings.min_delay, self.settings.max_delay
        if isinstance(when, Duration):
            if when.to_micros() not in self.settings.delays:
                raise DelayOutOfRange(str(when), str(shortest), str(longest))
            due = now + when
            return due, due
        if abs(when - now) > longest:
            raise DelayOutOfRange(str(when - now), str(-longest), str(longest))
        return when, max(when, now + shortest)

    def is_near(self, due: DateTime, now: DateTime) -> bool:
        """Whether it is due within the horizon: its run follows the call."""
        return due.epoch_micros - now.epoch_micros <= self.settings.horizon.to_micros()

    def is_urgent(self, due: DateTime, now: DateTime) -> bool:
        """Whether dispatchers may find it too late, so that who schedules it publishes it, too."""
        return due.epoch_micros - now.epoch_micros <= self.settings.found_within.to_micros()

    def _aimed(self, when: Duration | DateTime, now: DateTime) -> _Aim:
        scheduled, due = self.aim(when, now)
        return scheduled, now, due, self.is_near(due, now)

    def _row(
        self, own: ScheduledFunctionId, function: Any, args: Any, aim: _Aim, parent: ScheduledFunctionId | None
    ) -> NewRow:
        scheduled, creation, due, near = aim
        found = self._found(function)
        if found is None:
            call = self.plain(function, args)
            what, options = (call.name, call.kind, call.args), call.options
        else:
            ref, kind = found
            what, options = (ref.name, kind, codec.encode_as_text(ref, args)), ref.message_options
        return _new(NewRow, (own, *what, scheduled, creation, due, traced(options, later=not near), parent))

    def _maker(self, function: Any, parent: ScheduledFunctionId | None) -> _Maker:
        """What makes rows of the calls of one function, all but the arguments worked out once."""
        found = self._found(function)
        encode: Callable[[Any], Any]
        if found is None:
            call = self.plain(function, None)
            name, kind, said, encode = call.name, call.kind, call.options, lambda args: self.plain(call, args).args
        else:
            ref, kind = found
            name, said, encode = ref.name, ref.message_options, partial(codec.encode_as_text, ref)
        options: dict[bool, Mapping[str, Any]] = {}

        def row(own: ScheduledFunctionId, args: Any, aim: _Aim) -> NewRow:
            scheduled, creation, due, near = aim
            shared = options.get(near)
            if shared is None:
                shared = options[near] = traced(said, later=not near)
            return _new(NewRow, (own, name, kind, encode(args), scheduled, creation, due, shared, parent))

        return row

    def _found(self, function: Any) -> tuple[FunctionRef[Any, Any], RowKind] | None:
        """The function of Confect's; None for anything else, which only each call tells about."""
        if not isinstance(function, (FunctionRef, InternalPath, PublicPath)):
            return None
        ref = self.registry.resolve(function)
        kind = ref.kind
        if ref.visibility != "internal" or kind == "query":
            alternative = f"Make it an internal mutation or action: @….internal_{kind.replace('query', 'action')}."
            reason = "a query only reads" if kind == "query" else "it is public"
            raise NotSchedulable(ref.name, reason, alternative)
        return ref, kind


def with_times(jobs: Iterable[tuple[Any, Any, Any]]) -> list[tuple[Duration | DateTime, Any, Any]]:
    """The jobs; a time that they share is read once, and equal ones that follow each other become one object."""
    read: dict[int, Duration | DateTime] = {}
    kept = []  # what was read: no other may get its id
    last: Duration | DateTime | None = None
    made = []
    for job in jobs:
        when, function, args = job
        time = read.get(id(when))
        if time is None:
            time = delay_or_time(when)
            if last is not None and time == last:
                time = last
            last = read[id(when)] = time
            kept.append(when)
        made.append(job if time is when and type(job) is tuple else (time, function, args))
    return made


def delay_or_time(when: object) -> Duration | DateTime:
    """What the caller gave; raises InvalidTime, and NaiveDateTime."""
    if isinstance(when, (DateTime, dt.datetime)):
        return DateTime.of(when)
    return Duration.of(when)  # type: ignore[arg-type]  # anything else is refused there


class _OnDemand(Sequence[NewRow]):
    """Rows that are made in blocks. A block whose making raised is made again when it is asked for again."""

    def __init__(self, count: int, block: int, make: Callable[[int], list[NewRow]]) -> None:
        self._count = count
        self._block = block
        self._make = make
        self._blocks: dict[int, list[NewRow]] = {}

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[NewRow]:
        return chain.from_iterable(map(self._from, range(0, self._count, self._block)))

    @overload
    def __getitem__(self, at: int) -> NewRow: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[NewRow]: ...
    def __getitem__(self, at: int | slice) -> NewRow | Sequence[NewRow]:
        if isinstance(at, slice):
            return [self[each] for each in range(self._count)[at]]
        start, within = divmod(range(self._count)[at], self._block)
        return self._from(start * self._block)[within]

    def _from(self, start: int) -> list[NewRow]:
        found = self._blocks.get(start)
        if found is None:
            found = self._blocks[start] = self._make(start)
        return found


_new: Final[Callable[..., NewRow]] = tuple.__new__
"""Half as long as `NewRow(…)`."""
