"""The project's Confect, as the admin finds it."""

from __future__ import annotations

from celery import current_app
from django.core.exceptions import ImproperlyConfigured

from confect_celery.app import Confect

__all__ = ["find_confect", "get_confect"]


def find_confect() -> Confect | None:
    """The Confect of the project's Celery app; None where there is none."""
    found = getattr(current_app, "confect", None)
    return found if isinstance(found, Confect) else None


def get_confect() -> Confect:
    """The Confect of the project's Celery app; raises ImproperlyConfigured where there is none."""
    found = find_confect()
    if found is None:
        raise ImproperlyConfigured(
            "No Celery app has a Confect: make one with Confect(app) in the module of your Celery app, and import that "
            "module in your project's package, as Celery's documentation for Django has it."
        )
    return found
