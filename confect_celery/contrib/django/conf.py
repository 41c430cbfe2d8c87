"""What Django's settings say of the table: for what Django must know before any Celery app is looked at."""

from __future__ import annotations

from typing import Any, Final

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS

__all__ = ["NAMESPACE", "SCHEME", "alias", "alias_of", "default_url", "given_url", "namespace", "physical_name"]

NAMESPACE: Final = "CELERY_"
"""What Celery's settings start with, as in `app.config_from_object("django.conf:settings", namespace="CELERY")`."""

SCHEME: Final = "django"
"""`django://default`: the database of that alias in DATABASES."""


def default_url() -> str:
    """Where the table is when no setting says so."""
    return f"{SCHEME}://{DEFAULT_DB_ALIAS}"


def alias_of(url: str) -> str | None:
    """The alias in a `django://…` URL; None for the URL of a database that is not Django's."""
    scheme, _, rest = url.partition("://")
    return (rest.strip("/") or DEFAULT_DB_ALIAS) if scheme == SCHEME else None


def given_url() -> str:
    """The URL of the database that the table is in."""
    return str(_get("DATABASE_URL", default_url()))


def alias() -> str:
    """The alias of the database that the table is in; the default one when it is not Django's."""
    return alias_of(given_url()) or DEFAULT_DB_ALIAS


def namespace() -> str | None:
    """`CELERY_CONFECT_SCHEMA`: a schema on PostgreSQL, a prefix elsewhere."""
    found: str | None = _get("SCHEMA", None)
    return found


def physical_name(name: str) -> str:
    """The table `name` where `namespace` puts it, as Django's `db_table` has it."""
    within = namespace()
    if not within:
        return name
    engine: str = settings.DATABASES.get(alias(), {}).get("ENGINE", "")
    # Django puts quotes around a name as a whole: these make a schema and a table of it.
    return f'{within}"."{name}' if "postg" in engine else f"{within}_{name}"


def _get(name: str, default: Any) -> Any:
    return getattr(settings, f"{NAMESPACE}CONFECT_{name}", default)
