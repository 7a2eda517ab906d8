"""The types of events have exactly the fields of docs/event.schema.json."""

from __future__ import annotations

import json
import pathlib
import sys
import typing
from typing import Any

import pytest
from twilio_edge import events

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
import stack as stacks

SCHEMA = json.loads((stacks.ROOT / "docs/event.schema.json").read_text())
DATA: dict[str, Any] = {
    "message": events.Message,
    "suppression": events.Suppression,
    "consent": events.Consent,
    "window": events.Window,
    "template": events.Template,
    "delivery": events.Delivery,
    "account": events.Account,
}


def types(event: Any) -> set[str]:
    return set(typing.get_args(typing.get_type_hints(event)["event_type"]))


def test_every_type_of_event_has_one_class() -> None:
    named = [name for event in typing.get_args(events.Event) for name in types(event)]
    assert sorted(named) == sorted(SCHEMA["properties"]["event_type"]["enum"])


@pytest.mark.parametrize("name", DATA)
def test_data_has_the_fields_of_the_schema(name: str) -> None:
    schema, data = SCHEMA["$defs"][name], DATA[name]
    assert set(schema["properties"]) == set(data.__annotations__)
    assert set(schema["required"]) == data.__required_keys__


@pytest.mark.parametrize("choice", SCHEMA["oneOf"][1:])
def test_event_has_the_data_of_the_schema(choice: dict[str, Any]) -> None:
    kind = choice["properties"]["event_type"]
    wanted = set(kind.get("enum", [kind.get("const")]))
    [event] = [one for one in typing.get_args(events.Event) if types(one) == wanted]
    assert typing.get_type_hints(event)["data"] is DATA[choice["properties"]["data"]["$ref"].rsplit("/", 1)[1]]


def test_webhooks_have_the_fields_of_the_schema() -> None:
    known = set(SCHEMA["properties"]) - {"data", "recorded_at"}
    found = set(events.InboundEvent.__annotations__) | set(events.StatusEvent.__annotations__)
    inherited = {name for event in (events.InboundEvent, events.StatusEvent) for name in typing.get_type_hints(event)}
    assert found | inherited == known
    for name in ("media", "contacts"):
        [item] = typing.get_args(typing.get_type_hints(events.InboundEvent)[name])
        assert set(item.__annotations__) == set(SCHEMA["properties"][name]["items"]["properties"])
    for name in ("button", "list", "location", "referral", "replied_to"):
        part = typing.get_type_hints(events.InboundEvent)[name]
        assert set(part.__annotations__) == set(SCHEMA["properties"][name]["properties"])
        assert part.__required_keys__ == set(SCHEMA["properties"][name].get("required", []))
