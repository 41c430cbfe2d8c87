"""On every broker: each job once, never early, and at its time."""

from __future__ import annotations

import time
from collections.abc import Callable

from confect_celery import Duration
from tests.brokers.conftest import Shared
from tests.brokers.rig import Rig
from tests.support.waiting import wait_for


def _lags(rig: Rig, ids: list[str]) -> list[float]:
    """By how many milliseconds each started late, sorted."""
    return _after(rig, {row.args["label"]: row.scheduled_time.epoch_micros / 1000 for row in rig.succeeded(ids)})


def _after(rig: Rig, due: dict[str, float]) -> list[float]:
    """By how many milliseconds after its time each left its mark, sorted."""
    marks = [mark for mark in rig.marks() if mark.label in due]
    assert len(marks) == len(due), "each once"
    return sorted(mark.at * 1000 - due[mark.label] for mark in marks)


def _lags_of_messages(rig: Rig, count: int) -> list[float]:
    """What it takes bare messages of Celery's, sent at once, to leave a mark each: how quick this machine is now."""
    sent = {}
    for n in range(count):
        sent[f"bare {n}"] = time.time() * 1000
        rig.shop.plain_mark.apply_async(kwargs={"label": f"bare {n}"}, queue="shop")
    wait_for(lambda: len([mark for mark in rig.marks() if mark.label in sent]) == count, what="bare messages")
    return _after(rig, sent)


def _said(lags: list[float]) -> str:
    return f"p50 {lags[len(lags) // 2]:.1f} ms, p95 {lags[int(len(lags) * 0.95)]:.1f} ms, max {lags[-1]:.1f} ms"


def test_each_runs_once_and_never_early(shared: Shared) -> None:
    kind, rig = shared.kind.name, shared.rig
    run = rig.scheduler.run_many
    rig.succeeded([rig.schedule(rig.shop.mark, f"warm-up {n}") for n in range(8)])
    bare = _lags_of_messages(rig, 60)
    print(f"lag {kind} bare messages: {_said(bare)}")
    # All are the dispatchers': the later first, fractions included, and some in a call each.
    far = run([(Duration.millis(3000 + 37 * n), rig.shop.mark, {"label": f"far {n}"}) for n in range(60)])
    near = run([(Duration.millis(1900 - 37 * n + n / 3), rig.shop.mark, {"label": f"near {n}"}) for n in range(22)])
    called = [rig.schedule(rig.shop.mark, f"called {n}", Duration.millis(1300)) for n in range(60)]
    for name, ids in {"far": far, "near": near, "called": called}.items():
        lags = _lags(rig, ids)
        print(f"lag {kind} {name}: {_said(lags)}")
        assert lags[0] >= 0, "early"
        assert lags[len(lags) // 2] < 300 + 2 * bare[len(bare) // 2]
        assert lags[-1] < 1000 + 2 * bare[-1]


def test_both_of_two_workers_get_work(shared: Shared) -> None:
    """300 jobs at one instant: no worker may hoard them."""
    rig = shared.rig
    due = Duration.seconds(4)
    ids = rig.scheduler.run_many([(due, rig.shop.mark, {"label": f"burst {n}"}) for n in range(300)])
    rig.succeeded(ids, within=40)
    marks = [mark for mark in rig.marks() if mark.label.startswith("burst")]

    assert len(marks) == len({mark.label for mark in marks}) == 300
    done = {name: sum(mark.worker == name for mark in marks) for name in {mark.worker for mark in marks}}
    took = max(mark.at for mark in marks) - rig.row(ids[0]).scheduled_time.epoch_micros / 1_000_000
    print(f"burst {shared.kind.name}: {sorted(done.values())} in {took:.1f} s")
    assert len(done) == 2 and min(done.values()) >= 30


def test_files_in_a_folder_do_as_well(new_rig: Callable[..., Rig]) -> None:
    """The last fallback: no server at all."""
    rig = new_rig("filesystem")
    rig.worker()
    ids = [rig.schedule(rig.shop.mark, f"file {n}", Duration.millis(1000 + 500 * n)) for n in range(6)]
    ids += [rig.schedule(rig.shop.plain_mark, "plain")]
    cancelled = rig.schedule(rig.shop.mark, "cancelled", Duration.seconds(1))
    assert rig.scheduler.cancel(cancelled)
    lags = _lags(rig, ids)
    print(f"lag filesystem: {_said(lags)}")

    wait_for(lambda: rig.received(cancelled), what="the cancelled one's message")
    assert lags[0] >= 0
    assert rig.row(cancelled).state.kind == "canceled" and len(rig.marks()) == len(ids)
