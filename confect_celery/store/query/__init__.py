"""The tables' face: a thin layer over SQLAlchemy Core, one statement a question."""

from confect_celery.store.query.catalog import Catalog
from confect_celery.store.query.document import Document
from confect_celery.store.query.fields import Field, FieldPath
from confect_celery.store.query.filters import Condition, Filter
from confect_celery.store.query.reader import DatabaseReader, Page, Query, TableReader
from confect_celery.store.query.system import SystemTable
from confect_celery.store.query.writer import DatabaseWriter, SystemTableWriter, TableWriter

__all__ = [
    "Catalog",
    "Condition",
    "DatabaseReader",
    "DatabaseWriter",
    "Document",
    "Field",
    "FieldPath",
    "Filter",
    "Page",
    "Query",
    "SystemTable",
    "SystemTableWriter",
    "TableReader",
    "TableWriter",
]
