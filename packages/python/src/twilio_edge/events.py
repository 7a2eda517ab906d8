"""Types of the events that the sidecar delivers (docs/event.schema.json).

`event_type` distinguishes the types:

    def handle(event: Event) -> None:
        if event["event_type"] == "twilio_inbound":
            print(event["raw"])
        elif event["event_type"] == "message.failed":
            print(event["data"]["id"])

A later version may add fields and types. Ignore those that you do not know.
"""

import builtins
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict


class Media(TypedDict):
    """Medium of an inbound message that the sidecar stores."""

    id: str
    content_type: str
    url: str


class Button(TypedDict, total=False):
    """Button that the contact tapped."""

    text: str
    payload: str


class ListItem(TypedDict):
    """List item that the contact chose."""

    id: str
    title: NotRequired[str]


class Location(TypedDict):
    """Location that the contact shared."""

    latitude: float
    longitude: float
    address: NotRequired[str]
    label: NotRequired[str]


class Referral(TypedDict, total=False):
    """Advertisement that the contact came from."""

    source_id: str
    source_type: str
    source_url: str
    headline: str
    body: str
    media_url: str
    media_content_type: str
    ctwa_clid: str


class Contact(TypedDict):
    """vCard that the contact shared."""

    url: str
    content_type: str


class RepliedTo(TypedDict):
    """Message that the contact replied to."""

    message_sid: str
    sender: NotRequired[str]


class _Event(TypedDict):
    event_id: str
    account_sid: str
    replay: bool
    replay_id: NotRequired[str]


class _Webhook(_Event):
    received_at: NotRequired[str]
    message_sid: str
    to: NotRequired[str]
    channel: NotRequired[str]
    error_code: NotRequired[str]
    body: NotRequired[str]
    num_media: NotRequired[int]
    route: str
    raw: dict[str, str | list[str]]


# `from` is a keyword of Python, so this type is written as a call.
_From = TypedDict("_From", {"from": NotRequired[str]})


class InboundEvent(_Webhook, _From):
    """A message that a person sent."""

    event_type: Literal["twilio_inbound"]
    media: NotRequired[builtins.list[Media]]
    opt: NotRequired[Literal["stop", "start", "help"]]
    suppressed: NotRequired[bool]
    window_expires: NotRequired[str]
    button: NotRequired[Button]
    list: NotRequired[ListItem]
    location: NotRequired[Location]
    referral: NotRequired[Referral]
    # The field `list` hides the type of that name.
    contacts: NotRequired[builtins.list[Contact]]
    replied_to: NotRequired[RepliedTo]


class StatusEvent(_Webhook, _From):
    """Status of a message. Statuses can arrive out of order."""

    event_type: Literal["twilio_status"]
    status: str
    metadata: NotRequired[dict[str, str]]


class TestEvent(_Event, _From):
    """Test of the sink that an operator requested. Its account and message do not exist: do not act on it."""

    event_type: Literal["test"]
    received_at: NotRequired[str]
    message_sid: NotRequired[str]
    to: NotRequired[str]
    channel: NotRequired[str]
    body: NotRequired[str]
    num_media: NotRequired[int]
    route: NotRequired[str]
    raw: NotRequired[dict[str, str | list[str]]]


class ForwardedEvent(_From):
    """The JSON event that the filter forwards on a route with `body: json` (docs/CONFIG.md)."""

    event_type: Literal["twilio_inbound", "twilio_status", "twilio_other"]
    account_sid: str
    message_sid: NotRequired[str]
    to: NotRequired[str]
    channel: NotRequired[str]
    body: NotRequired[str]
    status: NotRequired[str]
    error_code: NotRequired[str]
    num_media: NotRequired[int]
    media: NotRequired[list[Media]]
    opt: NotRequired[Literal["stop", "start", "help"]]
    suppressed: NotRequired[bool]
    window_expires: NotRequired[str]
    dedupe: NotRequired[Literal["first", "unknown", "duplicate"]]
    attempt: NotRequired[int]
    key: NotRequired[str]
    raw: dict[str, str | list[str]]


class MessageError(TypedDict):
    """Reason why a message was not sent or not delivered."""

    code: str
    reason: NotRequired[str]
    actor: NotRequired[Literal["caller", "operator", "administrator", "recipient", "none"]]
    remedy: NotRequired[str]


class ReplyTo(TypedDict):
    """Keyword of a contact to which a message replies."""

    sid: str
    keyword: Literal["stop", "start", "help"]


class Message(_From):
    """An outbound message, as the change left it."""

    id: str
    notification_id: NotRequired[str]
    provider: NotRequired[str]
    sid: NotRequired[str]
    state: Literal["sent", "refused", "unknown", "declined"]
    status: NotRequired[str]
    error: NotRequired[MessageError]
    to: NotRequired[str]
    channel: str
    category: NotRequired[str]
    template: NotRequired[str]
    fallback: NotRequired[str]
    fallback_of: NotRequired[str]
    reply_to: NotRequired[ReplyTo]
    metadata: NotRequired[dict[str, str]]
    attempts: int
    repetitions: int
    created_at: str


class Suppression(TypedDict):
    """A reason to suppress a contact."""

    contact: str
    channel: str
    suppressed: bool
    source: Literal["keyword", "opt_out_type", "callback", "administrator", "application", "import"]
    error_code: NotRequired[str]
    since: str
    expires_at: NotRequired[str]
    message_sid: NotRequired[str]
    sender: NotRequired[str]
    changed_by: NotRequired[str]


class Consent(TypedDict):
    """A consent that was granted or withdrawn."""

    contact: str
    channel: str
    category: str
    state: Literal["granted", "withdrawn"]
    at: str
    source: str
    recorded_by: str


class Window(TypedDict):
    """A conversation window of WhatsApp."""

    contact: str
    channel: Literal["whatsapp"]
    sender: str
    message_sid: str
    opened_at: str
    expires_at: str


class Template(TypedDict):
    """A changed template."""

    change: Literal["set", "added", "changed", "approval_changed", "removed"]
    reference: str
    name: NotRequired[str]
    locale: NotRequired[str]
    content_sid: NotRequired[str]
    approval: NotRequired[str]
    reason: NotRequired[str]
    detail: NotRequired[dict[str, Any]]


class Delivery(TypedDict):
    """A delivery that became a dead letter."""

    sink: str
    delivery_id: str
    event_id: str
    queued_at: str
    tries: int
    reason: NotRequired[str]


class Account(TypedDict):
    """Profile of an account."""

    revision: int
    friendly_name: str
    parent_sid: NotRequired[str]
    senders: list[str]
    services: list[str]
    policy: NotRequired[dict[str, Any]]
    retention: NotRequired[dict[str, Any]]
    closed_at: NotRequired[str]


class _Operational(_Event):
    recorded_at: str


class MessageEvent(_Operational):
    """A change of an outbound message."""

    event_type: Literal[
        "message.declined",
        "message.refused",
        "message.sent",
        "message.expired",
        "message.unknown",
        "message.switched",
        "message.failed",
        "verification.ended",
    ]
    data: Message


class SuppressionEvent(_Operational):
    """A reason to suppress a contact began, was prolonged, ended or expired."""

    event_type: Literal["suppression.changed"]
    data: Suppression


class ConsentEvent(_Operational):
    """A consent was recorded, granted or withdrawn."""

    event_type: Literal["consent.changed"]
    data: Consent


class WindowEvent(_Operational):
    """A contact opened a conversation window."""

    event_type: Literal["window.opened"]
    data: Window


class TemplateEvent(_Operational):
    """A template was added, changed, approved or removed."""

    event_type: Literal["template.changed"]
    data: Template


class DeliveryEvent(_Operational):
    """A delivery became a dead letter."""

    event_type: Literal["delivery.dead"]
    data: Delivery


class AccountEvent(_Operational):
    """The profile of an account was created, changed or closed."""

    event_type: Literal["account.changed"]
    data: Account


OperationalEvent: TypeAlias = MessageEvent | SuppressionEvent | ConsentEvent | WindowEvent | TemplateEvent | DeliveryEvent | AccountEvent
Event: TypeAlias = InboundEvent | StatusEvent | TestEvent | OperationalEvent
