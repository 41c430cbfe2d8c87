"""Calls become rows: validated, encoded, their times decided."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, overload

from confect_celery.errors import DelayOutOfRange, NotSchedulable
from confect_celery.functions import FunctionRef, InternalPath, PublicPath, Registry, codec
from confect_celery.settings import Settings
from confect_celery.store import EncodedCall, NewRow, RowKind, ScheduledFunctionId, new_id, new_ids
from confect_celery.timing import DateTime, Duration
from confect_celery.tracing import traced

__all__ = ["Drafts", "delay_or_time", "with_times"]

_Aim = tuple[tuple[DateTime, DateTime, DateTime], bool]
"""What jobs of the same time share: when that is, when they are made, when they are due; and whether that is near."""


@dataclass(frozen=True, slots=True)
class Drafts:
    """Rows as the scheduler will write them."""

    registry: Registry
    settings: Settings
    plain: Callable[[Any, Any], EncodedCall]
    """Encodes a call of a Celery task or signature."""

    def rows(
        self,
        jobs: Sequence[tuple[Duration | DateTime, Any, Any]],
        now: DateTime,
        parent: ScheduledFunctionId | None,
    ) -> tuple[list[NewRow], bool]:
        """A new row for each `(delay or time, function, arguments)`, and whether any is near; raises as
        `Scheduler.run_after` does.

        What jobs share, their time or all of the function but its arguments, is worked out once, and the rows share it.
        """
        if len(jobs) == 1:
            when, function, args = jobs[0]
            aim = self._aimed(when, now)
            return [self._row(new_id(now), function, args, aim, parent)], aim[1]
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
        callees: dict[int, _Callee | None] = {}
        makers: dict[tuple[int, int], Callable[[ScheduledFunctionId, Any], NewRow]] = {}
        rows = []
        for (when, function, args), own in zip(jobs, ids, strict=True):
            make = makers.get((id(when), id(function)))
            if make is None:
                aim = aims.get(id(when)) or aims.setdefault(id(when), self._aimed(when, now))
                if id(function) not in callees:
                    callees[id(function)] = self._callee(function)
                callee = callees[id(function)]
                if callee is None:
                    rows.append(self._row(own, function, args, aim, parent))
                    continue
                make = makers[id(when), id(function)] = callee.at(aim, parent)
            rows.append(make(own, args))
        return rows, any(near for _, near in aims.values())

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
        return (scheduled, now, due), self.is_near(due, now)

    def _row(
        self, own: ScheduledFunctionId, function: Any, args: Any, aim: _Aim, parent: ScheduledFunctionId | None
    ) -> NewRow:
        times, near = aim
        found = self._found(function)
        if found is None:
            call = self.plain(function, args)
            what, options = (call.name, call.kind, call.args), call.options
        else:
            ref, kind = found
            what, options = (ref.name, kind, codec.encode_as_text(ref, args)), ref.message_options
        return _new(NewRow, (own, *what, *times, traced(options, later=not near), parent))

    def _callee(self, function: Any) -> _Callee | None:
        found = self._found(function)
        return None if found is None else _Callee(*found)

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
    """The jobs; where they have the same time it is one object, so that it is worked out once."""
    read: dict[int, tuple[object, Duration | DateTime]] = {}  # what was read is kept: no other may get its id
    times: dict[Duration | DateTime, Duration | DateTime] = {}
    made = []
    for job in jobs:
        when, function, args = job
        known = read.get(id(when))
        if known is None:
            time = delay_or_time(when)
            known = read[id(when)] = when, times.setdefault(time, time)
        time = known[1]
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


class _Callee:
    """A function that jobs share."""

    def __init__(self, ref: FunctionRef[Any, Any], kind: RowKind) -> None:
        self.ref = ref
        self.kind: RowKind = kind
        self.options = ref.message_options
        self._traced: dict[bool, Mapping[str, Any]] = {}

    def at(self, aim: _Aim, parent: ScheduledFunctionId | None) -> Callable[[ScheduledFunctionId, Any], NewRow]:
        """What makes rows of calls at this time."""
        times, near = aim
        options = self._traced.get(near)
        if options is None:
            options = self._traced[near] = traced(self.options, later=not near)
        ref, call, rest = self.ref, (self.ref.name, self.kind), (*times, options, parent)

        def row(own: ScheduledFunctionId, args: Any) -> NewRow:
            return _new(NewRow, (own, *call, codec.encode_as_text(ref, args), *rest))

        return row


_new: Final[Callable[..., NewRow]] = tuple.__new__
"""Half as long as `NewRow(…)`."""
