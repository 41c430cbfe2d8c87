"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig

from confect_celery.contrib.django import conf

__all__ = ["ConfectConfig"]


class ConfectConfig(AppConfig):
    """Puts the table into Django's database, unless a setting puts it elsewhere."""

    name = "confect_celery.contrib.django"
    label = "confect_celery"
    verbose_name = "Confect"

    def ready(self) -> None:
        """Open `django://…` URLs from now on."""
        from confect_celery.contrib.django import checks
        from confect_celery.contrib.django.database import DjangoDatabase
        from confect_celery.settings import Settings
        from confect_celery.store import register_database

        register_database(conf.SCHEME, DjangoDatabase)
        Settings.default_database_url = conf.default_url()
        checks.register()
