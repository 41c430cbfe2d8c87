"""The table as a Django model, to read: for the admin and for reports."""

from __future__ import annotations

from typing import Any

from django.db import models

from confect_celery.contrib.django import conf
from confect_celery.contrib.django.fields import InstantField
from confect_celery.store import StateKind
from confect_celery.store.schema import TABLE_NAME

__all__ = ["ScheduledFunction"]


class _Rows(models.Manager["ScheduledFunction"]):
    """Reads where Confect writes, unless told otherwise with `using()`."""

    def get_queryset(self) -> Any:
        """All rows."""
        rows = super().get_queryset()
        return rows if self._db else rows.using(conf.alias())


class ScheduledFunction(models.Model):
    """A scheduled function. Only Confect writes here: schedule, cancel and reschedule with `confect.scheduler`."""

    STATES = tuple((kind.value, kind.value) for kind in StateKind)

    id = models.CharField(primary_key=True, max_length=36)
    name = models.CharField(max_length=255)
    kind = models.CharField(max_length=10)
    args = models.JSONField()
    scheduled_time = InstantField("due")
    creation_time = InstantField("scheduled at")
    completed_time = InstantField("ended at", null=True)
    state = models.CharField(max_length=10, choices=STATES)
    error = models.JSONField(null=True)
    next_at = InstantField("next looked at", null=True)
    attempt = models.IntegerField()
    deliveries = models.IntegerField()
    losses = models.IntegerField()
    options = models.JSONField()
    parent_id = models.CharField("scheduled by", max_length=36, null=True)

    objects = _Rows()

    class Meta:
        """Made by the migration, not by Django."""

        managed = False
        db_table = conf.physical_name(TABLE_NAME)
        verbose_name = "scheduled function"

    def __str__(self) -> str:
        return f"{self.name} [{self.id}]"
