"""Django's system checks for what would otherwise show at the first job: `manage.py check`, and each `runserver`."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core import checks

from confect_celery.contrib.django import conf
from confect_celery.contrib.django.shop import find_confect
from confect_celery.errors import InvalidSettings
from confect_celery.settings import Settings

__all__ = ["check_settings", "register"]


def register() -> None:
    """Have Django run the checks."""
    checks.register(check_settings)


def check_settings(app_configs: Any = None, **_: Any) -> list[checks.CheckMessage]:
    """Settings that are misspelt, unusable, without their namespace, or at odds with what Django was told."""
    messages: list[checks.CheckMessage] = [
        checks.Error(
            f"{name} has no effect: it must be called {conf.NAMESPACE}{name}.", id="confect_celery.E001", obj="settings"
        )
        for name in dir(settings)
        if name.startswith("CONFECT_")
    ]
    confect = find_confect()
    if confect is None:
        hint = "Make one with Confect(app) in the module of your Celery app, and import that in your project's package."
        return [*messages, checks.Warning("No Celery app has a Confect.", hint=hint, id="confect_celery.W001")]
    try:
        found = Settings.read(confect.app.conf)
        alias = conf.alias_of(found.database_url)
        if alias is not None:
            from confect_celery.contrib.django.dialect import DjangoDialect

            DjangoDialect(alias)
    except InvalidSettings as error:
        return messages + [
            checks.Error(f"{name}: {problem}.", id="confect_celery.E002", obj="settings")
            for name, problem in error.problems.items()
        ]
    if (found.database_url, found.schema_) != (conf.given_url(), conf.namespace()):
        hint = f'Use app.config_from_object("django.conf:settings", namespace="{conf.NAMESPACE.rstrip("_")}").'
        text = "Celery's configuration and Django's settings do not say the same of confect_database_url or _schema."
        messages.append(checks.Error(text, hint=hint, id="confect_celery.E003", obj="settings"))
    return messages
