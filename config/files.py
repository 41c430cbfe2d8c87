"""Kombu's broker of files, in which a message is there as a whole or not at all.

Kombu writes a message into a file that others can see already: a worker that takes it in that moment finds nothing in
it, and ends.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import filesystem
from kombu.utils.encoding import str_to_bytes
from kombu.utils.json import dumps

__all__ = ["Transport"]


class Channel(filesystem.Channel):
    """Writes under a name that is no message's, and gives the file its own when it is whole."""

    def _put(self, queue: str, payload: Any, **_: Any) -> None:  # type: ignore[override]  # as kombu's own
        """Put `payload` onto `queue`."""
        whole = Path(self.data_folder_out) / f"{round(time.monotonic() * 1000)}_{uuid.uuid4()}.{queue}.msg"
        part = whole.with_name(f"{whole.name}.part")
        try:
            part.write_bytes(str_to_bytes(dumps(payload)))
            os.replace(part, whole)
        except OSError as error:
            raise ChannelError(f"Cannot add {whole.name!r} to the directory") from error


class Transport(filesystem.Transport):
    """`broker_transport` of Celery, with a `filesystem://` URL."""

    Channel = Channel
