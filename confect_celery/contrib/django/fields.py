"""The model's fields."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone

__all__ = ["InstantField"]


class InstantField(models.DateTimeField):
    """An instant of Confect's, which is UTC in every database, whatever Django's settings say of its own times."""

    def deconstruct(self) -> Any:
        """To migrations it is a DateTimeField: they do not make the table."""
        name, _, args, options = super().deconstruct()
        return name, "django.db.models.DateTimeField", args, options

    def from_db_value(self, value: dt.datetime | None, expression: Any, connection: Any) -> dt.datetime | None:
        """Undo what Django took it for."""
        if value is None or connection.vendor == "postgresql":
            return value
        # Django has put a zone to it: its connection's.
        naive = timezone.make_naive(value, connection.timezone) if timezone.is_aware(value) else value
        return _as_asked(naive.replace(tzinfo=dt.UTC))

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """To filter by."""
        if connection.vendor != "postgresql":
            value = value if prepared else self.get_prep_value(value)
            if isinstance(value, dt.datetime):
                aware = value if timezone.is_aware(value) else timezone.make_aware(value)
                # Naive as it is, it goes through unchanged.
                return connection.ops.adapt_datetimefield_value(aware.astimezone(dt.UTC).replace(tzinfo=None))
        return super().get_db_prep_value(value, connection, prepared)


def _as_asked(value: dt.datetime) -> dt.datetime:
    return value if settings.USE_TZ else timezone.make_naive(value, timezone.get_default_timezone())
