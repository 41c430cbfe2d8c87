"""Where the shop begins: a Celery app as ever, and Confect beside it.

Shows: that Confect takes the app it is given and reads its settings from the same configuration; that the shop's
tables are plain SQLAlchemy; and how it provides services of its own.

Modules import `confect` from here to define their functions, and `refs` to name functions of modules they do not
import.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, signals

from confect_celery import Clock, Confect
from tasks.delays import Delays
from tasks.schema import metadata

__all__ = ["app", "confect", "create_tables", "refs"]

app = Celery("shop")
app.config_from_object(os.environ.get("SHOP_CONFIG", "config.embedded"))

confect = Confect(app, schema=metadata)
refs = confect.refs


def _clock() -> Clock:
    return confect.clock


# Functions ask for these by annotation. The clock is a service so that a test's clock reaches the shop's own code too.
confect.provide(Clock, _clock)
confect.provide(Delays, Delays.from_env)


@signals.worker_init.connect(weak=False)
def create_tables(**_: Any) -> None:
    """Create the shop's tables where they are missing. A shop with data to keep would migrate them with Alembic."""
    with confect.store.database.transaction() as transaction:
        metadata.create_all(transaction.connection)
