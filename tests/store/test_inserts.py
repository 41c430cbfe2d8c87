"""However many rows are inserted at once, in the database they are what each would be by itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from confect_celery import DateTime, Duration
from confect_celery.store import NewRow, ScheduledFunctionId, StateKind, Store, new_id, new_ids
from confect_celery.store.inserts import lots

NOW = DateTime.parse("2030-01-01T00:00:00.000001Z")
PARIS = DateTime.parse("2030-06-01T12:00:00.5+02:00[Europe/Paris]")
ODD = "tab\t line\n return\r \\ \\N \\. ? %s :x 'quoted' \"too\" Zoë 🦉"


def insert(store: Store, rows: Sequence[NewRow], born: StateKind = StateKind.PENDING, **until: DateTime) -> None:
    with store.database.transaction() as t:
        store.rows.insert(t.connection, rows, delivered_until=until, born=born)


def all_rows(store: Store) -> list[dict[str, Any]]:
    with store.database.snapshot() as c:
        return [dict(row) for row in c.execute(sa.select(store.table).order_by(store.table.c.id)).mappings()]


def some_rows(count: int) -> list[NewRow]:
    parent, options = new_id(NOW), {"queue": "é", "headers": {ODD: [1, None]}}
    made = []
    for n, id in enumerate(new_ids(NOW, count)):
        kinds = (
            ("internal/t/f", "action", f'{{"n":{n}}}'.encode(), NOW, NOW, NOW),
            ("internal/t/g", "mutation", {"text": ODD, "n": n}, PARIS, NOW, PARIS, options),
            (ODD, "task", json.dumps({"text": ODD}).encode(), NOW, NOW, NOW + Duration.millis(n), options, parent),
            ("own", "task", {}, NOW, NOW, NOW, {"args": [n, ODD]}),
        )
        # Many of the first and of the last kind, so that there are whole blocks of them.
        made.append(NewRow(id, *kinds[n % 3 if n < 100 else 0 if n < 700 else 3]))  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize("count", [2, 99, 1_200])
def test_many_rows_are_as_each_by_itself(store: Store, count: int) -> None:
    rows = some_rows(count)
    insert(store, rows)
    together = all_rows(store)
    with store.database.transaction() as t:
        t.connection.execute(sa.delete(store.table))
    for row in rows:
        insert(store, [row])
    assert len(together) == count
    assert together == all_rows(store)
    assert [row["id"] for row in together] == [row.id for row in rows]


def test_what_is_in_the_rows(store: Store) -> None:
    first, second = NewRow(new_id(NOW), ODD, "task", {"a": ODD}, PARIS, NOW, PARIS), some_rows(2)[1]
    insert(store, [first, second], **{second.id: NOW + Duration.days(1)})
    one, two = all_rows(store)
    assert one == {
        "id": first.id,
        "name": ODD,
        "kind": "task",
        "args": {"a": ODD},
        "scheduled_time": PARIS,
        "creation_time": NOW,
        "completed_time": None,
        "state": "pending",
        "error": None,
        "next_at": PARIS,
        "attempt": 0,
        "deliveries": 0,
        "losses": 0,
        "options": {},
        "parent_id": None,
    }
    assert (two["next_at"], two["deliveries"]) == (NOW + Duration.days(1), 1)
    assert two["options"] == {"queue": "é", "headers": {ODD: [1, None]}}


def test_many_are_born_canceled(store: Store) -> None:
    insert(store, some_rows(600), born=StateKind.CANCELED)
    rows = all_rows(store)
    assert {(row["state"], row["completed_time"], row["next_at"]) for row in rows} == {("canceled", NOW, None)}
    assert len(rows) == 600


def test_an_id_may_be_of_the_callers_own_making(store: Store) -> None:
    ids = [ScheduledFunctionId(f"{n} \\\t\n Zoë") for n in range(3)]
    insert(store, [NewRow(id, "t", "task", {}, NOW, NOW, NOW) for id in ids])
    assert [row["id"] for row in all_rows(store)] == ids


def test_all_or_none(store: Store) -> None:
    rows = some_rows(700)
    with pytest.raises(DBAPIError):
        insert(store, [*rows, rows[-1]])
    assert all_rows(store) == []


@pytest.mark.parametrize(
    ("own", "differing"),
    [
        (lambda n: (NOW, {"queue": "q"}), 2),
        (lambda n: (NOW + Duration.millis(n), {}), 4),
        (lambda n: (NOW, {"args": [n]}), 5),
    ],
    ids=["arguments", "times", "options"],
)
def test_rows_of_one_function_are_one_lot(own: Any, differing: int) -> None:
    rows = []
    for n, id in enumerate(new_ids(NOW, 5)):
        at, options = own(n)
        rows.append(NewRow(id, "t", "task", {"n": n}, at, NOW, at, options))
    ((lot,),) = lots(rows, {}, StateKind.PENDING)
    assert lot.ids == [row.id for row in rows] and lot.differing == differing
