"""The table `_scheduled_functions`, made by the store's own first revision."""

from django.db import migrations, models

from confect_celery.contrib.django import conf
from confect_celery.contrib.django.operations import Revise
from confect_celery.store.schema import TABLE_NAME

STATES = [(name, name) for name in ("pending", "inProgress", "success", "failed", "canceled")]


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="ScheduledFunction",
            fields=[
                ("id", models.CharField(max_length=36, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=255)),
                ("kind", models.CharField(max_length=10)),
                ("args", models.JSONField()),
                ("scheduled_time", models.DateTimeField(verbose_name="due")),
                ("creation_time", models.DateTimeField(verbose_name="scheduled at")),
                ("completed_time", models.DateTimeField(null=True, verbose_name="ended at")),
                ("state", models.CharField(choices=STATES, max_length=10)),
                ("error", models.JSONField(null=True)),
                ("next_at", models.DateTimeField(null=True, verbose_name="next looked at")),
                ("attempt", models.IntegerField()),
                ("deliveries", models.IntegerField()),
                ("losses", models.IntegerField()),
                ("options", models.JSONField()),
                ("parent_id", models.CharField(max_length=36, null=True, verbose_name="scheduled by")),
            ],
            options={
                "verbose_name": "scheduled function",
                "db_table": conf.physical_name(TABLE_NAME),
                "managed": False,
            },
        ),
        Revise(None, "0001"),
    ]
