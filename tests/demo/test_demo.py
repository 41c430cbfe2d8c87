"""`make demo` keeps its word, ends its processes whatever happens, and its verdict can be “no”."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

os.environ.setdefault("SHOP_BROKER_URL", "memory://")  # importing the shop shall leave no folder behind

from confect_celery import DateTime, Duration, ErrorInfo, ScheduledFunction, ScheduledFunctionId, State, StateKind
from tasks.demo.expectations import Expectations, Expected, Found, problems

ROOT = Path(__file__).resolve().parents[2]
PROC = Path("/proc")
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start demos; those that still run at the end are asked to stop."""
    with ExitStack() as demos:

        def start(directory: Path, *options: str) -> subprocess.Popen[str]:
            demo = demos.enter_context(_start(directory, *options))
            demos.callback(demo.terminate)
            return demo

        yield start


def _start(directory: Path, *options: str) -> subprocess.Popen[str]:
    """The demo as `make demo` starts it, with all that it makes below `directory`."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("SHOP_")}
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.demo", *options],
        cwd=ROOT,
        env={**env, "TMPDIR": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def processes_of(directory: Path) -> list[str]:
    """The processes that name `directory` in their command or environment, or work there: those of its demo."""
    if not PROC.exists():
        pytest.skip("needs /proc")
    found = []
    for process in PROC.glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            # Valkey, to name itself in ps, writes over its environment; it still works in the demo's directory.
            told = command + (process / "environ").read_bytes() + os.readlink(os.fsencode(process / "cwd"))
            if os.fsencode(directory) in told:
                found.append(f"{process.name} {command.replace(bytes(1), b' ').decode()}")
        except OSError:
            continue  # it ended while we looked, or is not ours to read
    return found


@pytest.mark.timeout(120)  # how long it took is its own affair
def test_the_demo_succeeds_with_either_broker_within_a_minute(tmp_path: Path, start: Start) -> None:
    # Side by side, for the sake of time.
    began = time.monotonic()
    demos = {}
    for broker, options in (("valkey", ()), ("files", ("--files",))):
        (tmp_path / broker).mkdir()
        demos[broker] = start(tmp_path / broker, *options)
    for broker, demo in demos.items():
        output, _ = demo.communicate(timeout=90)
        assert demo.returncode == 0, output
        assert time.monotonic() - began < 60
        for said in ("_scheduled_functions before", "_scheduled_functions after", "lag*", "Europe/Paris", "kill -9"):
            assert said in output
        for ended in ("canceled", "failed: MaxRetriesReached", "failed: InvalidPayload", "6 attempts"):
            assert ended in output
        assert "nothing lost, nothing doubled" in output.splitlines()[-1]
        assert list((tmp_path / broker).iterdir()) == []
        assert processes_of(tmp_path / broker) == []


@pytest.mark.parametrize(("number", "presses"), [(signal.SIGINT, 3), (signal.SIGTERM, 1)])
def test_an_interrupted_demo_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, presses: int, start: Start
) -> None:
    demo = start(tmp_path)
    assert demo.stdout is not None
    for line in demo.stdout:
        if "Ben verifies" in line:
            break
    assert len(processes_of(tmp_path)) >= 5, "the demo, the broker, the worker and its two children"
    for _ in range(presses):
        demo.send_signal(number)
        time.sleep(0.2)
    output, _ = demo.communicate(timeout=30)
    assert demo.returncode == 128 + number, output
    assert "Interrupted" in output
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


NOON = DateTime.parse("2026-03-01T12:00:00Z")
MAIL = ("anna@example.org", "Please verify your email")
EXPECTED = Expectations(
    rows={
        "1": Expected(
            "The reminder", "remind", StateKind.SUCCESS, then=(Expected("its mail", "mail", StateKind.SUCCESS),)
        ),
        "3": Expected("The charge", "charge", StateKind.FAILED, "MaxRetriesReached"),
    },
    mails=[MAIL],
    never=[("ben@example.org", "Please verify your email")],
    facts={"Sessions left": 0},
)


def row(id: str, name: str, kind: StateKind, parent: str | None = None, tag: str | None = None) -> ScheduledFunction:
    """A row that was 5 ms late."""
    return ScheduledFunction(
        id=ScheduledFunctionId(id),
        name=name,
        kind="mutation",
        args={},
        scheduled_time=NOON,
        creation_time=NOON,
        completed_time=NOON + Duration.millis(5),
        state=State(kind, ErrorInfo(tag, "…") if tag else None),
        attempt=0,
        next_at=None,
        parent_id=ScheduledFunctionId(parent) if parent else None,
        options={},
    )


REMINDER = row("1", "remind", StateKind.SUCCESS)
DELIVERY = row("2", "mail", StateKind.SUCCESS, parent="1")
CHARGE = row("3", "charge", StateKind.FAILED, tag="MaxRetriesReached")
FOUND = Found(rows=[REMINDER, DELIVERY, CHARGE], outbox=[(MAIL, True)], gateway=[MAIL], facts={"Sessions left": 0})


def test_the_check_is_content_when_all_is_as_expected() -> None:
    assert problems(EXPECTED, FOUND) == []


def rows(*given: ScheduledFunction) -> Callable[[Found], Found]:
    return lambda found: dataclasses.replace(found, rows=list(given))


def mailed(*given: tuple[str, str]) -> Callable[[Found], Found]:
    return lambda found: dataclasses.replace(found, gateway=list(given))


@pytest.mark.parametrize(
    ("tamper", "complaint"),
    [
        (rows(REMINDER, DELIVERY), "row 3 is missing"),
        (rows(REMINDER, CHARGE), "scheduled no mail"),
        (rows(REMINDER, DELIVERY, row("4", "mail", StateKind.SUCCESS, parent="1"), CHARGE), "one too many"),
        (rows(REMINDER, DELIVERY, CHARGE, row("5", "remind", StateKind.PENDING)), "one too many"),
        (rows(row("1", "remind", StateKind.PENDING), DELIVERY, CHARGE), "remind pending, not remind success"),
        (rows(REMINDER, DELIVERY, row("3", "charge", StateKind.FAILED, tag="WorkerLost")), "with WorkerLost, not"),
        (
            rows(dataclasses.replace(REMINDER, completed_time=NOON - Duration.millis(1)), DELIVERY, CHARGE),
            "before its time",
        ),
        (mailed(), "given to the provider 0 times instead of 1"),
        (mailed(MAIL, MAIL), "given to the provider 2 times instead of 1"),
        (mailed(MAIL, EXPECTED.never[0]), "verified in time, and yet"),
        (lambda found: dataclasses.replace(found, outbox=[(MAIL, False)]), "noted as sent 0 times"),
        (lambda found: dataclasses.replace(found, facts={"Sessions left": 1}), "Sessions left: 1 instead of 0"),
        (lambda found: dataclasses.replace(found, facts={}), "Sessions left: 'nothing' instead of 0"),
    ],
)
def test_the_check_tells_what_is_wrong(tamper: Callable[[Found], Found], complaint: str) -> None:
    assert any(complaint in problem for problem in problems(EXPECTED, tamper(FOUND)))
