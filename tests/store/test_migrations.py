"""The revisions make the table that the code believes in, and leave what is in it alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from confect_celery import DateTime, Duration, SchemaOutOfDate
from confect_celery.store import NewRow, StateKind, Store, migrations, new_id
from tests.support.databases import DATABASES, Databases

NOW = DateTime.parse("2030-01-01T00:00:00Z")


@pytest.fixture(params=DATABASES)
def empty(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Store:  # type: ignore[misc]
    with databases.url(request.param, tmp_path) as url:
        store = Store(url, namespace="jobs")
        yield store
        store.database.dispose()


def test_head_is_the_newest_revision_that_ships() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert scripts.get_heads() == [migrations.HEAD]


def test_the_revisions_make_exactly_the_table_of_the_schema(empty: Store) -> None:
    empty.migrate()
    empty.check_schema()
    with empty.database.snapshot() as connection:
        ours = {empty.table.name, empty.crons.table.name}

        def relevant(object: object, name: str | None, kind: str, *_: object) -> bool:
            return kind != "table" or name in ours

        context = MigrationContext.configure(
            connection, opts={"include_object": relevant, "include_schemas": empty.table.schema is not None}
        )
        assert compare_metadata(context, empty.table.metadata) == []


def test_migrating_again_changes_nothing_and_keeps_rows_in_flight(empty: Store) -> None:
    empty.migrate()
    row = NewRow(new_id(NOW), "internal/t/f", "action", {"a": 1}, NOW, NOW, NOW)
    with empty.database.transaction() as t:
        empty.rows.insert(t.connection, [row], delivered_until={}, born=StateKind.PENDING)
    empty.migrate()
    with empty.database.transaction() as t:
        claimed = empty.rows.claim_due(t.connection, now=NOW, ahead=NOW, redelivery=Duration.seconds(1), batch=5)
    assert [delivery.id for delivery in claimed] == [row.id]


def test_a_missing_or_older_table_is_told_with_the_command_that_mends_it(empty: Store) -> None:
    if not empty.database.dialect.creates_itself:
        with pytest.raises(SchemaOutOfDate, match=r"does not exist.*confect migrate"):
            empty.check_schema()
    empty.migrate()
    with empty.database.transaction() as t:
        name = sa.table(migrations.version_table(empty.table), sa.column("version_num"), schema=empty.table.schema)
        t.connection.execute(sa.update(name).values(version_num="0000"))
    with pytest.raises(SchemaOutOfDate, match="is at revision 0000"):
        empty.check_schema()


def test_the_script_for_a_dba_is_what_migrate_does(empty: Store) -> None:
    text = empty.migration_script()
    assert "CREATE TABLE" in text
    assert empty.table.name in text
    if empty.database.url.get_backend_name() == "postgresql":
        assert "WHERE next_at IS NOT NULL" in text


def test_postgresql_vacuums_a_tall_table_in_time_and_forgets_it_on_the_way_back(empty: Store) -> None:
    if empty.database.url.get_backend_name() != "postgresql":
        assert "autovacuum" not in empty.migration_script()
        return
    assert "SET (autovacuum_vacuum_scale_factor = 0.02" in empty.migration_script(since="0002")
    empty.migrate()

    def options(connection: sa.Connection) -> list[str] | None:
        found: list[str] | None = connection.execute(
            sa.text("SELECT reloptions FROM pg_class WHERE oid = CAST(:name AS regclass)"),
            {"name": f'"{empty.table.schema}".{empty.table.name}'},
        ).scalar_one()
        return found

    wanted = ["autovacuum_vacuum_scale_factor=0.02", "autovacuum_analyze_scale_factor=0.02"]
    assert empty.database.reading(options) == wanted
    with empty.database.transaction() as t:
        migrations.downgrade(t.connection, empty.table, "0002")
        assert options(t.connection) is None
        index = f"ix_{empty.table.name.lstrip('_')}_running"
        assert index not in {each["name"] for each in sa.inspect(t.connection).get_indexes(empty.table.name, "jobs")}
