"""Signatures of deliveries, compared with the official library of Standard Webhooks."""

from __future__ import annotations

import datetime

import pytest
from standardwebhooks import Webhook
from twilio_edge import SinkVerifier, UnverifiedEventError

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
NEXT = "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="
BODY = '{"event_type": "test", "event_id": "1", "body": "Grüße"}'


def headers(*, secret: str = SECRET, seconds: int = 0, body: str = BODY) -> dict[str, str]:
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    signature = Webhook(secret).sign("msg_1", at, body)
    return {"Webhook-Id": "msg_1", "Webhook-Timestamp": str(int(at.timestamp())), "Webhook-Signature": signature}


def test_event_of_the_official_signer_is_returned() -> None:
    for body in (BODY, BODY.encode()):
        assert SinkVerifier(SECRET).verify(headers(), body)["event_type"] == "test"


def test_rotated_secrets_match_any_of_several_signatures() -> None:
    both = headers()
    both["Webhook-Signature"] = f"v1a,other {headers(secret=NEXT)['Webhook-Signature']} {both['Webhook-Signature']}"
    for secrets in (SECRET, NEXT, [NEXT, SECRET]):
        assert SinkVerifier(secrets).verify(both, BODY)
    with pytest.raises(UnverifiedEventError, match="the signature is wrong"):
        SinkVerifier(NEXT).verify(headers(), BODY)


@pytest.mark.parametrize("name", ["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"])
def test_missing_and_changed_headers_are_refused(name: str) -> None:
    given = headers()
    with pytest.raises(UnverifiedEventError, match="no signature"):
        SinkVerifier(SECRET).verify({key: value for key, value in given.items() if key != name}, BODY)
    with pytest.raises(UnverifiedEventError):
        SinkVerifier(SECRET).verify(given | {name: given[name][:-2]}, BODY)


@pytest.mark.parametrize("seconds", [-400, 400])
def test_old_and_future_signatures_are_refused(seconds: int) -> None:
    with pytest.raises(UnverifiedEventError, match="clocks"):
        SinkVerifier(SECRET).verify(headers(seconds=seconds), BODY)
    assert SinkVerifier(SECRET, tolerance_s=500).verify(headers(seconds=seconds), BODY)


def test_changed_body_and_a_body_without_event_are_refused() -> None:
    with pytest.raises(UnverifiedEventError, match="a proxy changed"):
        SinkVerifier(SECRET).verify(headers(), BODY + " ")
    for body in ("Body=Hi", "[]"):
        with pytest.raises(UnverifiedEventError, match="no event"):
            SinkVerifier(SECRET).verify(headers(body=body), body)
