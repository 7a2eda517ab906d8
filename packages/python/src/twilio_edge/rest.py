"""Connection of the typed client to the sidecar. `twilio_edge.v1` has the operations."""

from __future__ import annotations

import asyncio
import re
import time
from types import TracebackType
from typing import Any, Self

import httpx

from .errors import ApiError

# Statuses after which a repeated request may succeed.
_RETRIED = {429, 502, 503, 504}


class Client:
    """Connection to one listener of the sidecar, for synchronous and asynchronous calls.

    A request that was answered 429, 502, 503 or 504 is repeated, because it changed nothing. A request without an answer is repeated if
    that is safe: one with GET, and one with an `Idempotency-Key`, which the sidecar carries out once. Operations that accept such a key
    get a new one for each call.

    Args:
        url: Base URL of a listener: `http://127.0.0.1:8081` for applications, `http://127.0.0.1:8082` for administrators.
        key: API key of the sidecar, `twilio_edge_..`.
        timeout_s: Limit of each attempt, in seconds.
        retries: Number of repetitions of a request.
        transports: Arguments of `httpx.Client` and `httpx.AsyncClient`, for instance `verify`.
    """

    def __init__(self, url: str, key: str, *, timeout_s: float = 30.0, retries: int = 2, **transports: Any) -> None:
        self._retries = retries
        self._options: dict[str, Any] = {
            "base_url": url,
            "timeout": timeout_s,
            "headers": {"Authorization": f"Bearer {key}"},
            **transports,
        }
        self._sync: httpx.Client | None = None
        self._async: httpx.AsyncClient | None = None

    def request(self, **named: Any) -> httpx.Response:
        """Sends a request and returns the successful response.

        Raises:
            ApiError: The sidecar refused the request, or failed.
            httpx.TransportError: There was no answer.
        """
        self._sync = self._sync or httpx.Client(**self._options)
        is_safe = named["method"] == "get" or "Idempotency-Key" in (named.get("headers") or {})
        for attempt in range(self._retries + 1):
            is_last = attempt == self._retries
            try:
                response = self._sync.request(**named)
            except httpx.TransportError:
                if is_last or not is_safe:
                    raise
                time.sleep(_pause(attempt, None))
                continue
            if is_last or response.status_code not in _RETRIED:
                break
            time.sleep(_pause(attempt, response))
        return _succeeded(response)

    async def request_async(self, **named: Any) -> httpx.Response:
        """Sends a request without blocking; see `request`."""
        self._async = self._async or httpx.AsyncClient(**self._options)
        is_safe = named["method"] == "get" or "Idempotency-Key" in (named.get("headers") or {})
        for attempt in range(self._retries + 1):
            is_last = attempt == self._retries
            try:
                response = await self._async.request(**named)
            except httpx.TransportError:
                if is_last or not is_safe:
                    raise
                await asyncio.sleep(_pause(attempt, None))
                continue
            if is_last or response.status_code not in _RETRIED:
                break
            await asyncio.sleep(_pause(attempt, response))
        return _succeeded(response)

    def close(self) -> None:
        """Closes the connections of synchronous calls."""
        if self._sync:
            self._sync.close()

    async def aclose(self) -> None:
        """Closes all connections."""
        self.close()
        if self._async:
            await self._async.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()


def _pause(attempt: int, response: httpx.Response | None) -> float:
    """Returns the seconds until the next attempt: those of Retry-After up to 30, or 0.2 s and then twice as long each time."""
    given = response.headers.get("retry-after", "") if response else ""
    return min(float(given), 30.0) if re.fullmatch(r"\d+", given) else float(0.2 * 2**attempt)


def _succeeded(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    raise ApiError.of_response(response.status_code, response.content, response.headers)
