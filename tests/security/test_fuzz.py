"""Messages that make no sense, by the hundred: the worker lives, and jobs run on time afterwards.

Celery's own worker ends on some malformed messages before anybody else sees them, as on `stamped_headers` that are no
list, or a body that is JSON but no call (docs/security.md); those are left out.
"""

from __future__ import annotations

import random
import string
from typing import Any

from confect_celery import Duration
from tests.integration.rig import Rig
from tests.security.hostile import Hostile
from tests.support.waiting import wait_for

NAMES = ("internal/test/mark", "internal/test/look", "internal/test/act_and_raise", "plain.add", "plain.header")
FIELDS = ("confect_attempt", "retries", "group", "root_id", "parent_id", "origin", "argsrepr", "headers",
          "lang", "traceparent", "tracestate", "baggage", "confect_trace", "x-shop")  # fmt: skip
MESSAGES = 400


def junk(dice: random.Random, depth: int = 0) -> Any:
    """Any JSON value, small or large."""
    kind = dice.randrange(10 if depth < 3 else 7)
    if kind < 2:
        return "".join(dice.choices(string.printable + "\x00\u2028é漢'\";--", k=dice.choice((0, 1, 36, 300))))
    if kind == 2:
        return dice.choice((0, -1, 1, 2**31, 2**63, -(2**70), 10**400))
    if kind == 3:
        return dice.choice((0.5, -1e308, 1e-9))
    if kind == 4:
        return dice.choice((True, False, None))
    if kind == 5:
        return "x" * dice.choice((1_000, 100_000))
    if kind == 6:
        return dice.choice(("' OR 1=1 --", "../../etc/passwd", "{}", "00000000-0000-0000-0000-000000000000", "NaN"))
    if kind == 7:
        return [junk(dice, depth + 1) for _ in range(dice.randrange(4))]
    return {str(junk(dice, 9))[:50]: junk(dice, depth + 1) for _ in range(dice.randrange(4))}


def as_id(dice: random.Random) -> str:
    """An id is text at least, and not empty."""
    return str(junk(dice, 9))[:1000] or "x"


def test_the_worker_outlives_hundreds_of_malformed_messages(shop: Rig, hostile: Hostile) -> None:
    dice = random.Random(20_261_123)
    worker = shop.workers[0]
    far = shop.scheduler.run_after(Duration.days(9), shop.shop.mark, shop.shop.Label(label="meanwhile"))
    for _ in range(MESSAGES):
        headers = {field: junk(dice) for field in dice.sample(FIELDS, k=dice.randrange(4))}
        match dice.randrange(4):
            case 0:
                hostile.task(dice.choice(NAMES), as_id(dice), 0, [junk(dice)] * 3, {"label": junk(dice)}, **headers)
            case 1:
                hostile.raw(dice.randbytes(dice.randrange(500)), headers, dice.choice(("application/json", "x/y", "")))
            case 2:
                hostile.task(as_id(dice)[:200], as_id(dice), dice.choice((0, 1, junk(dice))))
            case _:
                attempt = headers.pop("confect_attempt", 0)
                id = dice.choice((as_id(dice), far))
                hostile.task(dice.choice(NAMES), id, -1 if id == far else attempt, [junk(dice)], **headers)

    ids = [
        shop.scheduler.run_after(Duration.seconds(1), function, shop.shop.Label(label=f"after the junk {n}"))
        for n in range(4)
        for function in (shop.shop.mark, shop.shop.look)
    ]
    assert {row.state.kind for row in shop.ended(ids, within=40)} == {"success"}
    wait_for(lambda: shop.redis.llen("celery") == 0, what="the queue to be empty")
    assert worker.alive and shop.row(far).state.kind == "pending"
    # What watches over the table works too: a worker that dies after all this is still told of.
    lost = shop.scheduler.run_after(
        Duration.seconds(1), shop.shop.act_and_die, shop.shop.Label(label="dies after junk")
    )
    error = shop.end(lost).state.error
    assert error is not None and error.tag == "WorkerLost"
