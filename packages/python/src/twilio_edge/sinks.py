"""Verifies events that the sidecar delivers to an HTTP sink, by the signature of Standard Webhooks (standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Iterable
from typing import Any, cast

from .errors import UnverifiedEventError
from .events import Event
from .webhooks import Headers


class SinkVerifier:
    """Verifies the signatures of one sink.

    Args:
        secrets: Secrets of the sink, `whsec_..`; several of them while one is replaced by another.
        tolerance_s: Largest difference between the time of the signature and now, in seconds.

    Raises:
        ValueError: A secret is not valid.
    """

    def __init__(self, secrets: str | Iterable[str], *, tolerance_s: float = 300.0) -> None:
        given = [secrets] if isinstance(secrets, str) else list(secrets)
        if not given:
            raise ValueError("a sink has at least one secret, whsec_..")
        self._keys = [_key(secret) for secret in given]
        self._tolerance_s = tolerance_s

    def verify(self, headers: Headers, body: bytes | str) -> Event:
        """Returns the event of a request. `body` has the bytes of the request, not a parsed and rendered copy.

        Raises:
            UnverifiedEventError: The request is not signed with one of the secrets, is too old, or has no event.
        """
        found = {name.lower(): value for name, value in headers.items()}
        delivery_id, timestamp, signatures = (found.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
        if not (delivery_id and timestamp and signatures):
            raise UnverifiedEventError("the request has no signature: set secrets of the sink, and send nothing else to this URL")
        raw = body.encode() if isinstance(body, str) else body
        if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > self._tolerance_s:
            raise UnverifiedEventError(
                "the time of the signature is not near the time of this machine: set both clocks, and repeat nothing old"
            )
        signed = f"{delivery_id}.{timestamp}.".encode() + raw
        expected = [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()) for key in self._keys]
        given = [one.partition(",")[2].encode() for one in signatures.split(" ") if one.startswith("v1,")]
        # Compares every pair, so that the time does not depend on the secret that matches.
        matches = [hmac.compare_digest(one, other) for one in expected for other in given]
        if not any(matches):
            raise UnverifiedEventError("the signature is wrong: the secret is not that of the sink, or a proxy changed the body")
        try:
            event: Any = json.loads(raw)
        except ValueError:
            event = None
        if not isinstance(event, dict) or "event_type" not in event:
            raise UnverifiedEventError("the body is no event: the sink needs format = 'event'")
        return cast(Event, event)


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a secret of a sink is whsec_ and Base64") from None
