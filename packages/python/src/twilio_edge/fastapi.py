"""Verified webhooks and signed events in FastAPI, as dependencies.

from typing import Annotated
from fastapi import Depends, FastAPI
from twilio_edge import TrustedWebhook
from twilio_edge.fastapi import SinkEvents, TrustedWebhooks

@app.post("/twilio/inbound")
async def inbound(webhook: Annotated[TrustedWebhook, Depends(TrustedWebhooks())]) -> Response: ...
"""

from collections.abc import Collection, Iterable

from fastapi import HTTPException, Request

from . import webhooks
from .errors import UnverifiedEventError, UnverifiedWebhookError
from .events import Event
from .sinks import SinkVerifier
from .webhooks import TrustedWebhook


class TrustedWebhooks:
    """Dependency that returns the verified webhook, and answers 403 to every other request."""

    def __init__(self, *, accounts: Collection[str] | None = None, allow_copies: bool = False) -> None:
        self._accounts = accounts
        self._allow_copies = allow_copies

    async def __call__(self, request: Request) -> TrustedWebhook:
        try:
            return webhooks.trusted_webhook(
                request.headers,
                await request.body(),
                query=request.url.query,
                accounts=self._accounts,
                allow_copies=self._allow_copies,
            )
        except UnverifiedWebhookError as error:
            raise HTTPException(403, str(error)) from error


class SinkEvents:
    """Dependency that returns the event of a delivery, and answers 401 to a request with a wrong signature."""

    def __init__(self, secrets: str | Iterable[str], *, tolerance_s: float = 300.0) -> None:
        self._verifier = SinkVerifier(secrets, tolerance_s=tolerance_s)

    async def __call__(self, request: Request) -> Event:
        try:
            return self._verifier.verify(request.headers, await request.body())
        except UnverifiedEventError as error:
            # The sidecar retries after 401; after 400 it would give the delivery up.
            raise HTTPException(401, str(error)) from error
