"""Column types as Django keeps them in databases that lack a type of their own."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from decimal import Decimal
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from confect_celery.store.schema import UtcTime
from confect_celery.timing import DateTime

__all__ = ["AnyUuid", "DecimalText", "LocalTime", "Microseconds"]


class LocalTime(UtcTime):
    """An instant, kept without its zone where the database has none: Django means its connection's time zone then.

    A naive datetime, which a field's default may give where USE_TZ is off, is taken to be in that zone.
    """

    cache_ok = True

    def __init__(self, zone: str) -> None:
        super().__init__()
        self.zone = zone

    @cached_property
    def _info(self) -> dt.tzinfo:
        return dt.UTC if self.zone == "UTC" else ZoneInfo(self.zone)

    def process_bind_param(self, value: DateTime | dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Bind in the zone."""
        if isinstance(value, dt.datetime) and value.tzinfo is None:
            value = value.replace(tzinfo=self._info)
        if value is None or dialect.name == "postgresql":
            return super().process_bind_param(value, dialect)
        return DateTime.of(value).to_utc().astimezone(self._info).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> DateTime | None:
        """Give back a `DateTime` in UTC."""
        if value is not None and value.tzinfo is None:
            value = value.replace(tzinfo=self._info)
        return super().process_result_value(value, dialect)


class AnyUuid(sa.Uuid[uuid.UUID]):
    """A UUID, which may be given as text: arguments carry ids so."""

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        """As Django keeps it, with 32 digits where the database has no such type."""
        bind = super().bind_processor(dialect)
        return None if bind is None else lambda value: bind(uuid.UUID(value) if isinstance(value, str) else value)


class Microseconds(TypeDecorator[dt.timedelta]):
    """A timedelta as a number of microseconds."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: dt.timedelta | None, dialect: Dialect) -> int | None:
        """Count them."""
        return None if value is None else value // dt.timedelta(microseconds=1)

    def process_result_value(self, value: Any, dialect: Dialect) -> dt.timedelta | None:
        """Give back a timedelta."""
        return None if value is None else dt.timedelta(microseconds=int(value))


class DecimalText(TypeDecorator[Decimal]):
    """A Decimal: a real number on SQLite, which has no decimals, given as text and rounded when read."""

    impl = sa.Numeric
    cache_ok = True

    def __init__(self, digits: int, places: int) -> None:
        super().__init__(digits, places)
        self.places = places

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """On SQLite the number goes in and out as it is."""
        return dialect.type_descriptor(sa.String() if dialect.name == "sqlite" else self.impl_instance)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """As text on SQLite."""
        return str(value) if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        """Rounded to the field's places."""
        if value is None or isinstance(value, Decimal):
            return value
        return Decimal(str(value)).quantize(Decimal(1).scaleb(-self.places))
