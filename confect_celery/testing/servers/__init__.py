"""Private brokers for tests: processes on free ports, in a directory of their own, ended by their own pid.

Nothing here touches a service of the system, needs root, or an engine for containers. A server survives `restart()` at
its own port; Redis and Valkey come back empty, RabbitMQ with what it had stored.

>>> with tempfile.TemporaryDirectory() as directory:  # doctest: +SKIP
...     server = redis_server(Path(directory))
...     server.start()
...     server.url()
'redis://127.0.0.1:40123/0'
"""

from confect_celery.testing.servers.process import LocalProcess, Server, free_port, until
from confect_celery.testing.servers.rabbitmq import RabbitServer
from confect_celery.testing.servers.redis import RedisServer, redis_server

__all__ = ["LocalProcess", "RabbitServer", "RedisServer", "Server", "free_port", "redis_server", "until"]
