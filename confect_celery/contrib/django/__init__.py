"""Confect in a Django project: `"confect_celery.contrib.django"` in INSTALLED_APPS is all it takes.

The table is made by `manage.py migrate`, rows go through Django's own connection and so into `transaction.atomic()`,
and the admin shows them. See docs/django.md.
"""
