"""PostgreSQL for the tables, Redis for the messages: what a shop with more than one machine runs.

The database is the shop's own: a scheduled function commits with the rows it is about, or not at all. A schema of
its own keeps Confect's table apart from the shop's in listings and grants. `celery -A tasks confect migrate`
creates it.

Any number of workers may dispatch; each takes rows that no other is taking. With hundreds of workers that is a
hundred needless polls a second, each a fraction of a millisecond: set `confect_dispatcher` to "off" and run a few
`celery -A tasks confect dispatch` instead.
"""

from __future__ import annotations

import os

broker_url = os.environ.get("SHOP_BROKER_URL", "redis://localhost:6379/0")
broker_connection_retry_on_startup = True
broker_transport_options = {"visibility_timeout": 3600}

confect_database_url = os.environ.get("SHOP_DATABASE_URL", "postgresql+psycopg://localhost/shop")
confect_schema = "confect"
# A week of history to look at; more costs only space.
confect_retention = 7 * 24 * 3600
confect_dispatcher = os.environ.get("SHOP_DISPATCHER", "worker")

# Nobody waits for results in this shop: `_scheduled_functions` tells how each function ended.
task_ignore_result = True
worker_prefetch_multiplier = 1
