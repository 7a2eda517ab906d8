"""Verified webhooks and signed events in Flask.

from flask import Flask
from twilio_edge import TrustedWebhook
from twilio_edge.flask import sink_event, trusted_webhook

@app.post("/twilio/inbound")
@trusted_webhook()
def inbound(webhook: TrustedWebhook) -> str: ...
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable
from typing import Any, Concatenate, ParamSpec

from flask import Response, request

from . import webhooks
from .errors import UnverifiedEventError, UnverifiedWebhookError
from .events import Event
from .sinks import SinkVerifier
from .webhooks import TrustedWebhook

P = ParamSpec("P")


def trusted_webhook(
    *, accounts: Collection[str] | None = None, allow_copies: bool = False
) -> Callable[[Callable[Concatenate[TrustedWebhook, P], Any]], Callable[P, Any]]:
    """Passes the verified webhook to a view as its first argument. Answers 403 to every other request."""

    def decorate(view: Callable[Concatenate[TrustedWebhook, P], Any]) -> Callable[P, Any]:
        @functools.wraps(view)
        def verified(*arguments: P.args, **named: P.kwargs) -> Any:
            try:
                webhook = webhooks.trusted_webhook(
                    request.headers,
                    request.get_data(),
                    query=request.query_string.decode("ascii", errors="replace"),
                    accounts=accounts,
                    allow_copies=allow_copies,
                )
            except UnverifiedWebhookError as error:
                return Response(f"{error}\n", 403, mimetype="text/plain")
            return view(webhook, *arguments, **named)

        return verified

    return decorate


def sink_event(
    secrets: str | Iterable[str], *, tolerance_s: float = 300.0
) -> Callable[[Callable[Concatenate[Event, P], Any]], Callable[P, Any]]:
    """Passes the event of a delivery to a view as its first argument. Answers 401 to a request with a wrong signature."""
    verifier = SinkVerifier(secrets, tolerance_s=tolerance_s)

    def decorate(view: Callable[Concatenate[Event, P], Any]) -> Callable[P, Any]:
        @functools.wraps(view)
        def verified(*arguments: P.args, **named: P.kwargs) -> Any:
            try:
                event = verifier.verify(request.headers, request.get_data())
            except UnverifiedEventError as error:
                # The sidecar retries after 401; after 400 it would give the delivery up.
                return Response(f"{error}\n", 401, mimetype="text/plain")
            return view(event, *arguments, **named)

        return verified

    return decorate
