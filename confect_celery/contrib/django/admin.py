"""The admin: what is scheduled and what became of it, to look at, cancel and run early."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib import admin, messages
from django.db import connections
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html

from confect_celery.contrib.django import conf
from confect_celery.contrib.django.models import ScheduledFunction
from confect_celery.contrib.django.shop import get_confect

__all__ = ["ScheduledFunctionAdmin"]

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[ScheduledFunction]
else:
    _ModelAdmin = admin.ModelAdmin


@admin.register(ScheduledFunction)
class ScheduledFunctionAdmin(_ModelAdmin):
    """Read-only. Who has the model's "change" permission may cancel, and run early."""

    list_display = ("name", "state", "scheduled_time", "id")
    list_filter = ("state", "name")
    search_fields = ("=id", "name", "args")
    date_hierarchy = "scheduled_time"
    ordering = ("-id",)  # the newest first, by the primary key: an order that costs nothing
    show_full_result_count = False
    list_per_page = 50
    actions = ("cancel", "run_now")
    fields = (
        *("name", "kind", "id", "state", "scheduled_time", "creation_time", "completed_time"),
        *("pretty_args", "pretty_error", "pretty_options"),
        *("next_at", "attempt", "deliveries", "losses", "parent_id"),
    )
    readonly_fields = fields

    # -- what is shown

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Without days to choose on a MySQL that lacks its time zone tables: it could not tell them apart."""
        changes = super().get_changelist_instance(request)
        if not _can_tell_days():
            changes.date_hierarchy = None
        return changes

    @admin.display(description="args")
    def pretty_args(self, row: ScheduledFunction) -> str:
        """The arguments, indented."""
        return _pretty(row.args)

    @admin.display(description="error")
    def pretty_error(self, row: ScheduledFunction) -> str:
        """The error with its traceback, indented."""
        return _pretty(row.error)

    @admin.display(description="options")
    def pretty_options(self, row: ScheduledFunction) -> str:
        """The options, indented."""
        return _pretty(row.options)

    # -- what may be done

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Never."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: ScheduledFunction | None = None) -> bool:
        """Never."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ScheduledFunction | None = None) -> bool:
        """Never."""
        return False

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Whether the user may cancel and run early: with the model's "change" permission."""
        return bool(request.user.has_perm("confect_celery.change_scheduledfunction"))

    @admin.action(description="Cancel", permissions=["operate"])
    def cancel(self, request: HttpRequest, chosen: Any) -> None:
        """Cancel the chosen functions that have not ended."""
        confect = get_confect()
        self._each(request, chosen, confect.scheduler.cancel, "cancelled", "had ended already")

    @admin.action(description="Run now", permissions=["operate"])
    def run_now(self, request: HttpRequest, chosen: Any) -> None:
        """Have the chosen functions run as soon as may be, if they are pending."""
        confect = get_confect()
        soon = confect.settings.min_delay
        self._each(
            request, chosen, lambda id: confect.scheduler.reschedule(id, soon), "due now", "were not pending any more"
        )

    def _each(self, request: HttpRequest, chosen: Any, act: Callable[[str], bool], done: str, not_done: str) -> None:
        rows = list(chosen.only("id", "name"))
        changed = [row for row in rows if act(row.id)]
        for row in changed:
            self.log_change(request, row, done.capitalize() + ".")
        left = len(rows) - len(changed)
        text = f"{len(changed)} of {len(rows)} {done}" + (f"; {left} {not_done}." if left else ".")
        self.message_user(request, text, messages.WARNING if left else messages.SUCCESS)


def _pretty(value: Any) -> str:
    if value is None:
        return "-"
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
    # A traceback is easier to read with its lines broken.
    return format_html('<pre style="margin: 0; white-space: pre-wrap">{}</pre>', text.replace("\\n", "\n"))


def _can_tell_days() -> bool:
    django = connections[conf.alias()]
    if django.vendor != "mysql" or not settings.USE_TZ:
        return True
    zone = timezone.get_current_timezone_name()
    with django.cursor() as cursor:
        cursor.execute("SELECT CONVERT_TZ('2001-01-01 01:00:00', 'UTC', %s) IS NOT NULL", [zone])
        return bool(cursor.fetchone()[0])
