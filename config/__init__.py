"""Settings of the reference shop, one module for each way of running it; `SHOP_CONFIG=config.redis` chooses.

Each is a plain Celery configuration module. `confect_…` keys stand among Celery's own and are checked at start.
"""
