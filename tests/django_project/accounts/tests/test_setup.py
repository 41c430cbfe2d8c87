"""Settings, system checks, and the table that `migrate` makes."""

import importlib
from io import StringIO
from unittest import mock

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from celery import Celery
from django.apps import apps
from django.contrib.contenttypes.management import create_contenttypes
from django.core.checks import run_checks
from django.core.management import call_command
from django.test import SimpleTestCase, TestCase, TransactionTestCase, override_settings
from webshop.celery import confect

from confect_celery import Confect, Duration, InvalidSettings, Settings
from confect_celery.contrib.django.models import ScheduledFunction
from confect_celery.store import migrations


def configured(**given: object) -> Settings:
    """What a Celery app as Django shops have it makes of Django's settings."""
    with override_settings(**given):
        app = Celery("another", set_as_current=False)
        app.config_from_object("django.conf:settings", namespace="CELERY")
        return Confect(app).settings


class SettingsOfDjango(SimpleTestCase):
    def test_they_are_found_in_djangos_namespace(self) -> None:
        settings = configured(CELERY_CONFECT_HORIZON=3)
        assert settings.horizon == Duration.seconds(3)
        assert settings.redelivery == Duration.seconds(6)
        assert settings.database_url == "django://default"

    def test_a_name_that_is_unknown_is_an_error(self) -> None:
        with self.assertRaisesMessage(
            InvalidSettings, "CELERY_CONFECT_HORZION: no such setting, did you mean CELERY_CONFECT_HORIZON?"
        ):
            configured(CELERY_CONFECT_HORZION=3)

    def test_a_value_that_is_unusable_is_an_error_under_its_own_name(self) -> None:
        with self.assertRaisesMessage(InvalidSettings, "CELERY_CONFECT_BATCH_SIZE: Input should be"):
            configured(CELERY_CONFECT_BATCH_SIZE=0)
        with self.assertRaisesMessage(InvalidSettings, "CELERY_CONFECT_REDELIVERY: must be longer than horizon"):
            configured(CELERY_CONFECT_REDELIVERY=1)

    def checked(self, **given: object) -> list[str]:
        with override_settings(**given):
            app = Celery("checked", set_as_current=False)
            app.config_from_object("django.conf:settings", namespace="CELERY")
            with mock.patch("confect_celery.contrib.django.checks.find_confect", return_value=Confect(app)):
                return [f"{message.id} {message.msg}" for message in run_checks() if "confect" in (message.id or "")]

    def test_the_system_checks_find_them_too(self) -> None:
        assert self.checked() == []
        (unknown,) = self.checked(CELERY_CONFECT_HORZION=3)
        assert unknown.startswith("confect_celery.E002 CELERY_CONFECT_HORZION: no such setting")
        (bare,) = self.checked(CONFECT_HORIZON=3)
        assert bare == "confect_celery.E001 CONFECT_HORIZON has no effect: it must be called CELERY_CONFECT_HORIZON."
        (alias,) = self.checked(CELERY_CONFECT_DATABASE_URL="django://elsewhere")
        assert "there is no 'elsewhere' in DATABASES" in alias
        with mock.patch("confect_celery.contrib.django.checks.find_confect", return_value=None):
            assert [message.id for message in run_checks() if "confect" in (message.id or "")] == [
                "confect_celery.W001"
            ]


class Table(TestCase):
    databases = {"default", "other"}

    def test_migrate_made_exactly_the_table_of_the_schema(self) -> None:
        store = confect.store
        store.check_schema()
        with store.database.snapshot() as connection:
            ours = {store.table.name, store.crons.table.name}

            def relevant(object: object, name: str | None, kind: str, *_: object) -> bool:
                return kind != "table" or name in ours

            options = {"include_object": relevant, "include_schemas": store.table.schema is not None}
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, store.table.metadata) == []

    def test_no_model_has_changes_that_no_migration_knows(self) -> None:
        call_command("makemigrations", check=True, dry_run=True, stdout=StringIO())

    def test_the_model_has_the_tables_columns(self) -> None:
        assert {field.column for field in ScheduledFunction._meta.fields} == set(confect.store.table.columns.keys())
        assert ScheduledFunction._meta.db_table.replace('"', "") == confect.store.table.fullname

    def test_the_newest_migration_goes_to_the_stores_newest_revision(self) -> None:
        package = "confect_celery.contrib.django.migrations"
        newest = sorted(importlib.resources.files(package).glob("0*.py"))[-1].stem
        assert importlib.import_module(f"{package}.{newest}").Migration.operations[-1].after == migrations.HEAD

    def test_the_whole_app_checks_out(self) -> None:
        confect.check()


class BackAndForth(TransactionTestCase):
    def test_the_table_goes_and_comes(self) -> None:
        call_command("migrate", "confect_celery", "zero", verbosity=0)
        tables = confect.store.database.reading(lambda c: confect.store.database.engine.dialect.get_table_names(c))
        assert confect.store.table.name not in tables
        call_command("migrate", verbosity=0)
        confect.store.check_schema()
        create_contenttypes(apps.get_app_config("confect_celery"), verbosity=0)

    def test_the_migrations_sql_is_there_for_a_dba(self) -> None:
        printed = StringIO()
        call_command("sqlmigrate", "confect_celery", "0001", stdout=printed)
        assert "CREATE TABLE" in printed.getvalue() and "next_at" in printed.getvalue()
