"""Redis or Valkey as the broker, SQLite or any other database for the tables: the usual Celery shop.

The visibility timeout is the one setting of Redis that hurts with long delays: a message not acknowledged within it
is delivered again, to another worker. With plain Celery, an eta beyond it runs several times. Confect publishes a
message `confect_horizon` before its time at the earliest, so the timeout need only be longer than that (checked at
start) and may stay at its default.

Redis needs no persistence for Confect's sake: after a restart with empty memory, what was lost is published again
from its row within `confect_redelivery`. For the shop's other tasks it may.
"""

from __future__ import annotations

import os

broker_url = os.environ.get("SHOP_BROKER_URL", "redis://localhost:6379/0")
broker_connection_retry_on_startup = True
broker_transport_options = {"visibility_timeout": 3600}

confect_database_url = os.environ.get("SHOP_DATABASE_URL", "sqlite:///shop.db")
confect_horizon = 2
confect_redelivery = 30

# Nobody waits for results in this shop: `_scheduled_functions` tells how each function ended.
task_ignore_result = True
worker_prefetch_multiplier = 1
