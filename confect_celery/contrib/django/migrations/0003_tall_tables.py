"""An index of the running rows, and settings for the vacuum, made by the store's own third revision."""

from django.db import migrations

from confect_celery.contrib.django.operations import Revise


class Migration(migrations.Migration):
    dependencies = [("confect_celery", "0002_crons")]
    operations = [Revise("0002", "0003")]
