"""The settings of a small shop. Environment: TEST_DATABASE_URL (sqlite:///…, postgresql://…, mysql://…),
TEST_OTHER_DATABASE_URL, TEST_TIME_ZONE (of the databases), TEST_BROKER_URL, and TEST_SETTINGS (JSON of more settings).
"""

import json
import logging
import os
from typing import Any
from urllib.parse import urlsplit

SECRET_KEY = "for tests only"
DEBUG = False
ALLOWED_HOSTS = ["testserver"]
ROOT_URLCONF = "webshop.urls"
USE_TZ = True
TIME_ZONE = "Europe/Paris"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "accounts",
    "confect_celery.contrib.django",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]


def database(url: str) -> dict[str, Any]:
    if url.startswith("sqlite:///"):
        name = url.removeprefix("sqlite:///")
        options: dict[str, Any] = {"timeout": 30}
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": options}
    parts = urlsplit(url)
    engine = "postgresql" if parts.scheme.startswith("postgres") else "mysql"
    return {
        "ENGINE": f"django.db.backends.{engine}",
        "NAME": parts.path.lstrip("/"),
        "USER": parts.username,
        "HOST": parts.hostname,
        "PORT": parts.port,
        "OPTIONS": {"charset": "utf8mb4"} if engine == "mysql" else {},
    }


DATABASES = {
    "default": database(os.environ.get("TEST_DATABASE_URL", "sqlite:///webshop.db")),
    "other": database(os.environ.get("TEST_OTHER_DATABASE_URL", "sqlite:///webshop-other.db")),
}
DATABASES["default"]["ATOMIC_REQUESTS"] = True
for each in DATABASES.values():
    each["TIME_ZONE"] = os.environ.get("TEST_TIME_ZONE")
if DATABASES["default"]["ENGINE"].endswith("mysql"):
    import pymysql

    pymysql.install_as_MySQLdb()

INSTALLED_APPS += os.environ.get("TEST_MORE_APPS", "").split()
CELERY_BROKER_URL = os.environ.get("TEST_BROKER_URL", "memory://")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_CONFECT_REDELIVERY = 6
CELERY_CONFECT_MIN_DELAY = 0.5  # sooner than a dispatcher is sure to look: who schedules it publishes it
LOGGING_CONFIG = None
logging.getLogger("django.request").setLevel("CRITICAL")

globals().update(json.loads(os.environ.get("TEST_SETTINGS", "{}")))
