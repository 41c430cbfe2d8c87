"""The admin, through Django's test client."""

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import TestCase
from webshop.celery import confect

from accounts.models import Account
from accounts.tasks import Text, remind, remind_and_fail
from confect_celery import Duration
from confect_celery.testing import harness

LIST = "/admin/confect_celery/scheduledfunction/"


class Admin(TestCase):
    def setUp(self) -> None:
        self.shop = self.enterContext(harness(confect))
        self.account = str(Account.objects.create(email="a@b.c").pk)
        self.client.force_login(User.objects.create_superuser("root"))

    def schedule(self, function=remind, text: str = "hello", hours: int = 1) -> str:
        return confect.scheduler.run_after(Duration.hours(hours), function, Text(account_id=self.account, text=text))

    def act(self, action: str, *ids: str) -> str:
        answer = self.client.post(LIST, {"action": action, "_selected_action": ids}, follow=True)
        return [str(message) for message in answer.context["messages"]][0]

    def listed(self, **query: str) -> list[str]:
        return [row.pk for row in self.client.get(LIST, query).context["cl"].result_list]

    def test_the_list_its_filters_and_its_search(self) -> None:
        first, second = self.schedule(text="needle"), self.schedule(remind_and_fail)
        confect.scheduler.cancel(second)
        page = self.client.get(LIST)
        self.assertContains(page, first)
        self.assertContains(page, "internal/accounts/remind_and_fail")
        assert sorted(self.listed()) == sorted([first, second])
        assert self.listed(state__exact="canceled") == [second]
        assert self.listed(name="internal/accounts/remind") == [first]
        assert self.listed(q="NEEDLE") == [first]
        assert self.listed(q=second) == [second]
        due = confect.scheduler.get(first).scheduled_time.to_utc()
        assert len(self.listed(scheduled_time__year=str(due.year))) == 2
        assert self.listed(scheduled_time__year=str(due.year + 1)) == []

    def test_the_detail_is_read_only(self) -> None:
        id = self.schedule(remind_and_fail, text="<b>")
        self.shop.run_all()
        page = self.client.get(f"{LIST}{id}/change/")
        self.assertContains(page, "&lt;b&gt;")
        self.assertContains(page, "after the write")
        self.assertContains(page, "Refused")
        self.assertNotContains(page, 'type="submit" value="Save')
        assert self.client.post(f"{LIST}{id}/change/", {"name": "x"}).status_code == 403
        assert self.client.post(f"{LIST}{id}/delete/", {"post": "yes"}).status_code == 403
        assert self.client.get(f"{LIST}add/").status_code == 403

    def test_cancel_tells_how_many_were_really_cancelled(self) -> None:
        one, two, three = self.schedule(), self.schedule(), self.schedule()
        confect.scheduler.cancel(three)
        assert self.act("cancel", one, two, three) == "2 of 3 cancelled; 1 had ended already."
        assert self.shop.scheduled() == []
        assert sorted(entry.object_id for entry in LogEntry.objects.all()) == sorted([one, two])

    def test_run_now_makes_it_due(self) -> None:
        id, ended = self.schedule(hours=1000), self.schedule()
        confect.scheduler.cancel(ended)
        assert self.act("run_now", id) == "1 of 1 due now."
        assert self.act("run_now", ended) == "0 of 1 due now; 1 were not pending any more."
        assert confect.scheduler.get(id).scheduled_time == self.shop.clock.now() + confect.settings.min_delay
        self.shop.advance(confect.settings.min_delay)
        assert [row.id for row in self.shop.run_due()] == [id]

    def test_who_may_only_look_cannot_act(self) -> None:
        id = self.schedule()
        viewer = User.objects.create_user("viewer", is_staff=True)
        viewer.user_permissions.add(Permission.objects.get(codename="view_scheduledfunction"))
        self.client.force_login(viewer)
        assert self.listed() == [id]
        self.client.post(LIST, {"action": "cancel", "_selected_action": [id]})
        assert confect.scheduler.get(id).state.kind == "pending"
        viewer.user_permissions.add(Permission.objects.get(codename="change_scheduledfunction"))
        assert self.act("cancel", id) == "1 of 1 cancelled."
        self.client.force_login(User.objects.create_user("nobody", is_staff=True))
        assert self.client.get(LIST).status_code == 403

    def test_the_model_shows_the_row(self) -> None:
        from confect_celery.contrib.django.models import ScheduledFunction

        row = confect.scheduler.get(self.schedule())
        model = ScheduledFunction.objects.get()
        assert (model.args, model.state, model.options) == (row.args, "pending", {})
        assert str(model) == f"internal/accounts/remind [{row.id}]"
