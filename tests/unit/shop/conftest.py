"""The shop on the harness: a database file of its own for each test, a clock that stands at `NOW`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

os.environ.setdefault("SHOP_BROKER_URL", "memory://")

import tasks
from confect_celery import Confect, DateTime
from confect_celery.testing import Harness, harness
from tasks.app import create_tables
from tasks.services import MailGateway

NOW = DateTime.parse("2026-03-01T10:00:00Z")


@dataclass
class Postbox(MailGateway):
    """Records the mails that a provider would have got."""

    mails: list[tuple[str, str]] = field(default_factory=list)

    def deliver(self, mail_id: str, to: str, subject: str, body: str) -> None:
        self.mails.append((to, subject))


@pytest.fixture
def confect(tmp_path: Path) -> Iterator[Confect]:
    """What the plugin's fixture `confect_harness` asks a suite for."""
    with tasks.confect.redirected(database_url=f"sqlite:///{tmp_path}/plugin.db"):
        create_tables()
        yield tasks.confect


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Harness]:
    with harness(tasks.confect, database_url=f"sqlite:///{tmp_path}/shop.db", now=NOW) as it:
        create_tables()
        yield it


@pytest.fixture
def now() -> DateTime:
    """Where the clock of `shop` stands."""
    return NOW


@pytest.fixture
def postbox(shop: Harness) -> list[tuple[str, str]]:
    """The mails that went out: to whom, and the subject."""
    it = Postbox()
    shop.provide(MailGateway, it)
    return it.mails


@pytest.fixture
def ada(shop: Harness) -> str:
    """A registered user's id; no reminder is waiting."""
    with shop.confect.writer() as db:
        return str(
            db.table("users").insert({"email": "ada@example.org", "verified": True, "time_zone": "Europe/Paris"})
        )
