"""Workers that start quickly: forked from a process that has imported all but the shop.

Where workers die by the dozen, importing Celery and SQLAlchemy anew takes most of the time. What is forked runs the
`celery` command as a new process would, in a session of its own, with its own environment and log.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerProcess
from typing import IO

from tests.support.processes import Worker

__all__ = ["Raised"]

_CONTEXT = multiprocessing.get_context("forkserver")
_IMPORTED = (
    "celery.bin.celery", "celery.apps.worker", "celery.concurrency.prefork", "celery.fixups.django",
    "celery.worker.consumer", "celery.backends.redis", "kombu.transport.redis", "sqlalchemy.dialects.sqlite",
    "confect_celery.app", "confect_celery.store.dialects.sqlite", "tests.faults.crash",
)  # fmt: skip


class _Child:
    """What `Process` needs of a Popen."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        self.kill = process.kill

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        assert self._process.exitcode is not None
        return self._process.exitcode


class Raised(Worker):
    """A worker that is forked. It sees the true clock only."""

    def _launch(self, output: IO[bytes]) -> _Child:
        assert self.env is not None
        _CONTEXT.set_forkserver_preload(list(_IMPORTED))
        process = _CONTEXT.Process(target=_run, args=(self.argv[3:], self.env, str(self.log), str(self.cwd)))
        process.start()
        return _Child(process)


def _run(argv: list[str], env: dict[str, str], log: str, directory: str) -> None:
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(directory)
    sys.argv = ["celery", *argv]
    from celery.__main__ import main

    sys.exit(main())  # type: ignore[no-untyped-call]
