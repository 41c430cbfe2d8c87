"""The table `_confect_crons`, made by the store's own second revision."""

from django.db import migrations

from confect_celery.contrib.django.operations import Revise


class Migration(migrations.Migration):
    dependencies = [("confect_celery", "0001_initial")]
    operations = [Revise("0001", "0002")]
