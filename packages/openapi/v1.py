"""The API `/v1` of both listeners as one OpenAPI document, from which the clients are generated."""

from __future__ import annotations

import json
import pathlib
from typing import Any

# Content types of requests that are sent as bytes.
BINARY = ("application/octet-stream", "text/csv")
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def document() -> dict[str, Any]:
    """Merges docs/openapi/app.json and docs/openapi/admin.json, without what is for filters and orchestrators.

    # Errors

    Both listeners must give one meaning to each operation and each schema.
    """
    made: dict[str, Any] = json.loads((ROOT / "docs/openapi/app.json").read_text())
    admin: dict[str, Any] = json.loads((ROOT / "docs/openapi/admin.json").read_text())
    for path, methods in admin["paths"].items():
        for method, operation in methods.items():
            assert method not in made["paths"].get(path, {}), f"both listeners have {method} {path}"
            made["paths"].setdefault(path, {})[method] = operation
    for kind, parts in admin["components"].items():
        for name, part in parts.items():
            known = made["components"].setdefault(kind, {}).setdefault(name, part)
            assert known == part, f"the listeners have different {kind} {name}"
    made["info"] |= {"title": "twilio-edge", "description": "API of applications and of administrators."}
    made["paths"] = {path: methods for path, methods in made["paths"].items() if path.startswith("/v1/")}
    for methods in made["paths"].values():
        for operation in methods.values():
            for kind, content in operation.get("requestBody", {}).get("content", {}).items():
                if kind in BINARY:
                    content["schema"] = {"type": "string", "format": "binary"}
    used = references(made, made["paths"])
    schemas = made["components"]["schemas"]
    made["components"]["schemas"] = {name: schemas[name] for name in sorted(schemas) if f"#/components/schemas/{name}" in used}
    return made


def problem_codes(made: dict[str, Any]) -> dict[str, str]:
    """Returns the description of each code of a problem, in the order of the codes.

    A description is `STATUS, for the ACTOR: TITLE. REMEDY`. The response of the sidecar has the title.
    """
    return {one["enum"][0]: one["description"] for one in made["components"]["schemas"]["Problem"]["properties"]["code"]["oneOf"]}


def for_functions(made: dict[str, Any]) -> dict[str, Any]:
    """Prepares the document for a client of functions, which return one response and raise errors as exceptions.

    Responses of errors are removed, and the operation whose response has no end.
    """
    del made["paths"]["/v1/stream"]
    for methods in made["paths"].values():
        for operation in methods.values():
            operation["responses"] = {status: one for status, one in operation["responses"].items() if status.startswith("2")}
    return made


def references(made: dict[str, Any], part: Any) -> set[str]:
    """Returns all references that a part of the document leads to."""
    found: set[str] = set()
    waiting = [part]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, dict):
            waiting.extend(node.values())
            reference = node.get("$ref")
            if isinstance(reference, str) and reference not in found:
                found.add(reference)
                target: Any = made
                for name in reference.removeprefix("#/").split("/"):
                    target = target[name]
                waiting.append(target)
    return found
