"""What happens to rows, as counts and as log lines: neither raises, and neither repeats what a function was given."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from celery import Celery
from pydantic import BaseModel

from confect_celery import Confect, Duration, Scheduler
from confect_celery.metrics import INSTRUMENTS, Events
from confect_celery.testing import harness
from confect_celery.timing import DateTime

SECOND = Duration.seconds(1)


class Counted:
    """Keeps what it is told, and refuses instruments and labels that nobody announced."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, ...], int] = {}
        self.values: dict[tuple[str, ...], list[float]] = {}
        self.gauges: dict[str, float] = {}

    def count(self, name: str, labels: Mapping[str, str], by: int = 1) -> None:
        key = self._key(name, labels, "counter")
        self.counts[key] = self.counts.get(key, 0) + by

    def observe(self, name: str, labels: Mapping[str, str], value: float) -> None:
        self.values.setdefault(self._key(name, labels, "histogram"), []).append(value)

    def set(self, name: str, value: float) -> None:
        assert INSTRUMENTS[name].type == "gauge"
        self.gauges[name] = value

    def close(self) -> None: ...

    def _key(self, name: str, labels: Mapping[str, str], type: str) -> tuple[str, ...]:
        it = INSTRUMENTS[name]
        assert it.type == type and set(labels) == set(it.labels), (name, labels)
        assert all(isinstance(value, str) for value in labels.values())
        return (name, *(labels[label] for label in it.labels))


class Label(BaseModel):
    label: str


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def shop(tmp_path: Path, counted: Counted) -> Iterator[Confect]:
    app = Celery("events", broker="memory://", set_as_current=False)
    app.conf.update(confect_database_url=f"sqlite:///{tmp_path / 'shop.db'}")
    confect = Confect(app, metrics=counted)
    g = confect.group("t")

    @g.internal_mutation
    def mark(args: Label) -> str:
        return args.label

    @g.internal_action
    def fail(args: Label) -> None:
        raise LookupError(args.label)

    @g.internal_action
    def schedule_and_cancel(scheduler: Scheduler) -> None:
        id = scheduler.run_after(SECOND, confect.refs.internal.t.mark, Label(label="child"))
        assert scheduler.cancel(id) and not scheduler.cancel(id)

    yield confect
    confect.store.database.dispose()


def test_every_change_is_counted_once(shop: Confect, counted: Counted) -> None:
    refs = shop.refs.internal.t
    with harness(shop) as h:
        scheduler = shop.scheduler  # by the harness's clock
        ids = [scheduler.run_after(SECOND, refs.mark, Label(label="x")) for _ in range(3)]
        scheduler.run_after(SECOND, refs.fail, Label(label="s3cr3t"))
        scheduler.run_after(SECOND, refs.schedule_and_cancel)
        assert scheduler.reschedule(ids[0], Duration.seconds(5))
        late = scheduler.run_at(h.clock.now() - Duration.days(300), refs.mark, Label(label="late"))
        h.advance(Duration.seconds(3))
        h.run_due()
        delivered = scheduler.get(late)
        assert delivered is not None and delivered.state.kind == "success"
        h.run_all()

    assert counted.counts == {
        ("scheduled", "mutation"): 5,  # four, and a child
        ("scheduled", "action"): 2,
        ("rescheduled",): 1,
        ("claimed", "mutation"): 4,
        ("claimed", "action"): 2,
        ("finished", "mutation", "internal/t/mark", "success"): 4,
        ("finished", "action", "internal/t/fail", "failed"): 1,
        ("finished", "action", "internal/t/schedule_and_cancel", "success"): 1,
        ("canceled", "call"): 1,
        **{key: n for key, n in counted.counts.items() if key[0] in ("dropped", "published")},
    }
    assert [len(counted.values["lag", kind, "(default)"]) for kind in ("mutation", "action")] == [4, 2]
    assert max(counted.values["lag", "mutation", "(default)"]) <= 3, "a time in the past is due when it is scheduled"


def test_what_is_rolled_back_is_not_counted(shop: Confect, counted: Counted) -> None:
    mark = shop.refs.internal.t.mark
    with pytest.raises(KeyError), shop.store.database.transaction() as transaction:
        scheduler = shop.invocations.scheduler_in(transaction)
        id = scheduler.run_after(Duration.days(1), mark, Label(label="x"))
        assert scheduler.reschedule(id, Duration.days(2)) and scheduler.cancel(id)
        raise KeyError

    assert counted.counts == {}


def test_the_age_of_the_oldest_is_told_by_the_poll(shop: Confect, counted: Counted) -> None:
    with harness(shop) as h:
        h.run_due()
        assert counted.gauges == {"oldest_due": 0.0, "outbox": 0.0}
        shop.scheduler.run_after(Duration.minutes(1), shop.refs.internal.t.mark, Label(label="x"))
        h.advance(Duration.minutes(3))
        h._dispatcher.claim()
        assert counted.gauges["oldest_due"] == 120.0
        h._dispatcher.claim()
        assert counted.gauges["oldest_due"] == 0.0


def test_log_lines_have_stable_fields_and_no_arguments(shop: Confect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "confect_celery.events")
    with harness(shop) as h:
        ids = [
            shop.scheduler.run_after(SECOND, ref, Label(label="s3cr3t"))
            for ref in (shop.refs.internal.t.mark, shop.refs.internal.t.fail)
        ]
        h.run_all()

    lines = [record for record in caplog.records if record.name == "confect_celery.events"]
    of = {id: [line for line in lines if getattr(line, "confect_id", None) == id] for id in ids}
    for id, state in zip(ids, ("success", "failed"), strict=True):
        scheduled, claimed, finished = of[id]
        told = [line.__dict__["confect_event"] for line in of[id]]
        assert told == ["scheduled", "claimed", "finished"]
        assert claimed.__dict__["confect_attempt"] == 0 and claimed.__dict__["confect_lag"] >= 0
        assert finished.__dict__["confect_state"] == state and finished.levelno == (
            logging.DEBUG if state == "success" else logging.WARNING
        )
        assert scheduled.__dict__["confect_kind"] in ("mutation", "action")
    assert of[ids[1]][-1].__dict__["confect_error"] == "LookupError"
    assert "s3cr3t" not in "".join(str(line.__dict__) + line.getMessage() for line in lines)


def test_a_message_of_a_strangers_forges_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    Events().dropped("id\n2026 ERROR all is lost", "na\rme" + "x" * 999, -1, "missing")

    [line] = caplog.records
    assert "\n" not in line.getMessage() and "\r" not in line.getMessage() and len(line.getMessage()) < 300
    assert line.levelno == logging.WARNING


def test_a_broken_exporter_costs_nothing_but_its_numbers(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Counted):
        def _key(self, name: str, labels: Mapping[str, str], type: str) -> tuple[str, ...]:
            raise OSError("no space left")

    events = Events(Broken())
    for _ in range(3):
        events.retried("id", "name", "asked")

    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"], "told once"


def test_names_are_bounded(counted: Counted) -> None:
    class Row:
        id, kind = "id", "task"

        def __init__(self, name: str) -> None:
            self.name = name

    events = Events(counted)
    for n in range(2_000):
        events.finished(Row(f"task {n}"), "success")

    assert len(counted.counts) == 501 and counted.counts["finished", "task", "(other)", "success"] == 1_500


@pytest.mark.parametrize(
    "tell",
    [
        lambda events: events.polled(None, DateTime.now(), 0),
        lambda events: events.retried("id", "name", "asked"),
        lambda events: events.worker_lost("id"),
        lambda events: events.close(),
    ],
)
def test_without_metrics_nothing_is_needed(tell: Callable[[Events], None]) -> None:
    tell(Events())
