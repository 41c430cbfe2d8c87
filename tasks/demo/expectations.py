"""What must have come of it: which rows, in which state, with which error; which mails; what in the shop's tables.

Expected rows form trees: what a function schedules has that function's row as its parent. A row that nobody expects is
as wrong as one that is missing, so that nothing can have been doubled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from confect_celery import Duration, ScheduledFunction, StateKind

__all__ = ["Expectations", "Expected", "Found", "Mail", "problems"]

Mail = tuple[str, str]
"""Recipient and subject."""


@dataclass(frozen=True)
class Expected:
    """How a row must end: its state, the error's tag, and the rows that it must have scheduled itself."""

    what: str
    name: str
    state: StateKind
    error: str | None = None
    then: tuple[Expected, ...] = ()


@dataclass
class Expectations:
    """All that must be so at the end."""

    rows: dict[str, Expected] = field(default_factory=dict)
    """By id: the rows that the demo itself had scheduled; `Expected.then` has those that followed."""
    mails: list[Mail] = field(default_factory=list)
    """Each of them sent once."""
    never: list[Mail] = field(default_factory=list)
    """Not to be sent at all: reminders of those who verified in time."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the shop's own tables must say."""


@dataclass(frozen=True)
class Found:
    """What is so."""

    rows: list[ScheduledFunction]
    outbox: list[tuple[Mail, bool]]
    """The mails that the shop ordered, and whether it noted them as sent."""
    gateway: list[Mail]
    """The mails that the provider got, by its own log."""
    facts: Mapping[str, Any]


def problems(expected: Expectations, found: Found) -> list[str]:
    """Everything that is not as expected, one sentence each; nothing when all is well."""
    return [*_rows(expected.rows, found.rows), *_mails(expected, found), *_facts(expected.facts, found.facts)]


def _rows(expected: Mapping[str, Expected], rows: Iterable[ScheduledFunction]) -> Iterator[str]:
    by_id: dict[str, ScheduledFunction] = {row.id: row for row in rows}
    left = dict(by_id)

    def check(wanted: Expected, row: ScheduledFunction) -> Iterator[str]:
        left.pop(row.id, None)
        yield from _row(wanted, row)
        children = [child for child in by_id.values() if child.parent_id == row.id]
        for following in wanted.then:
            child = next((child for child in children if child.name == following.name), None)
            if child is None:
                yield f"{following.what}: {wanted.what} scheduled no {following.name}."
            else:
                children.remove(child)
                yield from check(following, child)

    for id, wanted in expected.items():
        if id in by_id:
            yield from check(wanted, by_id[id])
        else:
            yield f"{wanted.what}: row {id} is missing."
    for row in left.values():
        yield f"Row {row.id} ({row.name}, {row.state.kind}) is one too many."


def _row(wanted: Expected, row: ScheduledFunction) -> Iterator[str]:
    tag = row.state.error.tag if row.state.error else None
    if (row.name, row.state.kind, tag) != (wanted.name, wanted.state, wanted.error):
        yield (
            f"{wanted.what}: row {row.id} is {_spelt(row.name, row.state.kind, tag)}, "
            f"not {_spelt(wanted.name, wanted.state, wanted.error)}."
        )
    ran = row.completed_time is not None and row.state.kind is not StateKind.CANCELED
    if ran and row.completed_time is not None and row.completed_time - row.scheduled_time < Duration.zero:
        yield f"{wanted.what}: row {row.id} ran before its time."


def _spelt(name: str, state: StateKind, tag: str | None) -> str:
    return f"{name} {state}" + (f" with {tag}" if tag else "")


def _mails(expected: Expectations, found: Found) -> Iterator[str]:
    wanted = Counter(expected.mails)
    lists = {
        "ordered": Counter(mail for mail, _ in found.outbox),
        "noted as sent": Counter(mail for mail, sent in found.outbox if sent),
        "given to the provider": Counter(found.gateway),
    }
    for verb, counted in lists.items():
        for mail in sorted(wanted.keys() | counted.keys()):
            if counted[mail] != wanted[mail]:
                yield f"Mail “{mail[1]}” to {mail[0]}: {verb} {counted[mail]} times instead of {wanted[mail]}."
        for recipient, subject in expected.never:
            if counted[recipient, subject]:
                yield f"{recipient} verified in time, and yet “{subject}” was {verb}."


def _facts(expected: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    for what, wanted in expected.items():
        if what not in found or found[what] != wanted:
            yield f"{what}: {found.get(what, 'nothing')!r} instead of {wanted!r}."
