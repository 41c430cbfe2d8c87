"""With ATOMIC_REQUESTS each view is one transaction."""

from django.http import HttpRequest, HttpResponse
from webshop.celery import confect

from accounts.models import Account
from accounts.tasks import Register, Text, remind
from accounts.tasks import register as register_mutation
from confect_celery import Duration


def register(request: HttpRequest) -> HttpResponse:
    account = Account.objects.create(email=request.GET["email"])
    delay = Duration.seconds(float(request.GET.get("delay", "3600")))
    return HttpResponse(confect.scheduler.run_after(delay, remind, Text(account_id=str(account.pk))))


def register_and_fail(request: HttpRequest) -> HttpResponse:
    confect.run_mutation(register_mutation, Register(email=request.GET["email"]))
    raise RuntimeError("after the mutation")
