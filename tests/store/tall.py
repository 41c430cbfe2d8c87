"""A table as it looks after months: mostly finished rows, many that are far off, a few in each stage in between.

The database makes the rows itself, so that ten million take a minute or two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from confect_celery.store import Store
from confect_celery.timing import DateTime

__all__ = ["Stage", "fill", "id_of", "stages"]

_DAY: Final = 86_400_000_000
_LATER: Final = 86_400_000_000 * 730


@dataclass(frozen=True)
class Stage:
    """`count` rows in one state, created evenly over `created` microseconds (from, until, relative to now)."""

    number: int
    count: int
    state: str
    created: tuple[int, int]
    next_at: tuple[int, int] | None = None
    ended: bool = False
    deliveries: int = 0
    attempt: int = 0
    foreign: bool = False
    """Whether the ids are of Celery's making: random, not by time."""

    def at(self, n: int, span: tuple[int, int]) -> int:
        """Microseconds from now of the `n`th row, 1 and more."""
        return span[0] + n * _step(span, self.count)


def _step(span: tuple[int, int], count: int) -> int:
    return (span[1] - span[0]) // max(count, 1)


def stages(total: int, *, due: int = 2_000) -> dict[str, Stage]:
    """What `total` rows are made of; a tenth are far off, and an eighth of what ended is older than a week."""
    few, far = 2_000, total // 10
    foreign = total // 100
    ended = total - far - due - foreign - 2 * few - 500
    minute, hour = 60_000_000, 3_600_000_000
    made = [
        Stage(1, ended, "success", (-8 * _DAY, -hour), ended=True),
        Stage(2, foreign, "failed", (-8 * _DAY, -hour), ended=True, foreign=True),
        Stage(3, far, "pending", (-60 * _DAY, -minute), next_at=(hour, _LATER)),
        Stage(4, due, "pending", (-hour, -minute), next_at=(-minute, 0)),
        Stage(5, few, "pending", (-hour, -minute), next_at=(1_000_000, 32_000_000), deliveries=1),
        Stage(6, few, "inProgress", (-hour, -minute), next_at=(3_000_000, 30_000_000), deliveries=1, attempt=1),
        Stage(7, 500, "inProgress", (-hour, -minute), next_at=(-minute, 0), deliveries=1, attempt=1),
    ]
    names = ("ended", "foreign", "far", "due", "published", "running", "dead")
    return dict(zip(names, made, strict=True))


def id_of(stage: Stage, n: int, now: DateTime) -> str:
    """The id of a stage's `n`th row, 1 and more."""
    if stage.foreign:
        return f"{n * 2654435761 % 4294967296:08x}-0000-4000-8000-{stage.number:x}{n:011x}"
    millis = f"{(now.epoch_micros + stage.at(n, stage.created)) // 1000:012x}"
    return f"{millis[:8]}-{millis[8:]}-7000-8000-{stage.number:x}{n:011x}"


@dataclass(frozen=True)
class _Sql:
    """How one database says it; `{...}` are SQL expressions in `n`."""

    series: str
    time: str
    hex8: str
    hex11: str
    hex12: str
    json: str
    settle: tuple[str, ...]


_SPEAKS: Final = {
    "postgresql": _Sql(
        series="generate_series(CAST(1 AS bigint), {count}) AS s(n)",
        time="TIMESTAMPTZ '1970-01-01 00:00:00+00' + ({micros}) * INTERVAL '1 microsecond'",
        hex8="lpad(to_hex({number}), 8, '0')",
        hex11="lpad(to_hex({number}), 11, '0')",
        hex12="lpad(to_hex({number}), 12, '0')",
        json="CAST({} AS jsonb)",
        settle=("VACUUM (ANALYZE) {table}",),
    ),
    "mysql": _Sql(
        series="(SELECT seq AS n FROM seq_1_to_{count}) AS s",
        time="TIMESTAMPADD(MICROSECOND, {micros}, '1970-01-01 00:00:00')",
        hex8="lpad(lower(hex({number})), 8, '0')",
        hex11="lpad(lower(hex({number})), 11, '0')",
        hex12="lpad(lower(hex({number})), 12, '0')",
        json="{}",
        settle=("ANALYZE TABLE {table}",),
    ),
    "sqlite": _Sql(
        series="(WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < {count}) SELECT n FROM r)",
        time="strftime('%Y-%m-%d %H:%M:%S', ({micros}) / 1000000, 'unixepoch') "
        "|| printf('.%06d', ({micros}) % 1000000)",
        hex8="printf('%08x', {number})",
        hex11="printf('%011x', {number})",
        hex12="printf('%012x', {number})",
        json="{}",
        settle=("ANALYZE {table}",),
    ),
}


def fill(store: Store, made: dict[str, Stage], now: DateTime, *, settle: bool = True) -> None:
    """Write the rows, and let the database look at what it has, if it is to `settle`."""
    name = store.database.url.get_backend_name()
    kind = "mysql" if name in ("mysql", "mariadb") else name
    with store.database.autocommit() as connection:
        table = connection.dialect.identifier_preparer.format_table(store.table)
        for stage in made.values():
            statement = _insert(_SPEAKS[kind], kind, table, stage, now)
            doubled = connection.dialect.paramstyle in ("format", "pyformat")
            connection.exec_driver_sql(statement.replace("%", "%%") if doubled else statement)
        for statement in _SPEAKS[kind].settle if settle else ():
            connection.exec_driver_sql(statement.format(table=table))


def _insert(sql: _Sql, kind: str, table: str, stage: Stage, now: DateTime) -> str:
    def text(*parts: str) -> str:
        return f"concat({', '.join(parts)})" if kind == "mysql" else " || ".join(f"({part})" for part in parts)

    def micros(span: tuple[int, int], after: int = 0) -> str:
        return f"{now.epoch_micros + span[0] + after} + n * {_step(span, stage.count)}"

    def time(span: tuple[int, int], after: int = 0) -> str:
        return sql.time.format(micros=micros(span, after))

    whole = "DIV" if kind == "mysql" else "/"
    rest = sql.hex11.format(number="n")
    if stage.foreign:
        id = text(sql.hex8.format(number="n * 2654435761 % 4294967296"), f"'-0000-4000-8000-{stage.number:x}'", rest)
    else:
        millis = sql.hex12.format(number=f"({micros(stage.created)}) {whole} 1000")
        parts = (f"substr({millis}, 1, 8)", "'-'", f"substr({millis}, 9)", f"'-7000-8000-{stage.number:x}'", rest)
        id = text(*parts)
    scheduled = time(stage.next_at or stage.created)
    columns: dict[str, Any] = {
        "id": id,
        "name": text("'internal/shop/function_'", "n % 20" if kind != "postgresql" else "CAST(n % 20 AS text)"),
        "kind": "'action'" if stage.state == "inProgress" else "'mutation'",
        "args": sql.json.format(
            "(" + text("'{\"user_id\": '", "n" if kind != "postgresql" else "CAST(n AS text)", "'}'") + ")"
        ),
        "scheduled_time": scheduled,
        "creation_time": time(stage.created),
        "completed_time": time(stage.created, 2_000_000) if stage.ended else "NULL",
        "state": f"'{stage.state}'",
        "error": sql.json.format('\'{"tag": "Boom", "message": "no"}\'') if stage.state == "failed" else "NULL",
        "next_at": "NULL" if stage.next_at is None else time(stage.next_at),
        "attempt": str(stage.attempt),
        "deliveries": str(stage.deliveries),
        "losses": "0",
        "options": sql.json.format("'{}'"),
        "parent_id": "NULL",
    }
    series = sql.series.format(count=stage.count)
    return f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns.values())} FROM {series}"  # noqa: S608
