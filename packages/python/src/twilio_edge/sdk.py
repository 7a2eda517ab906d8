"""HTTP client with which Twilio's SDK calls the sidecar instead of Twilio. Needs the extra `sdk`.

from twilio.rest import Client
from twilio_edge.sdk import EdgeHttpClient

client = Client(account_sid, api_key, http_client=EdgeHttpClient("http://127.0.0.1:8081"))
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from typing import Any

from twilio.http.http_client import TwilioHttpClient

#: Header that names the host of Twilio for which a request was made.
HOST_HEADER = "Twilio-Edge-Host"


class EdgeHttpClient(TwilioHttpClient):  # type: ignore[misc, unused-ignore]
    """Sends the requests of Twilio's SDK to the sidecar, with the API key of the sidecar as the password.

    Requests to `twilio.com` and its subdomains go to the path of the same name at `url`, and the header `Twilio-Edge-Host` names
    the host. A request to any other host is sent as it is.

    Args:
        url: Base URL of the sidecar, as in `http://127.0.0.1:8081`.
        headers: Headers of every request, for instance `{"Twilio-Edge-Category": "marketing"}`.
        named: Arguments of Twilio's own `TwilioHttpClient`, for instance `timeout`.
    """

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None, **named: Any) -> None:
        super().__init__(**named)
        self.url = base_url(url)
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
        moved, host = moved_url(self.url, url)
        headers = {**(headers or {}), **({HOST_HEADER: host, **self.headers} if host else {})}
        return super().request(method, moved, params, data, headers, *arguments, **named)


def base_url(url: str) -> str:
    """Returns the URL without a slash at its end.

    Raises:
        ValueError: The text is no URL with `http` or `https`, or it has a query.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"{url!r} is no base URL: use one such as http://127.0.0.1:8081")
    return url.rstrip("/")


def moved_url(base: str, url: str) -> tuple[str, str | None]:
    """Returns the URL at the sidecar for a URL of Twilio, with the host of Twilio; other URLs unchanged, with None."""
    parts = urllib.parse.urlsplit(url)
    host = (parts.hostname or "").lower()
    if host != "twilio.com" and not host.endswith(".twilio.com"):
        return url, None
    return base + parts.path + (f"?{parts.query}" if parts.query else ""), host
