"""The plugin as people call it: `celery -A shop confect …`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import broker, broker_urls, new_rig  # noqa: F401  # fixtures
from tests.integration.rig import Rig
from tests.support.processes import ROOT, free_port


def celery(
    *arguments: str, env: dict[str, str] | None = None, app: str = "tests.integration.shop"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "celery", "-A", app, "confect", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_names_every_command() -> None:
    said = celery("--help")
    assert said.returncode == 0
    for name in ("list", "show", "cancel", "run-now", "reschedule", "retry", "stats", "crons", "check", "dispatch"):
        assert f"  {name} " in said.stdout


def test_an_app_without_confect(tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text("from celery import Celery\napp = Celery('bare')\n")
    said = celery("list", app="bare", env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})
    assert said.returncode == 1 and "has no Confect: make one with Confect(app)" in said.stderr


@pytest.mark.parametrize("command", ["list", "stats", "check", "crons", "migrate"])
def test_a_database_that_is_away(command: str) -> None:
    said = celery(command, env={"TEST_DATABASE_URL": f"postgresql://127.0.0.1:{free_port()}/nothing"})
    assert said.returncode == 1 and "Traceback" not in said.stderr
    assert "refused" in said.stderr


def test_a_watched_list_ends_with_ctrl_c(new_rig: Callable[..., Rig]) -> None:  # noqa: F811
    rig = new_rig()
    argv = [sys.executable, "-m", "celery", "-A", "tests.integration.shop", "confect", "list", "--watch"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **rig.env}
    with subprocess.Popen(
        argv,
        env=env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores Ctrl-C, and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert "ID" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) in (0, 1)


def test_workers_answer_the_doctor(new_rig: Callable[..., Rig]) -> None:  # noqa: F811
    rig = new_rig()
    nobody = celery("check", "--workers", env=rig.env)
    assert nobody.returncode == 0 and "no worker answered" in nobody.stdout
    rig.worker()
    said = celery("check", "--workers", "--json", env=rig.env)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "1 workers, 1 of them dispatching" in [finding["what"] for finding in json.loads(said.stdout)]
