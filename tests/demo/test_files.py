"""The broker of files: a message is there as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from kombu import Connection
from kombu.exceptions import ChannelError

from config import files


@pytest.fixture
def broker(tmp_path: Path) -> Any:
    folders = {name: str(tmp_path) for name in ("data_folder_in", "data_folder_out", "control_folder")}
    with Connection("filesystem://", transport=files.Transport, transport_options=folders) as connection:
        yield connection.default_channel


def test_who_looks_while_a_message_is_written_finds_none(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, looked = os.replace, []

    def look_first(part: Path, whole: Path) -> None:
        assert part.stat().st_size
        with pytest.raises(Empty):
            broker._get("jobs")
        looked.append(broker._size("jobs"))
        replace(part, whole)

    monkeypatch.setattr(files.os, "replace", look_first)
    broker._put("jobs", {"body": "whole"})
    assert looked == [0] and broker._size("jobs") == 1
    assert broker._get("jobs") == {"body": "whole"}


def test_a_folder_that_is_gone_is_the_channels_error(broker: Any, tmp_path: Path) -> None:
    broker.data_folder_out = str(tmp_path / "gone")
    with pytest.raises(ChannelError, match="Cannot add"):
        broker._put("jobs", {})
