"""Nested arguments."""

from __future__ import annotations

import pytest

from confect_celery import Duration, InvalidArguments
from confect_celery.testing import Harness
from tasks import refs
from tasks.nested import Create, FromSource, Metadata, ProcessTask, create, process, waiting_from


def test_the_name_follows_the_nested_group() -> None:
    assert process.name == "internal/work/tasks/process"
    assert create.name == "public/work/tasks/create"


def test_nested_arguments_arrive_as_models(shop: Harness) -> None:
    task_id = shop.confect.run_mutation(create, Create(title="Wash up", source="api", priority="high"))
    shop.assert_scheduled(process, ProcessTask(task_id=task_id, priority="high", metadata=Metadata(source="api")))
    shop.run_all()
    with shop.confect.reader() as db:
        task = db.table("tasks").get(task_id)
    assert task.done
    assert (task.priority, task.metadata) == ("high", {"source": "api"})


def test_are_found_by_what_lies_deep_inside(shop: Harness) -> None:
    from_api = shop.confect.run_mutation(create, Create(title="Wash up", source="api"))
    shop.confect.run_mutation(create, Create(title="Dry", source="web"))
    assert shop.confect.run_query(waiting_from, FromSource(source="api")).task_ids == [from_api]
    shop.run_all()
    assert shop.confect.run_query(waiting_from, FromSource(source="api")).task_ids == []


@pytest.mark.parametrize(
    ("broken", "where"),
    [
        ({"metadata": {}}, ("metadata", "source")),
        ({"metadata": "api"}, ("metadata",)),
        ({"priority": "urgent"}, ("priority",)),
    ],
)
def test_a_mapping_is_checked_at_the_call(shop: Harness, broken: dict[str, object], where: tuple[str, ...]) -> None:
    args = {"task_id": "t1", "priority": "low", "metadata": {"source": "api"}, **broken}
    with pytest.raises(InvalidArguments) as caught:
        shop.confect.scheduler.run_after(Duration.seconds(1), refs.internal.work.tasks.process, args)
    assert [tuple(detail["loc"]) for detail in caught.value.details] == [where]
    assert shop.scheduled(state=None) == []
