"""Arguments within arguments, and groups within groups.

Shows: a model in a model becomes JSON in the row and a model again in the function; a mapping does as well, and is
checked at the call; and functions are found by what lies deep in their arguments. The group is nested too: the
function's name is `internal/work/tasks/process`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from confect_celery import DatabaseReader, DatabaseWriter, Scheduler
from tasks.app import confect, refs
from tasks.delays import Delays

__all__ = ["Create", "FromSource", "Metadata", "ProcessTask", "Waiting", "create", "process", "waiting_from"]

work_tasks = confect.group("work.tasks")


class Metadata(BaseModel):
    """Where a task came from."""

    source: str


class ProcessTask(BaseModel):
    """A task to do."""

    task_id: str
    priority: Literal["low", "normal", "high"]
    metadata: Metadata


class Create(BaseModel):
    """A new task."""

    title: str
    source: str
    priority: Literal["low", "normal", "high"] = "normal"


class FromSource(BaseModel):
    """All tasks of one source."""

    source: str


class Waiting(BaseModel):
    """The tasks that are waiting."""

    task_ids: list[str]


@work_tasks.internal_mutation
def process(args: ProcessTask, db: DatabaseWriter) -> None:
    """Do a task."""
    done = {"done": True, "priority": args.priority, "metadata": args.metadata.model_dump()}
    db.table("tasks").patch(args.task_id, done)


@work_tasks.mutation
def create(args: Create, db: DatabaseWriter, scheduler: Scheduler, delays: Delays) -> str:
    """Create a task, to be done soon; gives back its id."""
    task_id: str = db.table("tasks").insert({"title": args.title})
    given = {"task_id": task_id, "priority": args.priority, "metadata": {"source": args.source}}
    scheduler.run_after(delays.task, refs.internal.work.tasks.process, given)
    return task_id


@work_tasks.query
def waiting_from(args: FromSource, db: DatabaseReader) -> Waiting:
    """The tasks of a source that are still to be done."""
    rows = db.table("_scheduled_functions").filter(
        lambda q: q.and_(
            q.eq(q.field("name"), process.name),
            q.eq(q.field("state.kind"), "pending"),
            q.eq(q.field("args.metadata.source"), args.source),
        )
    )
    return Waiting(task_ids=[row.args["task_id"] for row in rows.order("asc", by="scheduled_time").collect()])
