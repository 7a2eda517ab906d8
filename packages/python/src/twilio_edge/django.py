"""Verified webhooks and signed events in Django, for synchronous and asynchronous views.

from twilio_edge import TrustedWebhook
from twilio_edge.django import sink_event, trusted_webhook

@trusted_webhook()
def inbound(request: HttpRequest, webhook: TrustedWebhook) -> HttpResponse: ...
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from . import webhooks
from .errors import UnverifiedEventError, UnverifiedWebhookError
from .events import Event
from .sinks import SinkVerifier
from .webhooks import TrustedWebhook

T = TypeVar("T")
View = Callable[..., Any]


def trusted_webhook(*, accounts: Collection[str] | None = None, allow_copies: bool = False) -> Callable[[View], View]:
    """Passes the verified webhook to a view as its second argument. Answers 403 to every other request.

    The view is exempt from the check of CSRF tokens: Twilio sends none.
    """

    def read(request: HttpRequest) -> TrustedWebhook:
        return webhooks.trusted_webhook(
            request.headers,
            request.body,
            query=request.META.get("QUERY_STRING", ""),
            accounts=accounts,
            allow_copies=allow_copies,
        )

    return _decorator(read)


def sink_event(secrets: str | Iterable[str], *, tolerance_s: float = 300.0) -> Callable[[View], View]:
    """Passes the event of a delivery to a view as its second argument. Answers 401 to a request with a wrong signature."""
    verifier = SinkVerifier(secrets, tolerance_s=tolerance_s)

    def read(request: HttpRequest) -> Event:
        return verifier.verify(request.headers, request.body)

    return _decorator(read)


def _decorator(read: Callable[[HttpRequest], T]) -> Callable[[View], View]:
    def verified(request: HttpRequest) -> T | HttpResponse:
        try:
            return read(request)
        except UnverifiedWebhookError as error:
            return HttpResponse(f"{error}\n", status=403, content_type="text/plain")
        except UnverifiedEventError as error:
            # The sidecar retries after 401; after 400 it would give the delivery up.
            return HttpResponse(f"{error}\n", status=401, content_type="text/plain")

    def decorate(view: View) -> View:
        if inspect.iscoroutinefunction(view):

            @functools.wraps(view)
            async def asynchronous(request: HttpRequest, *arguments: Any, **named: Any) -> Any:
                found = verified(request)
                return found if isinstance(found, HttpResponse) else await view(request, found, *arguments, **named)

            return csrf_exempt(asynchronous)  # type: ignore[no-any-return, unused-ignore]

        @functools.wraps(view)
        def synchronous(request: HttpRequest, *arguments: Any, **named: Any) -> Any:
            found = verified(request)
            return found if isinstance(found, HttpResponse) else view(request, found, *arguments, **named)

        return csrf_exempt(synchronous)  # type: ignore[no-any-return, unused-ignore]

    return decorate
