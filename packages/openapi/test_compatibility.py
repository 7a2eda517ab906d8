#!/usr/bin/env python3
"""Tests of compatibility.py: each change of a real document, and whether it breaks clients."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from compatibility import ROOT, Comparison, announced, essence

DOCUMENT = json.loads((ROOT / "docs/openapi/app.json").read_text())
Change = Callable[[dict[str, Any]], object]


def operation(document: dict[str, Any], method: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = document["paths"][path][method]
    return found


def schema(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["schemas"][name]
    return found


def request(document: dict[str, Any]) -> dict[str, Any]:
    return schema(document, "CreateMessageRequest")


def parameters(document: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = operation(document, "get", "/v1/messages")["parameters"]
    return found


SEND = "POST /v1/messages"
LIST = "GET /v1/messages"
BREAKING: dict[str, tuple[Change, str, str]] = {
    "operation": (lambda it: it["paths"].pop("/v1/checks"), "POST /v1/checks", "the operation is removed"),
    "parameter": (lambda it: parameters(it).pop(0), LIST, "is removed"),
    "required parameter": (lambda it: parameters(it).append({"name": "x", "in": "query", "required": True}), LIST, "x is required"),
    "property of a request": (lambda it: request(it)["properties"].pop("body"), SEND, "request.body is removed"),
    "required property": (lambda it: request(it)["required"].append("body"), SEND, "request.body is required"),
    "new required property": (
        lambda it: (request(it)["properties"].update(x={"type": "string"}), request(it)["required"].append("x")),
        SEND,
        "request.x is required",
    ),
    "type": (lambda it: request(it)["properties"]["body"].update(type="integer"), SEND, "the type is ['integer']"),
    "null": (lambda it: request(it)["properties"]["body"].update(type="string"), SEND, "the type is ['string']"),
    "limit": (lambda it: request(it)["properties"]["from"].update(maxLength=10), SEND, "maxLength is 10 instead of 255"),
    "new limit": (lambda it: request(it)["properties"]["body"].update(maxLength=10), SEND, "maxLength is 10 instead of None"),
    "pattern": (lambda it: request(it)["properties"]["account_sid"].update(pattern="^AC$"), SEND, "the pattern is ^AC$"),
    "value": (lambda it: schema(it, "Category")["enum"].pop(), SEND, "is no value any more"),
    "content type": (
        lambda it: operation(it, "post", "/v1/messages")["requestBody"].update(content={"text/plain": {}}),
        SEND,
        "the content type application/json is removed",
    ),
    "status": (lambda it: operation(it, "post", "/v1/messages")["responses"].pop("202"), SEND, "the response 202 is removed"),
    "property of a response": (lambda it: schema(it, "MessageSummary")["properties"].pop("id"), SEND, "id is removed"),
    "property that may be missing": (lambda it: schema(it, "MessageSummary")["required"].remove("id"), SEND, "id may be missing"),
    "type of a response": (
        lambda it: schema(it, "MessageSummary")["properties"]["id"].update(type=["string", "null"]),
        SEND,
        "['null', 'string']",
    ),
}
HARMLESS: dict[str, Change] = {
    "nothing": lambda it: None,
    "prose": lambda it: request(it).update(description="x"),
    "operation": lambda it: it["paths"].update({"/v1/new": {"get": {"responses": {}}}}),
    "parameter": lambda it: parameters(it).append({"name": "x", "in": "query"}),
    "property of a request": lambda it: request(it)["properties"].update(x={"type": "string"}),
    "larger limit": lambda it: request(it)["properties"]["from"].update(maxLength=300),
    "value of a request": lambda it: schema(it, "Category")["enum"].append("x"),
    "property of a response": lambda it: schema(it, "MessageSummary")["properties"].update(x={"type": "string"}),
    "status": lambda it: operation(it, "post", "/v1/checks")["responses"].update({"202": {}}),
}


def changes(change: Change) -> list[tuple[str, str]]:
    changed = copy.deepcopy(DOCUMENT)
    change(changed)
    return Comparison(essence(DOCUMENT), essence(changed)).run()


def main() -> None:
    for name, (change, where, problem) in BREAKING.items():
        found = changes(change)
        assert any(operation == where and problem in text for operation, text in found), (name, found)
    for name, harmless in HARMLESS.items():
        assert not changes(harmless), (name, changes(harmless))
    changelog = "# Changelog\n## Unreleased\n`GET /v1/a`\n### Breaking\n- `POST /v1/b` and `GET /v1/c/{id}`\n### Other\n`GET /v1/d`\n"
    assert announced(changelog) == {"POST /v1/b", "GET /v1/c/{id}"}
    assert announced(changelog + "## 0.1.0\n### Breaking\n`GET /v1/e`\n") == {"POST /v1/b", "GET /v1/c/{id}"}
    assert announced("## Unreleased\n**Breaking**\n\n- `PUT /v1/f`\n## 0.1.0\n") == {"PUT /v1/f"}


if __name__ == "__main__":
    main()
