"""What the columns' types make of values."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.types import TypeDecorator

from confect_celery import NaiveDateTime
from confect_celery.store.schema import UtcTime
from confect_celery.timing import DateTime

DIALECTS: Any = pytest.mark.parametrize(
    "dialect",
    [sa.make_url(url).get_dialect()() for url in ("sqlite://", "postgresql+psycopg://", "mysql+pymysql://")],
    ids=["sqlite", "postgresql", "mysql"],
)


def processes(dialect: sa.Dialect) -> tuple[Any, Any]:
    """Ours, and SQLAlchemy's own."""
    type_ = UtcTime().dialect_impl(dialect)
    own: Any = TypeDecorator.bind_processor
    return type_.bind_processor(dialect), own(type_, dialect)


@DIALECTS
@given(micros=st.integers(-62_000_000_000_000_000, 250_000_000_000_000_000))
def test_a_time_is_bound_as_sqlalchemy_binds_it(dialect: sa.Dialect, micros: int) -> None:
    ours, theirs = processes(dialect)
    time = DateTime.from_epoch_micros(micros)
    there = time.to_utc().astimezone(dt.timezone(dt.timedelta(hours=2)))
    for value in (time, time.in_zone("Asia/Kolkata"), time.to_utc(), there):
        assert repr(ours(value)) == repr(theirs(value))


@DIALECTS
def test_what_is_no_time(dialect: sa.Dialect) -> None:
    ours, _ = processes(dialect)
    assert ours(None) is None
    with pytest.raises(NaiveDateTime):
        ours(DateTime.now().to_utc().replace(tzinfo=None))
