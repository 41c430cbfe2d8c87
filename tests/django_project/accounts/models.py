import uuid

from django.db import models


class Account(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    email = models.CharField(max_length=200)
    plan = models.CharField(max_length=20, default="free")
    note = models.TextField(blank=True)
    verified = models.BooleanField(default=False)
    balance = models.DecimalField(max_digits=10, decimal_places=2, default=0)
    profile = models.JSONField(default=dict)
    trial = models.DurationField(null=True)
    created = models.DateTimeField(auto_now_add=True)
    trial_end = models.DateTimeField(null=True)
    born = models.DateField(null=True)
    wake_at = models.TimeField(null=True)


class Reminder(models.Model):
    account = models.ForeignKey(Account, models.CASCADE)
    text = models.CharField(max_length=200)
    row_id = models.CharField(max_length=36, null=True)

    class Meta:
        db_table = "reminders"
