"""A trace goes on from the request that schedules to the run, in another process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from confect_celery import Duration
from tests.integration.rig import Rig
from tests.support.waiting import wait_for

NEAR, FAR = Duration.seconds(1), Duration.seconds(3)


def spans(directory: Path) -> list[dict[str, Any]]:
    """What all processes wrote."""
    lines = [line for file in directory.glob("*.spans") for line in file.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def _run(directory: Path, id: str, name: str) -> dict[str, Any]:
    def found() -> list[dict[str, Any]]:
        ids = ("messaging.message.id", "messaging.message_id")
        runs = [s for s in spans(directory) if s["name"].startswith("run") and name in s["name"]]
        return [s for s in runs if id in [s["attributes"].get(key) for key in ids]]

    [it] = wait_for(found, what=f"the span of {name}")
    return it


@pytest.mark.parametrize("instrumented", ["", "pool", "all"])
def test_a_run_is_a_child_when_it_follows_at_once_and_linked_when_later(
    new_rig: Callable[..., Rig], tmp_path: Path, instrumented: str
) -> None:
    rig = new_rig()
    rig.worker(TEST_SPANS=str(tmp_path), **({"TEST_INSTRUMENT": instrumented} if instrumented else {}))
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    scheduler, shop = rig.scheduler, rig.shop
    with tracer.start_as_current_span("request") as request:
        ids = {
            (kind, delay): scheduler.run_after(delay, function, args)
            for delay in (NEAR, FAR)
            for kind, function, args in (
                ("test/mark", shop.mark, shop.Label(label="traced")),
                ("test/look", shop.look, shop.Label(label="traced")),
                ("plain.add", shop.add, {"x": 1, "y": 2}),
            )
        }
        failing = scheduler.run_after(NEAR, shop.mark_and_raise, shop.Label(label="s3cr3t"))
        ours = trace.get_current_span().get_span_context()
    untraced = scheduler.run_after(NEAR, shop.mark, shop.Label(label="untraced"))
    rig.ended([*ids.values(), failing, untraced])

    trace_id, span_id = f"0x{ours.trace_id:032x}", f"0x{ours.span_id:016x}"
    for (name, delay), id in ids.items():
        assert rig.row(id).options["headers"]["traceparent"].split("-")[1] == trace_id[2:]
        run = _run(tmp_path, id, name)
        links = [link["context"]["span_id"] for link in run["links"]]
        child = run["context"]["trace_id"] == trace_id and run["parent_id"] == span_id and links == []
        linked = run["context"]["trace_id"] != trace_id and links == [span_id]
        if instrumented == "pool":  # its own rule: the message says the parent
            assert child
        else:
            assert child if delay == NEAR else linked
            # Where publishing is instrumented too, its span is the parent.
            assert (run["parent_id"] is None) == (delay == FAR and not instrumented)
    assert request.get_span_context() == ours
    runs = [span for span in spans(tmp_path) if span["name"].startswith("run")]
    assert len(runs) == len(ids) + 1 + bool(instrumented), "one span a run, and none of ours without a request's"
    if not instrumented:
        failed = _run(tmp_path, failing, "mark_and_raise")
        assert failed["status"]["status_code"] == "ERROR" and "s3cr3t" not in json.dumps(failed)


def test_sentrys_headers_pass_through(shared: Rig) -> None:
    headers = {"sentry-trace": "771a43a4192642f0b136d5159a501700-7d1d2a4b6e5f4c3b-1", "baggage": "sentry-sample_rate=1"}
    for name, value in headers.items():
        id = shared.scheduler.run_after(NEAR, shared.shop.header.s(name).set(headers=headers))
        assert shared.end(id).state.kind == "success"
        assert shared.app.AsyncResult(id).get(timeout=10) == value
