"""Runners: outside functions, and as services inside them."""

from __future__ import annotations

from typing import Any, assert_type

from confect_celery import ActionRunner, MutationRunner, QueryRunner
from tests.typing.cases.shop import (
    Other,
    Registered,
    UserRef,
    call_out,
    clean,
    confect,
    count,
    deliver,
    deliver_mail,
    mail,
    nothing,
    read,
    read_internally,
    register,
    remind,
    users,
)

refs = confect.refs
user = UserRef(user_id="1")

assert_type(confect.run_query(read, user), str)
assert_type(confect.run_query(read, {"user_id": "1"}), str)
assert_type(confect.run_query(count), int)
assert_type(confect.run_query(read_internally, {"to": "a@b.c"}), bool)
assert_type(confect.run_query(refs.public.users.read, user), Any)
confect.run_query(read)  # E
confect.run_query(read, Other(number=1))  # E
confect.run_query(count, user)  # E
confect.run_query(read_internally, {"too": "a@b.c"})  # E
confect.run_query(register, user)  # E
confect.run_query(call_out, user)  # E
confect.run_query(mail, {"to": "a@b.c"})  # E
confect.run_query(lambda: 1)  # E

assert_type(confect.run_mutation(register, user), Registered)
assert_type(confect.run_mutation(remind, args=user), int)
assert_type(confect.run_mutation(clean), None)
assert_type(confect.run_mutation(mail, {"to": "a@b.c"}), None)
assert_type(confect.run_mutation(refs.internal.users.remind, {"user_id": "1"}), Any)
confect.run_mutation(register)  # E
confect.run_mutation(register, Other(number=1))  # E
confect.run_mutation(mail, {"to": 1})  # E
confect.run_mutation(read, user)  # E
confect.run_mutation(deliver, user)  # E
confect.run_mutation(read_internally, {"to": "a@b.c"})  # E

assert_type(confect.run_action(call_out, user), list[str])
assert_type(confect.run_action(deliver, {"user_id": "1"}), float)
assert_type(confect.run_action(deliver_mail, {"to": "a@b.c"}), None)
assert_type(confect.run_action(refs.internal.users.deliver, user), Any)
confect.run_action(call_out)  # E
confect.run_action(deliver, Other(number=1))  # E
confect.run_action(deliver_mail, {})  # E
confect.run_action(register, user)  # E
confect.run_action(count)  # E


@users.action
def all_three(query: QueryRunner, mutation: MutationRunner, action: ActionRunner) -> int:
    assert_type(query(read, user), str)
    assert_type(query(count), int)
    assert_type(mutation(register, user), Registered)
    assert_type(mutation(nothing), str)  # E
    assert_type(action(deliver, user), float)
    query(register, user)  # E
    mutation(read, user)  # E
    action(remind, user)  # E
    mutation(remind, Other(number=1))  # E
    action(deliver_mail, {"to": 1})  # E
    return query(read, user)  # E
