#!/usr/bin/env python3
"""Fails if the API changed in a way that breaks clients, unless CHANGELOG.md announces the change.

    compatibility.py    compares docs/openapi with packages/openapi/baseline, the API of the last release

A client sends requests and reads responses, so the direction decides. A change breaks clients if it

- removes an operation, a parameter, a property, a content type, a status of success, or a value of a request;
- requires more of a request: a parameter, a body or a property, a smaller limit, another pattern or format;
- promises less in a response: a property that may be missing, or a value of a further type.

Further operations, optional parameters and properties, and further properties and words of a response do not break clients: they
ignore the words and properties that they do not know (docs/UPGRADING.md).

A change is announced if a section **Breaking** of CHANGELOG.md, above the first released version, names its operation in backticks, as in
`POST /v1/messages`.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Words that describe the API and change nothing for a program.
PROSE = {"description", "summary", "title", "examples", "example", "externalDocs"}
# Limits of a value, and whether a larger one permits more.
LIMITS = {
    "maximum": True, "maxLength": True, "maxItems": True, "maxProperties": True,
    "minimum": False, "minLength": False, "minItems": False, "minProperties": False,
}  # fmt: skip


def essence(node: Any, is_map: bool = False) -> Any:
    """Returns a document without its prose. The keys of a map are names, and are kept."""
    if isinstance(node, dict):
        maps = ("properties", "paths", "schemas", "responses", "content", "headers")
        return {key: essence(value, key in maps) for key, value in node.items() if is_map or key not in PROSE}
    return [essence(item) for item in node] if isinstance(node, list) else node


class Comparison:
    """Breaking changes from one document to another."""

    def __init__(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        self.before, self.after = before, after
        self.found: list[tuple[str, str]] = []
        self.operation = ""
        self.seen: set[tuple[str, str, bool]] = set()

    def report(self, problem: str) -> None:
        if (self.operation, problem) not in self.found:
            self.found.append((self.operation, problem))

    def run(self) -> list[tuple[str, str]]:
        """Returns pairs of an operation and the change that breaks its clients."""
        for path, methods in self.before["paths"].items():
            for method, operation in methods.items():
                self.operation = f"{method.upper()} {path}"
                changed = self.after["paths"].get(path, {}).get(method)
                if changed is None:
                    self.report("the operation is removed")
                    continue
                self.seen.clear()
                self.parameters(operation, changed)
                self.body(operation, changed)
                self.responses(operation, changed)
        return self.found

    def parameters(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        old, new = (
            {(one["in"], one["name"]): one for one in (resolve(document, it) for it in operation.get("parameters", []))}
            for document, operation in ((self.before, before), (self.after, after))
        )
        for (place, name), one in new.items():
            if one.get("required") and not old.get((place, name), {}).get("required"):
                self.report(f"the parameter {name} is required")
        for key, one in old.items():
            if key not in new:
                self.report(f"the parameter {key[1]} is removed")
            else:
                self.schema(one.get("schema", {}), new[key].get("schema", {}), f"parameter {key[1]}", is_request=True)

    def body(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        old, new = resolve(self.before, before.get("requestBody", {})), resolve(self.after, after.get("requestBody", {}))
        if new.get("required") and not old.get("required"):
            self.report("a body is required")
        self.contents(old, new, "request", is_request=True)

    def responses(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        for status, response in before["responses"].items():
            changed = after["responses"].get(status)
            if changed is None:
                self.report(f"the response {status} is removed")
                continue
            self.contents(resolve(self.before, response), resolve(self.after, changed), f"response {status}", is_request=False)

    def contents(self, before: dict[str, Any], after: dict[str, Any], place: str, *, is_request: bool) -> None:
        for kind, content in before.get("content", {}).items():
            changed = after.get("content", {}).get(kind)
            if changed is None:
                self.report(f"{place}: the content type {kind} is removed")
            else:
                self.schema(content.get("schema", {}), changed.get("schema", {}), place, is_request=is_request)

    def schema(self, before: Any, after: Any, place: str, *, is_request: bool) -> None:
        names = before.get("$ref", ""), after.get("$ref", "")
        if all(names):
            # Schemas refer to each other in circles.
            if (*names, is_request) in self.seen:
                return
            self.seen.add((*names, is_request))
        before, after = merged(self.before, before), merged(self.after, after)
        self.types(before, after, place, is_request)
        self.values(before, after, place, is_request)
        self.properties(before, after, place, is_request)
        if "items" in before and "items" in after:
            self.schema(before["items"], after["items"], f"{place}[]", is_request=is_request)
        more = before.get("additionalProperties"), after.get("additionalProperties")
        if isinstance(more[0], dict) and isinstance(more[1], dict):
            self.schema(*more, f"{place}.*", is_request=is_request)
        self.alternatives(before, after, place, is_request)

    def types(self, before: dict[str, Any], after: dict[str, Any], place: str, is_request: bool) -> None:
        old, new = types(before), types(after)
        if not old and not new:
            return
        if is_request and new and (not old or old - new - ({"integer"} if "number" in new else set())):
            self.report(f"{place}: the type is {sorted(new)} instead of {sorted(old) or 'any'}")
        if not is_request and old and (not new or new - old - ({"integer"} if "number" in old else set())):
            self.report(f"{place}: the type is {sorted(new) or 'any'} instead of {sorted(old)}")

    def values(self, before: dict[str, Any], after: dict[str, Any], place: str, is_request: bool) -> None:
        if before.get("format") != after.get("format"):
            self.report(f"{place}: the format is {after.get('format')} instead of {before.get('format')}")
        if not is_request:
            return
        if "enum" in after:
            removed = [word for word in before.get("enum", ["any other value"]) if word not in after["enum"]]
            for word in removed:
                self.report(f"{place}: {word} is no value any more")
        if "pattern" in after and before.get("pattern") != after["pattern"]:
            self.report(f"{place}: the pattern is {after['pattern']}")
        for limit, larger_permits_more in LIMITS.items():
            old, new = before.get(limit), after.get(limit)
            if new is not None and (old is None or (new < old if larger_permits_more else new > old)):
                self.report(f"{place}: {limit} is {new} instead of {old}")

    def properties(self, before: dict[str, Any], after: dict[str, Any], place: str, is_request: bool) -> None:
        old, new = before.get("properties", {}), after.get("properties", {})
        required = set(before.get("required", [])), set(after.get("required", []))
        for name, one in old.items():
            if name not in new:
                self.report(f"{place}.{name} is removed")
                continue
            self.schema(one, new[name], f"{place}.{name}", is_request=is_request)
        changed = required[1] - required[0] if is_request else (required[0] - required[1]) & set(new)
        for name in sorted(changed):
            self.report(f"{place}.{name} is required" if is_request else f"{place}.{name} may be missing")

    def alternatives(self, before: dict[str, Any], after: dict[str, Any], place: str, is_request: bool) -> None:
        old, new = before.get("oneOf", []), after.get("oneOf", [])
        named = ({one.get("$ref") or json.dumps(one, sort_keys=True): one for one in options} for options in (old, new))
        olds, news = named
        for name in olds.keys() & news.keys():
            self.schema(olds[name], news[name], place, is_request=is_request)
        lost = (olds.keys() - news.keys()) if is_request else (news.keys() - olds.keys())
        # An alternative that is written in place is compared with the one at its position.
        if lost and len(old) == len(new):
            for one, other in zip(old, new, strict=True):
                self.schema(one, other, place, is_request=is_request)
        elif lost:
            self.report(f"{place}: the alternatives are others")


def resolve(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """Returns the node that a reference names."""
    while "$ref" in node:
        found: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


def merged(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """Returns a schema with its references followed, its parts (`allOf`) merged, and an alternative `null` as a type."""
    made = dict(resolve(document, node))
    for part in made.pop("allOf", []):
        part = merged(document, part)
        for key, value in part.items():
            if key == "properties":
                made["properties"] = {**value, **made.get("properties", {})}
            elif key == "required":
                made["required"] = [*made.get("required", []), *value]
            else:
                made.setdefault(key, value)
    options = [one for one in made.get("oneOf", made.get("anyOf", [])) if one.get("type") != "null"]
    is_nullable = len(options) < len(made.get("oneOf", made.get("anyOf", [])))
    made.pop("anyOf", None)
    if len(options) == 1:
        del made["oneOf"]
        made = {**merged(document, options[0]), **{key: value for key, value in made.items() if key != "oneOf"}}
    elif options:
        made["oneOf"] = options
    if is_nullable and types(made):
        made["type"] = sorted(types(made) | {"null"})
    return made


def types(schema: dict[str, Any]) -> set[str]:
    given = schema.get("type", [])
    return {given} if isinstance(given, str) else set(given)


def announced(changelog: str) -> set[str]:
    """Returns the operations that the sections **Breaking** above the first released version name."""
    unreleased = re.split(r"^## \[?\d", changelog, maxsplit=1, flags=re.MULTILINE)[0]
    sections = re.findall(r"^(?:#+ Breaking|\*\*Breaking\*\*)(.*?)(?=^#|\Z)", unreleased, re.MULTILINE | re.DOTALL)
    return {name for section in sections for name in re.findall(r"`([A-Z]+ /[^`\s]*)`", section)}


def changes() -> Iterator[tuple[str, str, str]]:
    """Yields document, operation and change for each breaking change since the baseline."""
    for name in ("app", "admin"):
        before = json.loads((ROOT / f"packages/openapi/baseline/{name}.json").read_text())
        after = json.loads((ROOT / f"docs/openapi/{name}.json").read_text())
        for operation, problem in Comparison(essence(before), essence(after)).run():
            yield name, operation, problem


def main() -> None:
    known = announced((ROOT / "CHANGELOG.md").read_text())
    found = list(changes())
    for name, operation, problem in found:
        print(f"{name}: {operation}: {problem}{' (announced)' if operation in known else ''}")
    missing = sorted({operation for _, operation, _ in found if operation not in known})
    if missing:
        names = ", ".join(f"`{operation}`" for operation in missing)
        sys.exit(f"clients break: change the API back, or name {names} in a section **Breaking** of CHANGELOG.md")
    print(f"{len(found)} breaking changes, all announced" if found else "no breaking change")


if __name__ == "__main__":
    main()
