"""Twilio's SDK through the sidecar. Needs the extra `sdk`.

An application changes the line that imports the client:

    from twilio_edge.sdk import Client  # instead of: from twilio.rest import Client

The environment variable `TWILIO_EDGE_URL` has the URL of the sidecar; without it, the sidecar is at http://127.0.0.1:8081. The password
is an API key of the sidecar instead of Twilio's auth token.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Mapping, MutableMapping
from typing import Any

import twilio.rest
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.http.http_client import TwilioHttpClient

#: Header that names the host of Twilio for which a request was made.
HOST_HEADER = "Twilio-Edge-Host"
#: URL of the sidecar, unless TWILIO_EDGE_URL or an argument names another one.
DEFAULT_URL = "http://127.0.0.1:8081"


class EdgeHttpClient(TwilioHttpClient):  # type: ignore[misc, unused-ignore]
    """HTTP client of Twilio's SDK that sends requests to the sidecar.

    Requests to `twilio.com` and its subdomains go to the same path at `url`, and the header `Twilio-Edge-Host` names the host. A request
    to any other host is sent as it is.

    Args:
        url: Base URL of the sidecar; default: `TWILIO_EDGE_URL`, else `http://127.0.0.1:8081`.
        headers: Headers of every request, for instance `{"Twilio-Edge-Category": "marketing"}`.
        named: Arguments of Twilio's `TwilioHttpClient`, for instance `timeout`.
    """

    def __init__(self, url: str | None = None, *, headers: Mapping[str, str] | None = None, **named: Any) -> None:
        super().__init__(**named)
        self.url = base_url(url or os.environ.get("TWILIO_EDGE_URL") or DEFAULT_URL)
        self.headers = dict(headers or {})

    def request(
        self,
        method: str,
        url: str,
        params: Any = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        *arguments: Any,
        **named: Any,
    ) -> Any:
        """Sends a request of the SDK."""
        url, headers = moved(self.url, url, headers, self.headers)
        return super().request(method, url, params, data, headers, *arguments, **named)


class AsyncEdgeHttpClient(AsyncTwilioHttpClient):  # type: ignore[misc, unused-ignore]
    """Asynchronous HTTP client of Twilio's SDK that sends requests to the sidecar; see `EdgeHttpClient`."""

    def __init__(self, url: str | None = None, *, headers: Mapping[str, str] | None = None, **named: Any) -> None:
        super().__init__(**named)
        self.url = base_url(url or os.environ.get("TWILIO_EDGE_URL") or DEFAULT_URL)
        self.headers = dict(headers or {})

    async def request(
        self,
        method: str,
        url: str,
        params: Any = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        *arguments: Any,
        **named: Any,
    ) -> Any:
        """Sends a request of the SDK."""
        url, headers = moved(self.url, url, headers, self.headers)
        return await super().request(method, url, params, data, headers, *arguments, **named)


class Client(twilio.rest.Client):  # type: ignore[misc, unused-ignore]
    """Twilio's client, with an `EdgeHttpClient` unless `http_client` is given. All arguments are those of Twilio's client."""

    def __init__(
        self,
        username: str | None = None,
        password: str | None = None,
        account_sid: str | None = None,
        region: str | None = None,
        http_client: Any = None,
        environment: MutableMapping[str, str] | None = None,
        **named: Any,
    ) -> None:
        url = (environment or os.environ).get("TWILIO_EDGE_URL")
        http_client = http_client or EdgeHttpClient(url)
        super().__init__(username, password, account_sid, region, http_client, environment, **named)


def base_url(url: str) -> str:
    """Returns the URL without a slash at its end.

    Raises:
        ValueError: The text is no URL with `http` or `https`, or it has a query.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"{url!r} is no base URL: use one such as {DEFAULT_URL}")
    return url.rstrip("/")


def moved(base: str, url: str, headers: Mapping[str, str] | None, more: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Returns URL and headers of a request at the sidecar for a request to Twilio; those of other requests unchanged."""
    parts = urllib.parse.urlsplit(url)
    host = (parts.hostname or "").lower()
    if host != "twilio.com" and not host.endswith(".twilio.com"):
        return url, dict(headers or {})
    query = f"?{parts.query}" if parts.query else ""
    return f"{base}{parts.path}{query}", {**(headers or {}), HOST_HEADER: host, **more}
