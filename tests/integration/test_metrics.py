"""A prefork worker's numbers, summed over its processes by Prometheus' multiprocess mode: they equal what was done."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from confect_celery import Duration
from tests.integration.rig import Rig
from tests.support.processes import free_port
from tests.support.waiting import wait_for

SOON, LATER = Duration.seconds(1), Duration.seconds(3)


class Scraped:
    """What Prometheus would read from a worker."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/metrics"

    def __call__(self, metric: str, /, **labels: str) -> float:
        """The sum of all series of this name with at least these labels."""
        with urllib.request.urlopen(self._url, timeout=5) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        samples = [sample for family in families for sample in family.samples]
        return sum(s.value for s in samples if s.name == f"confect_{metric}" and labels.items() <= s.labels.items())


@pytest.fixture
def observed(new_rig: Callable[..., Rig], tmp_path: Path) -> tuple[Rig, Scraped]:
    """A shop whose one worker is scraped."""
    shop, port = new_rig(), free_port()
    (tmp_path / "metrics").mkdir()
    shop.worker(TEST_METRICS_PORT=str(port), PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "metrics"))
    return shop, Scraped(port)


def test_the_counters_equal_what_was_done(observed: tuple[Rig, Scraped]) -> None:
    rig, scraped = observed
    shop, scheduler = rig.shop, rig.scheduler
    label = shop.Label(label="counted")
    marks = scheduler.run_many([(SOON if n % 2 else LATER, shop.mark, label) for n in range(20)])
    looks = scheduler.run_many([(SOON if n % 2 else LATER, shop.look, label) for n in range(6)])
    plain = scheduler.run_after(SOON, shop.flaky, {"label": "flaky", "failures": 1})
    raising = [scheduler.run_after(SOON, function, label) for function in (shop.mark_and_raise, shop.act_and_raise)]
    killed = scheduler.run_after(LATER, shop.act_and_die, label)
    canceled = scheduler.run_after(SOON, shop.mark, label)
    assert scheduler.cancel(canceled)
    duplicate = rig.delivery(marks[1])
    rig.publish(duplicate)
    rows = rig.ended([*marks, *looks, plain, *raising, killed], within=30)
    # An action that raised had committed its child before.
    child = rig.called("child of counted")
    rig.ended([row.id for row in child])
    wait_for(lambda: rig.dropped(canceled), what="the canceled message to be dropped")
    wait_for(lambda: rig.dropped(marks[1]), what="the duplicate to be dropped")
    wait_for(lambda: scraped("worker_losses_total") == 1, what="the death to be counted")

    assert [row.state.kind for row in rows[-4:]] == ["success", "failed", "failed", "failed"] and len(child) == 1
    finished = {
        ("mutation", "success"): 21, ("mutation", "failed"): 1, ("action", "success"): 6, ("action", "failed"): 2,
        ("task", "success"): 1, ("task", "failed"): 0,
    }  # fmt: skip
    wait_for(lambda: scraped("finished_total") == sum(finished.values()), within=10, what="all ends to be counted")
    counted = {key: scraped("finished_total", kind=key[0], state=key[1]) for key in finished}
    assert counted == finished
    assert scraped("finished_total", name="internal/test/look", state="success") == 6
    assert scraped("claimed_total", kind="mutation") == 22 and scraped("claimed_total", kind="task") == 2
    assert scraped("lag_seconds_count", kind="mutation") == 22 and scraped("lag_seconds_count", kind="task") == 1
    assert scraped("run_seconds_count", kind="action") == 7, "the one that was killed never told how long it ran"
    assert scraped("dropped_total", reason="canceled") == 1
    assert scraped("dropped_total", reason="finished") + scraped("dropped_total", reason="running") == 1
    assert scraped("retries_total", reason="asked") == 1
    assert scraped("scheduled_total") == 1, "the test scheduled the rest in its own process"
    # The test's process published what was due within two seconds; of the worker's dispatcher are the rest.
    assert scraped("published_total") == 10 + 3 + 1 + 2, "ten marks, three looks, the killed, a child, a retry"
    assert scraped("republished_total") == 0
    wait_for(lambda: scraped("outbox") == scraped("oldest_due_seconds") == 0, what="the next poll to find nothing")


def test_opentelemetrys_are_exported_by_each_process_before_it_ends(
    new_rig: Callable[..., Rig], tmp_path: Path
) -> None:
    rig = new_rig()
    worker = rig.worker(TEST_METRICS_FILES=str(tmp_path))
    ids = rig.scheduler.run_many([(LATER, rig.shop.mark, rig.shop.Label(label=f"otel {n}")) for n in range(6)])
    rig.ended(ids)
    worker.stop()

    told = [json.loads(line) for file in tmp_path.glob("*.json") for line in file.read_text().splitlines()]
    scopes = [scope for data in told for resource in data["resource_metrics"] for scope in resource["scope_metrics"]]
    points = [(m["name"], point) for scope in scopes for m in scope["metrics"] for point in m["data"]["data_points"]]
    ours, total = {name for name, _ in points}, {"confect.published": 0, "confect.finished": 0}
    for name, point in points:
        if name in total:
            total[name] += point["value"]
    assert total == {"confect.published": 6, "confect.finished": 6} and {"confect.lag", "confect.oldest_due"} <= ours
    assert len(list(tmp_path.glob("*.json"))) >= 2, "the main process and the pool's each have a provider"
