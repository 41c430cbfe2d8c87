"""The campaign's own servers: none of them outlives a start that fails."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.site import Site
from tests.support.processes import answers


class Breaks(Site):
    """It fails when all has been started."""

    ports: tuple[int, ...]

    def _behind_proxy(self, started: ExitStack, name: str, url: str) -> str:
        found = super()._behind_proxy(started, name, url)
        if name == "database":
            self._fail()
        return found

    def _small_disk(self, started: ExitStack) -> Path:
        super()._small_disk(started)
        return self._fail()

    def _fail(self) -> Path:
        self.ports = tuple(proxy.port for proxy in self._proxies.values())
        assert self.broker.process.alive and all(map(answers, self.ports))
        raise RuntimeError("no more of it")


@pytest.mark.parametrize("database", ["postgresql", "sqlite"])
def test_a_site_that_cannot_be_started_leaves_nothing_behind(database: str, tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    site = Breaks.__new__(Breaks)
    with pytest.raises(RuntimeError, match="no more of it"):
        site.__init__(tmp_path, "valkey", database)  # type: ignore[misc]
    assert not site.broker.process.alive
    assert not any(map(answers, site.ports))
    assert not set(threading.enumerate()) - threads  # those of tests before this one end when they have been idle
    assert not os.path.ismount(tmp_path / "disk")
    if database == "postgresql":
        assert len(site.ports) == 2
        assert not site.database.process.alive and not site.database.process.cwd.exists()
