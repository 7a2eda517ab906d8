"""Requests to Twilio, judged by Twilio's own OpenAPI (all arguments but the last, which has them as JSON). Says how often what was asked."""

import collections
import json
import re
import sys
import urllib.parse

from jsonschema import Draft202012Validator

spec = json.load(open(sys.argv[1]))
for name in sys.argv[2:-1]:
    more = json.load(open(name))
    spec["paths"].update(more["paths"])
    spec["components"]["schemas"].update(more["components"]["schemas"])
seen = json.load(open(sys.argv[-1]))
counted = collections.Counter()


def described(method, path):
    for template, operations in spec["paths"].items():
        pattern = re.sub(r"\\\{\w+\\\}", "[^/.]+", re.escape(template))
        if re.fullmatch(pattern, path) and method.lower() in operations:
            return template, operations[method.lower()]
    raise AssertionError(f"Twilio has no {method} {path}")


def resolved(schema):
    while "$ref" in schema:
        found = spec
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


def typed(schema, values):
    """What a form or a query says, as the type it is of."""
    schema = resolved(schema)
    if schema.get("type") == "array":
        return [typed(schema["items"], [value]) for value in values]
    assert len(values) == 1, f"{values}: more than once"
    if schema.get("type") == "integer":
        return int(values[0])
    if schema.get("type") == "boolean":
        return {"true": True, "false": False}[values[0]]
    return values[0]


def judge(schema, pairs, what):
    """Every name is described, and every value is as it has to be."""
    names = collections.defaultdict(list)
    for name, value in pairs:
        names[name].append(value)
    unknown = set(names) - set(schema["properties"])
    assert not unknown, (what, unknown)
    said = {name: typed(schema["properties"][name], values) for name, values in names.items()}
    validator = Draft202012Validator({**schema, "components": spec["components"]})
    problems = [f"{list(one.absolute_path)}: {one.message}" for one in validator.iter_errors(said)]
    assert not problems, (what, problems)


for request in seen:
    target = urllib.parse.urlsplit(request["target"])
    template, operation = described(request["method"], target.path)
    what = f"{request['method']} {request['target']} {request['body']}"
    assert request["authorization"].startswith("Basic "), what
    parameters = {one["name"]: one for one in operation.get("parameters", []) if one["in"] == "query"}
    query = {
        "type": "object",
        "properties": {name: one["schema"] for name, one in parameters.items()},
        "required": [name for name, one in parameters.items() if one.get("required")],
    }
    judge(query, urllib.parse.parse_qsl(target.query, keep_blank_values=True, strict_parsing=bool(target.query)), what)
    if "requestBody" in operation:
        assert request["type"] == "application/x-www-form-urlencoded", what
        schema = operation["requestBody"]["content"][request["type"]]["schema"]
        judge(schema, urllib.parse.parse_qsl(request["body"], keep_blank_values=True, strict_parsing=True), what)
    else:
        assert request["body"] == "", what
    counted[f"{request['method']} {template.split('{AccountSid}/')[-1]}"] += 1

# A judge that takes everything is none.
for wrong in ("From=a&Body=b", "To=%2B1&Bodi=b", "To=%2B1&ContentRetention=maybe", "To=%2B1&MessagingServiceSid=MG1"):
    schema = spec["paths"]["/2010-04-01/Accounts/{AccountSid}/Messages.json"]["post"]["requestBody"]
    schema = schema["content"]["application/x-www-form-urlencoded"]["schema"]
    try:
        judge(schema, urllib.parse.parse_qsl(wrong), wrong)
    except AssertionError:
        continue
    raise SystemExit(f"{wrong} is taken")
print(json.dumps(counted))
