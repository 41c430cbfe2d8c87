"""Async callers: the scheduler inside an AsyncSession's transaction, and a real ASGI app."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from celery import Celery
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from confect_celery import Confect, DatabaseWriter, Duration, InvalidArguments, StateKind
from confect_celery.store import Delivery
from tests.support.databases import Databases
from tests.support.waiting import wait_for

HOUR = Duration.hours(1)
metadata = sa.MetaData()
users = sa.Table("users", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("email", sa.String(50)))


class UserRef(BaseModel):
    user_id: int


@pytest.fixture(params=["sqlite", "postgresql"])
def confect(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Iterator[Confect]:
    with databases.url(request.param, tmp_path) as url:
        app = Celery("async", broker="memory://", set_as_current=False)
        app.conf.update(confect_database_url=url, confect_min_delay=0.5)
        confect = Confect(app, schema=metadata)
        confect.store.migrate()
        metadata.create_all(confect.store.database.engine)

        @confect.group("users").internal_mutation
        def remind(args: UserRef, db: DatabaseWriter) -> None: ...

        yield confect
        confect.store.database.dispose()


@pytest.fixture
def published(confect: Confect) -> Iterator[list[Delivery]]:
    deliveries: list[Delivery] = []
    with confect.redirected(publish=deliveries.append):
        yield deliveries


def run(confect: Confect, work: Callable[[AsyncEngine], Awaitable[Any]]) -> Any:
    """Run `work` with an async engine on the same database."""

    async def main() -> Any:
        url = confect.store.database.url
        engine = create_async_engine(url.set(drivername="sqlite+aiosqlite") if "sqlite" in url.drivername else url)
        try:
            return await work(engine)
        finally:
            await engine.dispose()

    return asyncio.run(main())


def pending(confect: Confect) -> list[int]:
    with confect.reader() as db:
        jobs = db.table("_scheduled_functions").filter(lambda q: q.eq(q.field("state.kind"), "pending")).collect()
        return sorted(job.args["user_id"] for job in jobs)


def test_the_row_exists_if_and_only_if_the_async_transaction_commits(
    confect: Confect, published: list[Delivery]
) -> None:
    remind = confect.refs.internal.users.remind

    async def work(engine: AsyncEngine) -> None:
        async with AsyncSession(engine) as session:
            scheduler = confect.scheduler.aio.using(session)
            await scheduler.run_after(HOUR, remind, {"user_id": 1})
            await session.rollback()
            kept = await scheduler.run_after(HOUR, remind, {"user_id": 2})
            gone = await scheduler.run_at(confect.clock.now() + HOUR, remind, {"user_id": 3})
            moved = (await scheduler.run_many([(HOUR, remind, {"user_id": 4})]))[0]
            assert await scheduler.cancel(gone)
            assert await scheduler.reschedule(moved, HOUR * 2)
            assert await scheduler.get(kept) is not None
            with pytest.raises(InvalidArguments):
                await scheduler.run_after(HOUR, remind, {"user": 5})
            await session.commit()
        async with engine.begin() as connection:
            await confect.scheduler.aio.using(connection).run_after(HOUR, remind, {"user_id": 6})

    run(confect, work)
    assert pending(confect) == [2, 4, 6]
    assert published == []


def test_what_is_nearly_due_is_published_after_the_commit(confect: Confect, published: list[Delivery]) -> None:
    async def work(engine: AsyncEngine) -> None:
        async with AsyncSession(engine) as session:
            scheduler = confect.scheduler.aio.using(session)
            id = await scheduler.run_after(Duration.millis(500), confect.refs.internal.users.remind, {"user_id": 1})
            assert published == []
            await session.commit()
        await asyncio.to_thread(wait_for, lambda: [d.id for d in published] == [id], what="the message")

    run(confect, work)


def test_without_a_session_each_call_commits_at_once(confect: Confect, published: list[Delivery]) -> None:
    async def work(engine: AsyncEngine) -> None:
        scheduler = confect.scheduler.aio
        id = await scheduler.run_after(HOUR, confect.refs.internal.users.remind, {"user_id": 1})
        row = await scheduler.get(id)
        assert row is not None
        assert row.state.kind is StateKind.PENDING
        assert await scheduler.cancel(id)

    run(confect, work)
    assert pending(confect) == []


def test_a_fastapi_app_schedules_in_its_requests_transaction(confect: Confect, published: list[Delivery]) -> None:
    async def work(engine: AsyncEngine) -> list[int]:
        api = FastAPI()

        @api.middleware("http")
        async def transaction(request: Any, call_next: Any) -> Any:
            async with AsyncSession(engine) as session:
                request.state.session = session
                response = await call_next(request)
                await (session.commit() if response.status_code < 400 else session.rollback())
                return response

        async def register(request: Any, email: str) -> dict[str, int]:
            session = request.state.session
            user = (await session.execute(sa.insert(users).values(email=email))).inserted_primary_key[0]
            scheduler = confect.scheduler.aio.using(session)
            await scheduler.run_after(Duration.hours(24), confect.refs.internal.users.remind, {"user_id": user})
            if not email.endswith("@example.org"):
                raise HTTPException(422)
            return {"user_id": user}

        from starlette.requests import Request

        register.__annotations__["request"] = Request
        api.post("/users")(register)
        transport = httpx.ASGITransport(app=api)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            answers = [
                await client.post("/users", params={"email": e})
                for e in ("a@example.org", "b@nowhere", "c@example.org")
            ]
        assert [answer.status_code for answer in answers] == [200, 422, 200]
        return sorted(answer.json()["user_id"] for answer in answers if answer.status_code == 200)

    assert run(confect, work) == pending(confect)
