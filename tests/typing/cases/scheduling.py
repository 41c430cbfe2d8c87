"""What `run_after`, `run_at` and `run_many` take."""

from __future__ import annotations

import datetime as dt
from typing import assert_type

from celery import shared_task

from confect_celery import DateTime, Duration, ScheduledFunction, ScheduledFunctionId, Scheduler
from tests.typing.cases.shop import (
    Mail,
    Other,
    UserRef,
    VerifiedUserRef,
    app,
    clean,
    confect,
    count,
    deliver,
    deliver_all,
    mail,
    nothing,
    read,
    read_internally,
    register,
    remind,
    remind_slowly,
)

scheduler = confect.scheduler
refs = confect.refs
delay = Duration.hours(1)
when = DateTime.now()
assert_type(scheduler, Scheduler)


@app.task
def plain(x: int) -> None: ...


@app.task(bind=True, queue="other")
def bound(self: object, x: int) -> None: ...


@shared_task
def shared(x: int) -> None: ...


# A model, or a mapping for it.
assert_type(scheduler.run_after(delay, remind, UserRef(user_id="1")), ScheduledFunctionId)
assert_type(scheduler.run_after(delay, remind, {"user_id": "1"}), ScheduledFunctionId)
assert_type(scheduler.run_at(when, deliver, UserRef(user_id="1")), ScheduledFunctionId)
scheduler.run_after(delay, remind_slowly, args=UserRef(user_id="1"))
scheduler.run_after(delay, remind, VerifiedUserRef(user_id="1", at="now"))
scheduler.run_after(delay, remind, Other(number=1))  # E
scheduler.run_at(when, deliver, Other(number=1))  # E
scheduler.run_after(delay, remind, "1")  # E
scheduler.run_after(delay, remind)  # E
scheduler.run_at(when, deliver)  # E
scheduler.run_after(delay, remind, None)  # E
scheduler.run_after(delay, remind, UserRef)  # E
scheduler.run_after(delay, remind, UserRef(user_id="1"), 3)  # E
scheduler.run_after(delay, remind, UserRef(user_id="1"), queue="mail")  # E

# A TypedDict.
assert_type(scheduler.run_after(delay, mail, {"to": "a@b.c"}), ScheduledFunctionId)
assert_type(scheduler.run_at(when, mail, {"to": "a@b.c", "body": "Hello"}), ScheduledFunctionId)
scheduler.run_after(delay, mail, args={"to": "a@b.c"})
scheduler.run_after(delay, mail, Mail(to="a@b.c"))
scheduler.run_after(delay, mail, {})  # E
scheduler.run_at(when, mail, {})  # E
scheduler.run_after(delay, mail, {"body": "Hello"})  # E
scheduler.run_after(delay, mail, {"to": 1})  # E
scheduler.run_at(when, mail, {"to": 1})  # E
scheduler.run_after(delay, mail, {"to": "a@b.c", "subject": ""})  # E
scheduler.run_after(delay, mail, args={"too": "a@b.c"})  # E
scheduler.run_after(delay, mail, dict[str, str]())  # E
scheduler.run_after(delay, mail, Other(number=1))  # E
scheduler.run_after(delay, mail)  # E

# Without arguments.
assert_type(scheduler.run_after(delay, clean), ScheduledFunctionId)
scheduler.run_after(delay, nothing, None)
scheduler.run_at(when, deliver_all)
scheduler.run_after(delay, clean, UserRef(user_id="1"))  # E
scheduler.run_after(delay, clean, {"user_id": "1"})  # E
scheduler.run_at(when, deliver_all, {"user_id": "1"})  # E

# A time.
scheduler.run_after(dt.timedelta(hours=1), clean)
scheduler.run_at(dt.datetime.now(dt.UTC), clean)
scheduler.run_after(3600, clean)  # E
scheduler.run_after(0.5, remind, {"user_id": "1"})  # E
scheduler.run_after("1h", clean)  # E
scheduler.run_after(when, clean)  # E
scheduler.run_at("2030-01-01T00:00:00Z", clean)  # E
scheduler.run_at(dt.date(2030, 1, 1), clean)  # E
scheduler.run_at(1893456000, mail, {"to": "a@b.c"})  # E
scheduler.run_at(delay, clean)  # E

# What is not schedulable.
scheduler.run_after(delay, register, UserRef(user_id="1"))  # E
scheduler.run_after(delay, read, UserRef(user_id="1"))  # E
scheduler.run_after(delay, count)  # E
scheduler.run_after(delay, read_internally, {"to": "a@b.c"})  # E
scheduler.run_at(when, register, {"user_id": "1"})  # E
scheduler.run_after(delay, refs.public.users.register, {"user_id": "1"})  # E
scheduler.run_at(when, refs.public.users.register)  # E
scheduler.run_after(delay, lambda: None)  # E
scheduler.run_after(delay, print, {"x": 1})  # E
scheduler.run_after(delay, "internal/users/remind", {"user_id": "1"})  # E

# By name.
assert_type(scheduler.run_after(delay, refs.internal.users.remind, {"user_id": "1"}), ScheduledFunctionId)
assert_type(scheduler.run_at(when, refs.internal.users.remind, UserRef(user_id="1")), ScheduledFunctionId)
scheduler.run_after(delay, refs.internal.billing.invoices.late.deliver_mail, Mail(to="a@b.c"))
scheduler.run_after(delay, refs.internal.users.clean)
scheduler.run_after(delay, refs.internal.users.clean, 3)  # E

# Celery's own.
assert_type(scheduler.run_after(delay, plain, {"x": 1}), ScheduledFunctionId)
assert_type(scheduler.run_at(when, shared, {"x": 1}), ScheduledFunctionId)
scheduler.run_after(delay, bound, {"x": 1})
scheduler.run_after(delay, plain)
scheduler.run_after(delay, plain.s(1))
scheduler.run_at(when, plain.si(1).set(queue="slow"))
scheduler.run_after(delay, shared.s(x=1))
scheduler.run_after(delay, plain, UserRef(user_id="1"))  # E
scheduler.run_after(delay, plain, [1])  # E
scheduler.run_after(5, plain, {"x": 1})  # E

# Many.
jobs = [(delay, remind, UserRef(user_id=each)) for each in "abc"]
assert_type(scheduler.run_many(jobs), list[ScheduledFunctionId])
scheduler.run_many([(delay, remind, {"user_id": "1"}), (when, plain, None), (delay, refs.internal.users.clean, None)])
scheduler.run_many([(delay, plain.s(1), None), (dt.timedelta(1), mail, Mail(to="a@b.c"))])
scheduler.run_many([(5, remind, None)])  # E
scheduler.run_many([(delay, register, None)])  # E
scheduler.run_many([(delay, refs.public.users.register, None)])  # E
scheduler.run_many([(delay, remind, 3)])  # E
scheduler.run_many([(delay, remind)])  # E

# What stands in the table.
id = scheduler.run_after(delay, clean)
assert_type(scheduler.cancel(id), bool)
assert_type(scheduler.reschedule(id, delay), bool)
assert_type(scheduler.reschedule(id, when), bool)
assert_type(scheduler.get(id), ScheduledFunction | None)
scheduler.reschedule(id, 60)  # E
scheduler.cancel(clean)  # E
