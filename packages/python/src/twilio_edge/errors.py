"""Errors of this package. Each one says who must act."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from .problems import DESCRIPTIONS, ProblemCode


class EdgeError(Exception):
    """Base class of all errors of this package."""


class UnverifiedWebhookError(EdgeError):
    """A request that the filter of twilio-edge has not verified, or that is for another account."""


class UnverifiedEventError(EdgeError):
    """A request that is no signed event of the sidecar: the signature, the time or the body is wrong."""


class ApiError(EdgeError):
    """A refusal or failure of the API, from the `application/problem+json` of the sidecar.

    Attributes:
        status: HTTP status of the response.
        code: Stable word for the cause, for instance `suppressed`; None if the response is none of the sidecar. A later version of the
            sidecar may have further codes.
        title: Cause in words.
        detail: Explanation for this request, which names the field or dependency.
        actor: Party that must act: `caller`, `operator`, `administrator`, `recipient` or `none`.
        remedy: Action that removes the cause, as this version knows it; empty if the code is unknown.
        retry_after_s: Seconds after which a retry is useful, from the header Retry-After.
        problem: All fields of the response.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        def text(name: str) -> str:
            value = problem.get(name)
            return value if isinstance(value, str) else ""

        self.status = status
        self.code = cast("ProblemCode | None", text("code") or None)
        self.title = text("title")
        self.detail = text("detail")
        self.actor = text("actor")
        self.remedy = remedy_of(text("code"), self.title)
        self.retry_after_s = retry_after_s
        self.problem = dict(problem)
        parts = [f"{status} {text('code')}".strip() + f": {self.title or 'no explanation'}", self.detail]
        super().__init__(". ".join(part.rstrip(".") for part in [*parts, self.remedy if self.remedy != self.detail else ""] if part))

    @classmethod
    def of_response(cls, status: int, body: bytes, headers: Mapping[str, str]) -> ApiError:
        """Reads the response of a server. A response that is no problem+json has an empty `code`."""
        problem: object = None
        if headers.get("content-type", "").split(";")[0].strip() == "application/problem+json":
            try:
                problem = json.loads(body)
            except ValueError:
                problem = None
        if not isinstance(problem, dict):
            problem = {"title": "The response is none of twilio-edge", "detail": body[:200].decode(errors="replace")}
        try:
            retry_after_s = float(headers["retry-after"])
        except (KeyError, ValueError):
            retry_after_s = None
        return cls(status, problem, retry_after_s)


def remedy_of(code: str, title: str) -> str:
    """Returns the general remedy for a code of the sidecar."""
    described = re.sub(r"^\d+, for the \w+: ", "", DESCRIPTIONS.get(code, ""))
    return described.removeprefix(f"{title}. ") if described.startswith(f"{title}. ") else ""
