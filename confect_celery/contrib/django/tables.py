"""The project's models as SQLAlchemy tables: what `db.table("…")` reads and writes as Django does."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa
from django.apps import apps
from django.db import connections, models, router
from django.db.models.fields.related import ForeignKey
from django.utils import timezone

from confect_celery.contrib.django.columns import AnyUuid, DecimalText, LocalTime, Microseconds
from confect_celery.store.schema import json_type

__all__ = ["tables_of"]

Field = models.Field  # type: ignore[type-arg, unused-ignore]  # generic in the stubs only
Make = Callable[[Any, Any], Any]

_TYPES: Final[dict[str, Make]] = {
    **dict.fromkeys(("AutoField", "IntegerField", "PositiveIntegerField"), lambda *_: sa.Integer()),
    **dict.fromkeys(("BigAutoField", "BigIntegerField", "PositiveBigIntegerField"), lambda *_: sa.BigInteger()),
    **dict.fromkeys(("SmallAutoField", "SmallIntegerField", "PositiveSmallIntegerField"), lambda *_: sa.SmallInteger()),
    **dict.fromkeys(
        ("CharField", "SlugField", "FileField", "FilePathField"), lambda field, _: sa.String(field.max_length)
    ),
    "TextField": lambda *_: sa.Text(),
    "BooleanField": lambda *_: sa.Boolean(),
    "FloatField": lambda *_: sa.Float(),
    "BinaryField": lambda *_: sa.LargeBinary(),
    "DateField": lambda *_: sa.Date(),
    "TimeField": lambda *_: sa.Time(),
    "DateTimeField": lambda _, django: LocalTime(str(django.timezone or timezone.get_default_timezone())),
    "DurationField": lambda _, django: sa.Interval() if django.features.has_native_duration_field else Microseconds(),
    "DecimalField": lambda field, _: DecimalText(field.max_digits, field.decimal_places),
    "UUIDField": lambda _, django: AnyUuid(native_uuid=django.vendor == "postgresql"),
    "JSONField": lambda *_: json_type(),
}


def tables_of(alias: str) -> sa.MetaData:
    """The tables of all models that the routers let into the database `alias`.

    A table with a column whose type is known to Django alone is left out: there the database is asked.
    """
    metadata = sa.MetaData()
    for model in apps.get_models(include_auto_created=True):
        options = model._meta
        if options.proxy or options.db_table in metadata.tables or not router.allow_migrate_model(alias, model):
            continue
        fields = options.local_concrete_fields
        columns = [column for field in fields if (column := _column(field, alias)) is not None]
        if len(columns) == len(fields):
            sa.Table(options.db_table, metadata, *columns)
    return metadata


def _column(field: Field, alias: str) -> sa.Column[Any] | None:
    django = connections[alias]
    aim: Any = field
    while isinstance(aim, ForeignKey):
        aim = aim.target_field
    make = _TYPES.get(aim.get_internal_type())
    if make is None or field.column is None or getattr(field, "generated", False):
        return None
    keys = getattr(field.model._meta, "pk_fields", [field.model._meta.pk])  # Django 5.2 and newer may have several
    options: dict[str, Any] = {
        "primary_key": field in keys,
        "nullable": field.null,
        "autoincrement": "auto" if isinstance(field, models.AutoField) else False,
    }
    return sa.Column(field.column, make(aim, django), **options, **_defaults(field))


def _defaults(field: Field) -> dict[str, Any]:
    """What Django would fill in by itself."""
    if getattr(field, "auto_now", False):
        return {"default": timezone.now, "onupdate": timezone.now}
    if getattr(field, "auto_now_add", False):
        return {"default": timezone.now}
    if getattr(field, "db_default", models.NOT_PROVIDED) is not models.NOT_PROVIDED:
        return {"server_default": sa.FetchedValue()}
    if field.has_default():
        given = field.default
        return {"default": field.get_default if callable(given) else _plain(given)}
    if field.blank and field.empty_strings_allowed and not field.null and not field.primary_key:
        return {"default": ""}
    return {}


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value
