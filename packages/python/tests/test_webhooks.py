"""Trusted headers, and the frameworks' answers to requests without them. examples/ has the same behind the real filter."""

import datetime
import json
import pathlib
import subprocess
import sys
from typing import Annotated, Any

import fastapi
import pytest
import stack as stacks
import twilio_edge
from fastapi.testclient import TestClient
from twilio_edge import SinkVerifier, TrustedWebhook, UnverifiedWebhookError, trusted_webhook
from twilio_edge.events import Event
from twilio_edge.fastapi import SinkEvents, TrustedWebhooks

ACCOUNT = "AC00112233445566778899aabbccddeeff"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
HEADERS = {
    "X-Twilio-Edge-Verified": ACCOUNT,
    "X-Twilio-Edge-Class": "inbound",
    "X-Twilio-Edge-Message-Sid": "SM1",
    "X-Twilio-Edge-From": "+14155550123",
    "X-Twilio-Edge-To": "+14155238886",
    "X-Twilio-Edge-Channel": "whatsapp",
    "X-Twilio-Edge-Opt": "stop",
    "X-Twilio-Edge-Suppressed": "true",
    "X-Twilio-Edge-Window-Expires": "2026-11-24T12:00:00Z",
    "X-Twilio-Edge-Media": "https://m/1 https://m/2",
    "X-Twilio-Edge-Dedupe": "first",
    "X-Twilio-Edge-Attempt": "2",
    "X-Twilio-Edge-Key": "current",
}
SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


def test_headers_and_parameters_are_read() -> None:
    webhook = trusted_webhook(HEADERS | FORM, b"Body=STOP&MediaUrl=1&MediaUrl=2&Empty=")
    assert webhook == TrustedWebhook(
        account_sid=ACCOUNT,
        kind="inbound",
        message_sid="SM1",
        sender="+14155550123",
        recipient="+14155238886",
        channel="whatsapp",
        opt="stop",
        is_suppressed=True,
        window_expires=datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC),
        media=("https://m/1", "https://m/2"),
        dedupe="first",
        attempt=2,
        key="current",
        parameters={"Body": "STOP", "MediaUrl": ["1", "2"], "Empty": ""},
    )


def test_parameters_of_get_and_of_a_json_event_are_read() -> None:
    assert trusted_webhook(HEADERS, query="Body=Hi%20there").parameters == {"Body": "Hi there"}
    event = {"event_type": "twilio_inbound", "account_sid": ACCOUNT, "raw": {"Body": "Hi"}}
    webhook = trusted_webhook(HEADERS | {"content-type": "application/json"}, json.dumps(event).encode())
    assert (webhook.event, webhook.parameters) == (event, {"Body": "Hi"})
    other = trusted_webhook(HEADERS | {"content-type": "application/json"}, b"[1]")
    assert (other.event, other.parameters) == (None, {})


@pytest.mark.parametrize(
    ("changed", "options", "reason"),
    [
        ({"X-Twilio-Edge-Verified": ""}, {}, "x-twilio-edge-verified"),
        ({}, {"accounts": ["AC" + "f" * 32]}, "does not serve"),
        ({"X-Twilio-Edge-Copy": "true"}, {}, "twilio-edge listen"),
        ({"X-Twilio-Edge-Class": "voice"}, {}, "upgrade this package"),
    ],
)
def test_other_requests_are_refused(changed: dict[str, str], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnverifiedWebhookError, match=reason):
        trusted_webhook(HEADERS | changed, **options)
    assert trusted_webhook(HEADERS, accounts=[ACCOUNT]).account_sid == ACCOUNT
    assert trusted_webhook(HEADERS | {"X-Twilio-Edge-Copy": "true"}, allow_copies=True).is_copy


def signed(body: bytes) -> dict[str, str]:
    """Headers of the official library."""
    from standardwebhooks import Webhook

    now = datetime.datetime.now(datetime.UTC)
    return {
        "webhook-id": "id",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("id", now, body.decode()),
        "Content-Type": "application/json",
    }


EVENT = b'{"event_type": "test", "event_id": "1", "account_sid": "AC1", "replay": false}'


def test_flask_refuses_and_passes_on() -> None:
    import flask
    from twilio_edge.flask import sink_event
    from twilio_edge.flask import trusted_webhook as webhooks

    app = flask.Flask("app")

    @app.post("/inbound/<shop>")
    @webhooks()
    def inbound(webhook: TrustedWebhook, shop: str) -> str:
        return f"{shop} {webhook.parameters['Body']}"

    @app.post("/events")
    @sink_event(SECRET)
    def events(event: Event) -> str:
        return str(event["event_type"])

    client = app.test_client()
    assert client.post("/inbound/one", data={"Body": "Hi"}).status_code == 403
    assert client.post("/inbound/one", data={"Body": "Hi"}, headers=HEADERS).text == "one Hi"
    assert client.post("/events", data=EVENT).status_code == 401
    assert client.post("/events", data=EVENT, headers=signed(EVENT)).text == "test"


def test_fastapi_refuses_and_passes_on() -> None:
    app = fastapi.FastAPI()

    @app.post("/inbound/{shop}")
    async def inbound(shop: str, webhook: Annotated[TrustedWebhook, fastapi.Depends(TrustedWebhooks())]) -> str:
        return f"{shop} {webhook.parameters['Body']}"

    @app.post("/events")
    async def events(event: Annotated[Event, fastapi.Depends(SinkEvents(SECRET))]) -> str:
        return str(event["event_type"])

    client = TestClient(app)
    assert client.post("/inbound/one", data={"Body": "Hi"}).status_code == 403
    assert client.post("/inbound/one", data={"Body": "Hi"}, headers=HEADERS).json() == "one Hi"
    assert client.post("/events", content=EVENT).status_code == 401
    assert client.post("/events", content=EVENT, headers=signed(EVENT)).json() == "test"


@pytest.mark.parametrize("is_async", [False, True])
def test_django_refuses_and_passes_on(is_async: bool) -> None:
    import asyncio

    import django.conf
    from django.http import HttpRequest, HttpResponse
    from django.test import RequestFactory
    from twilio_edge.django import sink_event
    from twilio_edge.django import trusted_webhook as webhooks

    if not django.conf.settings.configured:
        django.conf.settings.configure(ALLOWED_HOSTS=["*"])

    def answer(request: HttpRequest, webhook: TrustedWebhook) -> HttpResponse:
        return HttpResponse(webhook.parameters["Body"])

    async def answer_async(request: HttpRequest, webhook: TrustedWebhook) -> HttpResponse:
        return answer(request, webhook)

    @sink_event(SECRET)
    def events(request: HttpRequest, event: Event) -> HttpResponse:
        return HttpResponse(event["event_type"])

    inbound = webhooks()(answer_async if is_async else answer)
    assert inbound.csrf_exempt  # type: ignore[attr-defined]

    def called(view: Any, request: HttpRequest) -> HttpResponse:
        response = view(request)
        return asyncio.run(response) if asyncio.iscoroutine(response) else response

    requests = RequestFactory()
    assert called(inbound, requests.post("/", "Body=Hi", content_type=FORM["Content-Type"])).status_code == 403
    assert called(inbound, requests.post("/", "Body=Hi", content_type=FORM["Content-Type"], headers=HEADERS)).content == b"Hi"
    assert called(events, requests.post("/", EVENT, content_type="application/json")).status_code == 401
    headers = signed(EVENT)
    assert called(events, requests.post("/", EVENT, content_type=headers.pop("Content-Type"), headers=headers)).content == b"test"


def test_package_needs_the_standard_library_only() -> None:
    site = pathlib.Path(twilio_edge.__file__).parent.parent
    code = f"import sys; sys.path.insert(0, {str(site)!r}); import twilio_edge, twilio_edge.events; print(twilio_edge.__version__)"
    ended = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert ended.stdout.strip() == stacks.version(), ended.stderr


def test_verifier_has_a_secret() -> None:
    none: list[str] = []
    for secrets in (none, "whsec_no Base64"):
        with pytest.raises(ValueError, match="secret"):
            SinkVerifier(secrets)
