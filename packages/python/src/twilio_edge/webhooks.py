"""Reads what the filter of twilio-edge has verified: the trusted headers of a webhook, and its parameters."""

from __future__ import annotations

import dataclasses
import datetime
import json
import urllib.parse
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, Protocol, cast

from .errors import UnverifiedWebhookError
from .events import ForwardedEvent

Class = Literal["inbound", "status", "other"]
Opt = Literal["stop", "start", "help"]
Dedupe = Literal["first", "unknown", "duplicate"]

#: Every trusted header begins with this text. The filter removes headers of clients that do.
PREFIX = "x-twilio-edge-"


class Headers(Protocol):
    """Headers of a request, as dictionaries and the frameworks have them."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Returns the pairs of name and value."""


@dataclasses.dataclass(frozen=True)
class TrustedWebhook:
    """A webhook that Twilio has signed, as the filter reports it.

    Attributes:
        account_sid: Account whose key signed the webhook.
        kind: Class of its route: `inbound`, `status` or `other`.
        message_sid: SID of the message.
        status: Status of a status callback.
        sender: Address of the sender without the prefix of its channel.
        recipient: Address of the recipient, likewise.
        channel: Channel, for instance `sms` or `whatsapp`.
        opt: Keyword of an opt-out, an opt-in or a request for help.
        is_suppressed: Whether the sender is on the suppression list; None without a verdict.
        window_expires: End of the conversation window that the message opened.
        media: Links to the media that the sidecar stores.
        dedupe: `first`, or `unknown` without a verdict; in shadow mode also `duplicate`.
        attempt: Number of times that the webhook was passed to the backend, from 1; None without a verdict.
        key: Key that signed: `current`, `next`, `key-3`, ..
        is_copy: Whether `twilio-edge listen` sent this copy to a developer's machine.
        parameters: Parameters as Twilio signed them. A name that occurs more than once has a list.
        event: The JSON event of a route with `body: json`.
    """

    account_sid: str
    kind: Class
    message_sid: str | None = None
    status: str | None = None
    sender: str | None = None
    recipient: str | None = None
    channel: str | None = None
    opt: Opt | None = None
    is_suppressed: bool | None = None
    window_expires: datetime.datetime | None = None
    media: tuple[str, ...] = ()
    dedupe: Dedupe | None = None
    attempt: int | None = None
    key: str | None = None
    is_copy: bool = False
    parameters: Mapping[str, str | list[str]] = dataclasses.field(default_factory=dict)
    event: ForwardedEvent | None = None


def trusted_webhook(
    headers: Headers,
    body: bytes = b"",
    *,
    query: str = "",
    accounts: Collection[str] | None = None,
    allow_copies: bool = False,
) -> TrustedWebhook:
    """Returns the webhook that the filter has verified.

    The application must be reachable through Envoy only: a client that reaches it directly can send any header.

    Args:
        headers: Headers of the request, with names in any case.
        body: Body of the request: a form, or the event of a route with `body: json`.
        query: Query of the request, which has the parameters of a webhook by GET.
        accounts: Account SIDs whose webhooks are accepted; None accepts all that the filter accepts.
        allow_copies: Accepts the copies of `twilio-edge listen`, for development.

    Raises:
        UnverifiedWebhookError: The filter did not verify the request, or it is for another account.
    """
    trusted = {name.lower()[len(PREFIX) :]: value for name, value in headers.items() if name.lower().startswith(PREFIX)}
    account_sid = trusted.get("verified")
    if not account_sid:
        raise UnverifiedWebhookError(
            "the request has no header x-twilio-edge-verified: send webhooks through Envoy, on a route of the filter with mode enforce"
        )
    if accounts is not None and account_sid not in accounts:
        raise UnverifiedWebhookError(f"the webhook is for the account {account_sid}, which this application does not serve")
    is_copy = trusted.get("copy") == "true"
    if is_copy and not allow_copies:
        raise UnverifiedWebhookError("the request is a copy of `twilio-edge listen`: set allow_copies on a developer's machine only")
    kind = trusted.get("class")
    if kind not in ("inbound", "status", "other"):
        raise UnverifiedWebhookError(f"the class of the webhook is {kind!r}: upgrade this package")
    content_type = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
    event = _event(body) if content_type.split(";")[0].strip().lower() == "application/json" else None
    expires = trusted.get("window-expires")
    suppressed, attempt = trusted.get("suppressed"), trusted.get("attempt")
    return TrustedWebhook(
        account_sid=account_sid,
        kind=cast(Class, kind),
        message_sid=trusted.get("message-sid"),
        status=trusted.get("status"),
        sender=trusted.get("from"),
        recipient=trusted.get("to"),
        channel=trusted.get("channel"),
        opt=cast("Opt | None", trusted.get("opt")),
        is_suppressed=None if suppressed is None else suppressed == "true",
        window_expires=None if expires is None else datetime.datetime.fromisoformat(expires),
        media=tuple(trusted.get("media", "").split()),
        dedupe=cast("Dedupe | None", trusted.get("dedupe")),
        attempt=int(attempt) if attempt and attempt.isdigit() else None,
        key=trusted.get("key"),
        is_copy=is_copy,
        parameters=event["raw"] if event else _parameters(body, query, content_type),
        event=event,
    )


def _event(body: bytes) -> ForwardedEvent | None:
    # The JSON body of a webhook of class `other` has any form.
    try:
        event: Any = json.loads(body)
    except ValueError:
        return None
    return cast(ForwardedEvent, event) if isinstance(event, dict) and "event_type" in event and "raw" in event else None


def _parameters(body: bytes, query: str, content_type: str) -> dict[str, str | list[str]]:
    is_form = content_type.split(";")[0].strip().lower() == "application/x-www-form-urlencoded"
    text = body.decode("utf-8", errors="replace") if is_form else query
    parameters: dict[str, str | list[str]] = {}
    for name, values in urllib.parse.parse_qs(text, keep_blank_values=True).items():
        parameters[name] = values[0] if len(values) == 1 else values
    return parameters
