"""The reference shop: every example of the documentation as a program that runs.

    celery -A tasks worker            # runs what is due; SHOP_CONFIG names one of the modules in config/

Read `app` first, then `users`; each module after that shows one more thing. Nothing in `confect_celery` knows this
shop.
"""

from tasks.app import app, confect, refs  # isort: skip  # first: the other modules put their functions into it
from tasks import nested, outbox, pending, reports, retries, sessions, trials, users, webhooks

__all__ = [
    "app",
    "confect",
    "nested",
    "outbox",
    "pending",
    "refs",
    "reports",
    "retries",
    "sessions",
    "trials",
    "users",
    "webhooks",
]
