"""As Celery's documentation for Django has it, and one line more."""

import os

from celery import Celery

from confect_celery import Confect

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webshop.settings")

app = Celery("webshop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
confect = Confect(app)
