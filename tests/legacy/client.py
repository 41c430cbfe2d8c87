"""A process of the bookshop's, such as its web server: evaluates what the tests send it, a line of JSON each."""

import json
import sys

from celery import chain, chord, group  # noqa: F401

from confect_celery import Duration  # noqa: F401
from tests.legacy.bookstore import mail, orders, reports  # noqa: F401
from tests.legacy.bookstore.celeryapp import app, confect


def row(id):
    found = confect.scheduler.get(id)
    if found is None:
        return None
    error = found.state.error
    return {
        "name": found.name,
        "kind": found.kind,
        "state": found.state.kind.value,
        "tag": error and error.tag,
        "attempt": found.attempt,
        "options": dict(found.options),
        "args": found.args,
        "due": found.scheduled_time.epoch_micros / 1e6,
    }


def rows(name):
    with confect.reader() as db:
        found = db.table("_scheduled_functions").filter(lambda q: q.eq(q.field("name"), name)).collect()
    return [each.id for each in found]


def held():
    """The messages that the workers hold for later."""
    return sum(len(tasks) for tasks in (app.control.inspect(timeout=2).scheduled() or {}).values())


def main():
    names = globals()
    for line in sys.stdin:
        try:
            said = {"value": eval(json.loads(line), names)}
        except Exception as error:
            said = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
