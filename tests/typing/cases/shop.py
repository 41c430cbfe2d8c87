"""The functions that the other cases use, and what the decorators make of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NotRequired, assert_type

from celery import Celery
from pydantic import BaseModel
from typing_extensions import TypedDict

from confect_celery import Confect, DatabaseReader, DatabaseWriter, Duration, Scheduler
from confect_celery.functions import ActionRef, InternalActionRef, InternalMutationRef, MutationRef, QueryRef

app = Celery("shop")
confect = Confect(app)
users = confect.group("users")


class UserRef(BaseModel):
    user_id: str


class VerifiedUserRef(UserRef):
    at: str


class Other(BaseModel):
    number: int


class Registered(BaseModel):
    user_id: str


class Mail(TypedDict):
    to: str
    body: NotRequired[str]


class Mailer: ...


@users.query
def read(args: UserRef, db: DatabaseReader) -> str:
    return args.user_id


@users.query(queue="reads")
def count(db: DatabaseReader) -> int:
    return 1


@users.mutation
def register(args: UserRef, db: DatabaseWriter, scheduler: Scheduler) -> Registered:
    return Registered(user_id=args.user_id)


@users.action(time_limit=Duration.minutes(1))
def call_out(args: UserRef) -> list[str]:
    return [args.user_id]


@users.internal_query
def read_internally(args: Mail) -> bool:
    return True


@users.internal_mutation
def remind(args: UserRef, db: DatabaseReader, mailer: Mailer) -> int:
    return 1


@users.internal_mutation(queue="mail", priority=3, errors=(ValueError, KeyError))
def remind_slowly(args: UserRef, mailer: Mailer) -> int | None:
    return None


@users.internal_mutation
def clean(db: DatabaseWriter) -> None: ...


@users.internal_mutation()
def nothing() -> Literal["done"]:
    return "done"


@users.internal_mutation
def mail(args: Mail, db: DatabaseWriter) -> None: ...


@users.internal_action
def deliver(args: UserRef) -> float:
    return 1.0


@users.internal_action(queue="out")
def deliver_all(scheduler: Scheduler) -> bytes:
    return b""


@confect.group("billing.invoices").group("late").internal_action
def deliver_mail(args: Mail) -> None: ...


assert_type(read, QueryRef[UserRef, str])
assert_type(count, QueryRef[None, int])
assert_type(read_internally, QueryRef[Mail, bool])
assert_type(register, MutationRef[UserRef, Registered])
assert_type(call_out, ActionRef[UserRef, list[str]])
assert_type(remind, InternalMutationRef[UserRef, int])
assert_type(remind_slowly, InternalMutationRef[UserRef, int | None])
assert_type(clean, InternalMutationRef[None, None])
assert_type(nothing, InternalMutationRef[None, Literal["done"]])
assert_type(mail, InternalMutationRef[Mail, None])
assert_type(deliver, InternalActionRef[UserRef, float])
assert_type(deliver_all, InternalActionRef[None, bytes])
assert_type(deliver_mail, InternalActionRef[Mail, None])

# A function is still callable in a unit test, and knows what it is.
assert_type(read(UserRef(user_id="1"), object()), str)
assert_type(remind.name, str)
assert_type(remind.kind, Literal["query", "mutation", "action"])
assert_type(remind.visibility, Literal["internal", "public"])

users.internal_mutation(queue=3)  # E
users.internal_mutation(time_limit=60)  # E
users.internal_mutation(errors=(3,))  # E
users.internal_mutation(errors=ValueError)  # E
users.internal_mutation(eta=3)  # E
users.query(3)  # E
users.subscription(read)  # E

factory: Callable[[], Mailer] = Mailer
confect.provide(Mailer, Mailer)
confect.provide(Mailer, factory)
confect.provide(Mailer, 3)  # E
