"""The store: `_scheduled_functions`, the one truth, and the face of the shop's own tables."""

from confect_celery.store.clock import DatabaseClock
from confect_celery.store.crons import CronRow
from confect_celery.store.database import Database, database_at, register_database
from confect_celery.store.ids import new_id, new_ids
from confect_celery.store.query import (
    Catalog,
    DatabaseReader,
    DatabaseWriter,
    Document,
    Page,
    Query,
    TableReader,
    TableWriter,
)
from confect_celery.store.row import (
    TRANSITIONS,
    Delivery,
    EncodedCall,
    ErrorInfo,
    NewRow,
    Pending,
    RowKind,
    ScheduledFunction,
    ScheduledFunctionId,
    State,
    StateKind,
    Transition,
)
from confect_celery.store.shared import Part, SharedTransaction
from confect_celery.store.statements import HELD_FOR, Statements
from confect_celery.store.statistics import Backlog, Statistics
from confect_celery.store.store import Store
from confect_celery.store.transactions import JoinedTransaction, OwnTransaction, Transaction

__all__ = [
    "HELD_FOR",
    "TRANSITIONS",
    "Backlog",
    "Catalog",
    "CronRow",
    "Database",
    "DatabaseClock",
    "DatabaseReader",
    "DatabaseWriter",
    "Delivery",
    "Document",
    "EncodedCall",
    "ErrorInfo",
    "JoinedTransaction",
    "NewRow",
    "OwnTransaction",
    "Page",
    "Part",
    "Pending",
    "Query",
    "RowKind",
    "ScheduledFunction",
    "ScheduledFunctionId",
    "SharedTransaction",
    "State",
    "StateKind",
    "Statements",
    "Statistics",
    "Store",
    "TableReader",
    "TableWriter",
    "Transaction",
    "Transition",
    "database_at",
    "new_id",
    "new_ids",
    "register_database",
]
