"""RabbitMQ as the broker.

RabbitMQ closes the channel of a consumer that keeps a message unacknowledged for longer than `consumer_timeout`, half
an hour by default; a worker that holds a plain Celery eta for longer meets it. Confect's messages come within
`confect_horizon` of their time and are acknowledged when they start, so no server setting has to change, whatever the
delay.

Publishing waits for the broker's confirmation: without it, a message that RabbitMQ could not keep is lost without
an error, and Confect would learn of it only after `confect_redelivery`. Priorities need a queue declared with them,
as here.
"""

from __future__ import annotations

import os

broker_url = os.environ.get("SHOP_BROKER_URL", "amqp://guest:guest@localhost:5672//")
broker_connection_retry_on_startup = True
broker_transport_options = {"confirm_publish": True}
# Seconds between the heartbeats by which either side notices that the other is gone.
broker_heartbeat = 10
task_queue_max_priority = 10
task_default_priority = 5

confect_database_url = os.environ.get("SHOP_DATABASE_URL", "sqlite:///shop.db")

# Nobody waits for results in this shop: `_scheduled_functions` tells how each function ended.
task_ignore_result = True
worker_prefetch_multiplier = 1
