"""Judges requests to SendGrid and the answers with SendGrid's own OpenAPI document: argv[1] is the document, argv[2] has the
exchanges as JSON. Prints the number of answers by status.

The document differs from SendGrid in four points, each of which this judge corrects:
- It requires subject and content also if a template contains them. SendGrid's later documents do not.
- It describes custom_args of the whole request as a string with key/value pairs. Its text says that it is an object.
- It describes help of an error as an object. SendGrid sends null if there is none.
- It describes no 429 and 503. They have the body of other errors (API reference, "Responses" and "Rate limits")."""

import collections
import json
import sys

from jsonschema import Draft202012Validator, FormatChecker

document = json.load(open(sys.argv[1]))
exchanges = json.load(open(sys.argv[2]))
operation = document["paths"]["/mail/send"]["post"]
assert document["servers"] == [{"url": "http://api.sendgrid.com/v3"}], document["servers"]
assert document["info"]["x-origin"][0]["url"].endswith("/sendgrid/sendgrid-oai/main/oai.json"), document["info"]
counted = collections.Counter()


def resolved(schema):
    """Inserts the referenced schemas, converts OpenAPI 3.0 to JSON Schema, and permits described properties only."""
    if isinstance(schema, list):
        return [resolved(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        found = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return resolved(found)
    made = {name: resolved(value) for name, value in schema.items() if name not in ("nullable", "example", "examples")}
    if isinstance(schema.get("properties"), dict):
        made.setdefault("additionalProperties", False)
    return {"anyOf": [made, {"type": "null"}]} if schema.get("nullable") else made


def request_schema(body):
    schema = resolved(operation["requestBody"]["content"]["application/json"]["schema"])
    schema["properties"]["custom_args"] = {"type": "object", "additionalProperties": {"type": "string"}}
    if "template_id" in body:
        schema["required"] = [name for name in schema["required"] if name not in ("subject", "content")]
    return schema


def error_schema(status):
    described = operation["responses"].get(str(status)) or operation["responses"]["400"]
    schema = resolved(described)["content"]["application/json"]["schema"]
    fields = schema["properties"]["errors"]["items"]["properties"]
    fields["help"] = {"type": ["object", "null"]}
    fields.setdefault("field", {"type": ["string", "null"]})
    return schema


def problems(schema, value):
    validator = Draft202012Validator(schema, format_checker=FormatChecker())
    return [f"{list(one.absolute_path)}: {one.message}" for one in validator.iter_errors(value)]


for exchange in exchanges:
    assert (exchange["method"], exchange["target"]) == ("POST", "/v3/mail/send"), exchange
    assert exchange["type"] == "application/json", exchange
    assert exchange["authorization"].startswith("Bearer "), exchange
    body, answer = json.loads(exchange["body"]), exchange["answer"]
    found = problems(request_schema(body), body)
    assert not found, (found, exchange)
    assert str(answer["status"]) in operation["responses"] or answer["status"] in (429, 503), exchange
    if answer["status"] == 202:
        assert answer["body"] == "" and answer["headers"]["x-message-id"], exchange
    else:
        found = problems(error_schema(answer["status"]), json.loads(answer["body"]))
        assert not found, (found, exchange)
    counted[str(answer["status"])] += 1

# A judge that accepts everything is none: each of these requests has one error.
good = json.loads(exchanges[0]["body"])
assert "subject" in good, good
for change in (
    {"subject": None},
    {"subject": ""},
    {"colour": "red"},
    {"from": {"email": "no address"}},
    {"from": {"name": "Shop"}},
    {"content": [{"type": "text/plain", "value": ""}]},
    {"content": [{"type": "text/plain"}]},
    {"personalizations": None},
    {"personalizations": [{"to": [{"name": "Ava"}]}]},
    {"personalizations": [{"to": [{"email": "ava@example.com"}], "custom_arguments": {}}]},
    {"custom_args": "order=7"},
    {"send_at": "tomorrow"},
):
    wrong = {name: value for name, value in {**good, **change}.items() if value is not None}
    assert problems(request_schema(wrong), wrong), wrong
print(json.dumps(counted))
