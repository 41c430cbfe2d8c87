"""What happens: the shop's users and partners, second by second, and what must come of each thing they do.

A generator: whatever it yields is a condition, and the story goes on once that holds. Meanwhile the caller keeps the
screen fresh and the processes watched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from confect_celery import DateTime, Duration, ScheduledFunction, StateKind
from tasks import confect, nested, outbox, reports, retries, sessions, trials, users, webhooks
from tasks.demo.expectations import Expectations, Expected
from tasks.demo.view import View

__all__ = ["REMINDER", "SCALE", "Condition", "Stage", "Story", "scheduled"]

SCALE: Final = 36_000
"""Ten hours pass in a second, so that 24 h are 2.4 s and 14 days 33.6 s. Nothing is shorter than a second."""

REMINDER: Final = "Please verify your email"
_TRIAL_END: Final = "Your trial has ended"

SUCCESS, FAILED, CANCELED, PENDING = StateKind.SUCCESS, StateKind.FAILED, StateKind.CANCELED, StateKind.PENDING
_DELIVERY: Final = Expected("its mail", outbox.deliver.name, SUCCESS)

Condition = Callable[[], bool]


class Stage(Protocol):
    """What the story may do to the worker."""

    def kill_worker(self) -> None:
        """kill -9 of its whole process group."""

    def start_worker(self) -> Condition:
        """Start it anew; gives back when it is ready."""
        ...


def scheduled() -> list[ScheduledFunction]:
    """The whole table, the oldest row first."""
    with confect.reader() as db:
        rows: list[ScheduledFunction] = db.table("_scheduled_functions").order("asc").collect()
        return rows


class Story:
    """Tells it, and notes what is expected."""

    def __init__(self, stage: Stage, view: View) -> None:
        self.expected = Expectations()
        self._stage, self._view = stage, view
        self._began = time.monotonic()
        self._ids: dict[str, str] = {}
        self._down: tuple[DateTime, DateTime] | None = None

    def tell(self) -> Iterator[Condition]:
        """From the first registration to the last."""
        self._register("Anna")
        self._register("Ben")
        self._start_trial("Anna")
        self._order_while_payments_are_down()
        self._reports("Anna")
        self._view.table("_scheduled_functions before", scheduled())
        yield self._at(1.2)
        self._verify("Ben")
        yield self._at(4.6)
        yield from self._webhooks()
        yield self._at(7.6)
        yield from self._outage()
        yield self._at(18)
        yield from self._sessions()
        yield self._at(23)
        self._nested_arguments()
        yield self._at(25.5)
        self._view.say("Still to come: the sixth and last attempt at the payment, and the end of Anna's trial.")

    def waited(self, rows: Iterable[ScheduledFunction]) -> frozenset[str]:
        """The ids of the rows that were due while there was no worker."""
        if self._down is None:
            return frozenset()
        killed, ready = self._down
        return frozenset(row.id for row in rows if killed <= row.scheduled_time <= ready)

    # -- who does what

    def _register(self, name: str) -> None:
        self._view.say(f"{name} registers. A reminder to verify the address is due in 24 h.")
        time_zone = "Europe/Paris" if name == "Anna" else "UTC"
        made = confect.run_mutation(users.register, users.Register(email=_email(name), time_zone=time_zone))
        self._name(made.user_id, name)
        self.expected.mails.append((_email(name), REMINDER))
        reminder = Expected(f"{name}'s reminder", users.send_verification_reminder.name, SUCCESS, then=(_DELIVERY,))
        self._expect_row(reminder, "user_id", made.user_id)

    def _verify(self, name: str) -> None:
        self._view.say(f"{name} verifies the address, so the reminder is taken back.")
        confect.run_mutation(users.verify, users.UserRef(user_id=self._ids[name]))
        self.expected.mails.remove((_email(name), REMINDER))
        self.expected.never.append((_email(name), REMINDER))
        reminder = Expected(f"{name}'s reminder", users.send_verification_reminder.name, CANCELED)
        self._expect_row(reminder, "user_id", self._ids[name])

    def _start_trial(self, name: str) -> None:
        self._view.say(f"{name} begins a trial of 14 days.")
        trial = confect.run_mutation(trials.start, users.UserRef(user_id=self._ids[name]))
        self._name(trial.trial_id, f"{name}'s trial")
        self.expected.mails.append((_email(name), _TRIAL_END))
        self.expected.facts[f"The status of {name}'s trial"] = "ended"
        end = Expected(f"The end of {name}'s trial", trials.end.name, SUCCESS, then=(_DELIVERY,))
        self._expect_row(end, "trial_id", trial.trial_id)

    def _order_while_payments_are_down(self) -> None:
        self._view.say("Ben orders; the payment provider is down. Retries wait 1, 2, 4, 8, 16 minutes (here seconds).")
        ordered = confect.run_mutation(retries.order, retries.Order(cents=4900))
        self._name(ordered.payment_id, "Ben's payment")
        self.expected.facts["The status of Ben's payment"] = "failed"
        last = retries.MAX_RETRIES
        charge = Expected(f"Attempt {last + 1} at the payment", retries.charge.name, FAILED, "MaxRetriesReached")
        for attempt in reversed(range(last)):
            charge = Expected(f"Attempt {attempt + 1} at the payment", retries.charge.name, SUCCESS, then=(charge,))
        self._expect_row(charge, "payment_id", ordered.payment_id)

    def _reports(self, name: str) -> None:
        monthly = DateTime.now().add(months=3).set(day=8, hour=12, minute=0, second=0, microsecond=0)
        self._view.say(
            "A monthly report is to begin in months, a daily one tomorrow at 9:00 in Paris. Both cost a row."
        )
        first = confect.run_mutation(reports.start_monthly, reports.Monthly(first=monthly))
        self._expect(first, Expected("The monthly report", reports.monthly.name, PENDING))
        daily = confect.run_mutation(reports.start_daily, reports.StartDaily(user_id=self._ids[name]))
        self._expect(daily, Expected(f"{name}'s daily report", reports.daily.name, PENDING))

    def _webhooks(self) -> Iterator[Condition]:
        self._view.say("A webhook tells of a payment: stored at once, to be processed in 30 s.")
        self._receive_payment("evt-1")
        self._view.say("Another webhook is of a kind that the shop does not know.")
        self._receive("evt-2", "payment.teleported", {}, FAILED, "InvalidPayload")
        yield self._at(5)
        try:
            confect.run_action(webhooks.receive, webhooks.Webhook(payload={"kind": "payment.paid"}))
        except webhooks.InvalidPayload as error:
            self._view.say(f"A third cannot be read and is refused on the spot: {error}", "red")

    def _receive_payment(self, event_id: str) -> None:
        with confect.writer() as db:
            payment_id = db.table("payments").insert({"cents": 1900})
        self._name(payment_id, f"the payment of {event_id}")
        self.expected.facts[f"The status of the payment of {event_id}"] = "paid"
        self._receive(event_id, "payment.paid", {"payment_id": payment_id}, SUCCESS)

    def _receive(self, id: str, kind: str, data: dict[str, str], state: StateKind, error: str | None = None) -> None:
        payload = {"id": id, "kind": kind, "data": data}
        accepted = confect.run_action(webhooks.receive, webhooks.Webhook(payload=payload))
        self._expect(accepted.function_id, Expected(f"Webhook {id}", webhooks.process.name, state, error))
        self.expected.facts[f"Whether {id} is processed"] = state is SUCCESS

    def _outage(self) -> Iterator[Condition]:
        # Not while an action runs: it starts at most once, so it would rightly end as WorkerLost.
        yield lambda: _quiet(Duration.seconds(2.4))
        self._register("Eve")
        self._register("Finn")
        # By then the dispatcher has claimed both, which are due in less than `confect_horizon`.
        yield self._in(1.6)
        self._view.say(
            "kill -9 of the worker and all its children, with Eve's and Finn's reminders in its hands.", "bold red"
        )
        began = DateTime.now()
        self._stage.kill_worker()
        yield self._in(0.4)
        self._verify("Finn")
        self._register("Greta")
        self._view.say("A webhook arrives as well; its message waits in the broker.")
        self._receive_payment("evt-3")
        yield self._in(1.2)
        self._say_loud("The worker is started again.")
        yield self._stage.start_worker()
        self._view.say("It is ready. What the dead worker held counts as lost, and is published again from its row.")
        self._down = began, DateTime.now()

    def _sessions(self) -> Iterator[Condition]:
        self._view.say("Anna and Ben log in. A session is deleted at the moment it expires, after 8 h.")
        anna, ben = self._log_in("Anna"), self._log_in("Ben")
        later = sessions.Session(session_id=anna.session_id, expires_at=DateTime.now() + Duration.seconds(3))
        self._view.say("Anna's session is prolonged, and its cleanup moved.")
        confect.run_mutation(sessions.prolong, later)
        yield self._in(0.1)
        self._view.say("Ben logs out, which deletes his session and its cleanup.")
        confect.run_mutation(sessions.log_out, sessions.SessionRef(session_id=ben.session_id))
        self._expect_row(Expected("Ben's cleanup", sessions.clean_up.name, CANCELED), "session_id", ben.session_id)
        self.expected.facts["Sessions left"] = 0

    def _log_in(self, name: str) -> sessions.Session:
        session = confect.run_mutation(sessions.log_in, users.UserRef(user_id=self._ids[name]))
        self._name(session.session_id, f"{name}'s session")
        cleanup = Expected(f"{name}'s cleanup", sessions.clean_up.name, SUCCESS)
        self._expect_row(cleanup, "session_id", session.session_id)
        return session

    def _nested_arguments(self) -> None:
        self._view.say("A task with arguments within arguments.")
        task_id = confect.run_mutation(nested.create, nested.Create(title="Call back", source="phone", priority="high"))
        self._name(task_id, "the task")
        self.expected.facts["The task: done, priority, metadata"] = (True, "high", {"source": "phone"})
        self._expect_row(Expected("The task", nested.process.name, SUCCESS), "task_id", task_id)

    def _say_loud(self, text: str) -> None:
        self._view.say(text, "bold magenta")

    # -- what is expected

    def _name(self, id: str, name: str) -> None:
        self._ids[name] = id
        self._view.names[id] = name

    def _expect(self, id: str, row: Expected) -> None:
        self.expected.rows[id] = row

    def _expect_row(self, row: Expected, key: str, value: str) -> None:
        """Expect it of the one row of that function with this argument that nothing else has scheduled."""
        with confect.reader() as db:
            rows = db.table("_scheduled_functions").filter(
                lambda q: q.and_(q.eq(q.field("name"), row.name), q.eq(q.field(f"args.{key}"), value))
            )
            first = rows.order("asc").first()
        assert first is not None, f"{row.what} was not scheduled"
        self._expect(first.id, row)

    # -- when it goes on

    def _at(self, seconds: float) -> Condition:
        return lambda: time.monotonic() - self._began >= seconds

    def _in(self, seconds: float) -> Condition:
        return self._at(time.monotonic() - self._began + seconds)


def _email(name: str) -> str:
    return f"{name.lower()}@example.org"


def _quiet(within: Duration) -> bool:
    """Whether no function runs, nor is due `within` a while."""
    soon = DateTime.now() + within
    return not any(
        row.state.kind is StateKind.IN_PROGRESS or (row.state.kind is PENDING and row.scheduled_time <= soon)
        for row in scheduled()
    )
