# pyright: reportPossiblyUnboundVariable=false
"""Trace context from the scheduling request to the run, where the OpenTelemetry API is installed.

The context of the span that is current at the scheduling call goes into the row's `options["headers"]`, and so into the
message's. A run that follows at once is a child of that span. One that was scheduled for later is linked to it, as
OpenTelemetry's conventions for messaging have it: a trace that stays open for days is of no use, and whether it is
sampled would have been decided days ago.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

try:
    from opentelemetry import baggage, context, propagate, trace
except ImportError:  # the extra `opentelemetry` is not installed
    INSTALLED = False
else:
    INSTALLED = True

__all__ = ["LATER", "Run", "traced"]

LATER: Final = "confect_trace"
"""The header with the context to link to, beside the same fields under their standard names: a run without it is a
child."""


def traced(options: Mapping[str, Any], *, later: bool) -> Mapping[str, Any]:
    """The options of a row, with the context of the current span in their headers if there is one.

    Headers that the caller has put there already, Sentry's for example, stay as they are.
    """
    if not INSTALLED or not context.get_current():
        return options
    span = trace.get_current_span()
    if span is trace.INVALID_SPAN or not span.get_span_context().is_valid:
        return options
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    given = dict(options.get("headers") or {})
    if LATER in given or "traceparent" in given:
        return options
    return {**options, "headers": {**carrier, **given, **({LATER: carrier} if later else {})}}


class Run:
    """The span of one run, by the headers in its row: those of the message may be anybody's.

    Where other instrumentation has made a span of the run, that one gets the link, and there is no second.
    """

    def __init__(self, name: str, id: str, attempt: int, options: Mapping[str, Any]) -> None:
        """Begin it, in the thread that runs the function."""
        self._token: Any = None
        self._span: Any = None
        if not INSTALLED:
            return
        headers = options.get("headers") or {}
        later = _read(headers.get(LATER))
        origin = later if later is not None else _read(headers)
        if origin is None:
            return
        scheduled = trace.get_current_span(origin).get_span_context()
        current = trace.get_current_span()
        if current.get_span_context().is_valid:
            linked = [link.context.span_id for link in getattr(current, "links", ())]
            known = current.get_span_context().trace_id == scheduled.trace_id or scheduled.span_id in linked
            if later is not None and not known:
                current.add_link(scheduled)
            return
        attributes: dict[str, Any] = {
            "messaging.system": "celery",
            "messaging.operation.type": "process",
            "messaging.message.id": id,
            "confect.attempt": attempt,
        }
        within = origin if later is None else _baggage_of(origin)
        self._span = trace.get_tracer("confect_celery").start_span(
            f"run {name}",
            context=within,
            kind=trace.SpanKind.CONSUMER,
            attributes=attributes,
            links=[trace.Link(scheduled)] if later is not None else None,
        )
        self._token = context.attach(trace.set_span_in_context(self._span, within))

    def end(self, error: BaseException | None = None) -> None:
        """End the span, in the thread that began it. The text of an error is not repeated: it may hold arguments."""
        span, token, self._span, self._token = self._span, self._token, None, None
        if span is None:
            return
        if error is not None:
            span.set_status(trace.StatusCode.ERROR, type(error).__name__)
        context.detach(token)
        span.end()


def _read(carrier: Any) -> Any:
    if not isinstance(carrier, Mapping):
        return None
    texts = {str(key): value for key, value in carrier.items() if isinstance(value, str)}
    if not texts:
        return None
    found = propagate.extract(texts, context=context.Context())
    return found if trace.get_current_span(found).get_span_context().is_valid else None


def _baggage_of(origin: Any) -> Any:
    within = context.Context()
    for key, value in baggage.get_all(origin).items():
        within = baggage.set_baggage(key, value, within)
    return within
