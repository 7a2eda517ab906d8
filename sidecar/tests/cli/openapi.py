"""Checks a server with Twilio's API against Twilio's OpenAPI files: each answer must be described there and have every field.

argv[1] is JSON with base, user, password, account, specs (the folder of Twilio's files), to, content (whether the server has
the Content API), service (its Verify Service), codes (the URL at which the simulator shows codes), and flow (the SID of a flow of
Studio)."""

import base64
import email.utils
import json
import pathlib
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

from jsonschema import Draft202012Validator, FormatChecker

config = json.loads(sys.argv[1])
SPECS = pathlib.Path(config["specs"])
checker = FormatChecker()
judged = []


@checker.checks("date-time-rfc-2822")
def is_rfc_2822(value):
    return not isinstance(value, str) or email.utils.parsedate_to_datetime(value).tzinfo is not None


def nullable(schema):
    """Converts OpenAPI 3.0 to JSON Schema. Objects must have all described properties and no others."""
    if isinstance(schema, list):
        return [nullable(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: nullable(value) for name, value in schema.items() if name not in ("nullable", "examples", "example")}
    if "properties" in schema and isinstance(schema["properties"], dict):
        made["required"] = list(schema["properties"])
        made.setdefault("additionalProperties", False)
    return {"anyOf": [made, {"type": "null"}]} if schema.get("nullable") else made


DOCUMENTS = ("api_v2010", "content_v1", "studio_v2", "verify_v2")
specs = {name: nullable(json.loads((SPECS / f"twilio_{name}.json").read_text())) for name in DOCUMENTS}


def described(method, path):
    for spec in specs.values():
        for template, operations in spec["paths"].items():
            pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))
            # {Sid}.json is not {ContentSid}.
            if re.fullmatch(pattern, path) and method.lower() in operations:
                if template.endswith(".json") or not path.endswith(".json"):
                    return spec, template, operations[method.lower()]
    raise AssertionError(f"Twilio has no {method} {path}")


def call(method, target, form=None):
    url = config["base"] + target
    data = urllib.parse.urlencode(form, doseq=True).encode() if form is not None else None
    request = urllib.request.Request(url, data, method=method)
    shown = base64.b64encode(f"{config['user']}:{config['password']}".encode()).decode()
    request.add_header("Authorization", f"Basic {shown}")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def good(method, target, form=None):
    """Sends a request, checks that the answer agrees with its description, and returns the body."""
    spec, template, operation = described(method, urllib.parse.urlsplit(target).path)
    status, body = call(method, target, form)
    assert str(status) in operation["responses"], (method, target, status, body)
    judged.append(f"{method} {template}")
    if status == 204:
        assert body == b"", body
        return None
    content = operation["responses"][str(status)]["content"]
    schema = {**content["application/json"]["schema"], "components": spec["components"]}
    answer = json.loads(body)
    problems = [
        f"{list(problem.absolute_path)}: {problem.message}"
        for problem in Draft202012Validator(schema, format_checker=checker).iter_errors(answer)
    ]
    assert not problems, (method, target, problems, answer)
    return answer


def bad(code, status, method, target, form=None):
    """Checks that a request is refused in the shape that Twilio's SDKs turn into an exception."""
    answered, body = call(method, target, form)
    error = json.loads(body)
    more = f"https://www.twilio.com/docs/errors/{code}"
    seen = answered, error["status"], error["code"], error["more_info"], type(error["message"])
    assert seen == (status, status, code, more, str), (target, error)


messages = f"/2010-04-01/Accounts/{config['account']}/Messages"
text = {"To": config["to"], "From": "+14155238886", "Body": "Hällo"}
service = {"To": config["to"], "MessagingServiceSid": "MG" + "0" * 32, "Body": "Hi"}
made = good("POST", f"{messages}.json", text)
picture = good("POST", f"{messages}.json", {**service, "MediaUrl": ["https://example.com/a.png"]})
good("GET", f"{messages}/{made['sid']}.json")
good("GET", f"{messages}/{picture['sid']}.json")
page = good("GET", f"{messages}.json?" + urllib.parse.urlencode({"To": config["to"], "PageSize": 1}))
assert len(page["messages"]) == 1 and page["next_page_uri"], page
assert good("GET", page["next_page_uri"])["previous_page_uri"]
later = {**service, "ScheduleType": "fixed", "SendAt": config["later"]}
scheduled = good("POST", f"{messages}.json", later)
assert scheduled["status"] == "scheduled", scheduled
assert good("POST", f"{messages}/{scheduled['sid']}.json", {"Status": "canceled"})["status"] == "canceled"
bad(30409, 400, "POST", f"{messages}/{scheduled['sid']}.json", {"Status": "canceled"})
bad(20404, 404, "GET", f"{messages}/SM{'0' * 32}.json")
bad(21604, 400, "POST", f"{messages}.json", {"From": text["From"], "Body": "Hi"})
bad(21211, 400, "POST", f"{messages}.json", {**text, "To": "+1555"})
bad(21266, 400, "POST", f"{messages}.json", {**text, "From": config["to"]})
bad(21619, 400, "POST", f"{messages}.json", {**text, "Body": ""})
bad(21701, 400, "POST", f"{messages}.json", {**service, "MessagingServiceSid": "MG1"})
bad(35111, 400, "POST", f"{messages}.json", {**service, "ScheduleType": "fixed"})
bad(35112, 400, "POST", f"{messages}.json", {**service, "SendAt": config["later"]})
bad(35126, 400, "POST", f"{messages}.json", {**later, "ScheduleType": "daily"})
bad(35114, 400, "POST", f"{messages}.json", {**later, "SendAt": "2001-01-01T00:00:00Z"})
bad(20001, 400, "GET", f"{messages}.json?Colour=red")
# Media, feedback, redaction and deletion. Twilio deletes a message only after it is complete.
bad(20009, 409, "DELETE", f"{messages}/{good('POST', f'{messages}.json', later)['sid']}.json")
for sid in (made["sid"], picture["sid"]):
    deadline = time.monotonic() + 30
    while good("GET", f"{messages}/{sid}.json")["status"] != "delivered":
        assert time.monotonic() < deadline, sid
        time.sleep(0.05)
media = good("GET", f"{messages}/{picture['sid']}/Media.json")["media_list"]
medium = f"{messages}/{picture['sid']}/Media/{media[0]['sid']}.json"
good("GET", medium)
good("DELETE", medium)
bad(20404, 404, "GET", medium)
assert good("GET", f"{messages}/{picture['sid']}/Media.json")["media_list"] == []
assert good("POST", f"{messages}/{made['sid']}/Feedback.json", {"Outcome": "unconfirmed"})["outcome"] == "unconfirmed"
assert good("POST", f"{messages}/{made['sid']}.json", {"Body": ""})["body"] == ""
good("DELETE", f"{messages}/{made['sid']}.json")
for method, form in (("GET", None), ("POST", {"Body": ""}), ("DELETE", None)):
    bad(20404, 404, method, f"{messages}/{made['sid']}.json", form)
bad(20404, 404, "GET", f"{messages}/{made['sid']}/Media.json")
assert good("GET", f"/2010-04-01/Accounts/{config['account']}.json")["status"] == "active"
bad(21654, 400, "POST", f"{messages}.json", {**text, "ContentVariables": "{}"})
bad(20404, 404, "POST", f"{messages}.json", {**text, "To": "+14155559008"})
bad(20003, 401, "POST", f"{messages}.json", {**text, "To": "+14155559009"})
for sender in ("ACME", "89292", "MG" + "0" * 32):
    good("POST", f"{messages}.json", {**text, "From": sender})
# Verify: a code is checked once, by SID or number; a pending verification can be canceled.
verify = f"/v2/Services/{config['service']}"
number = {"To": config["to"], "Channel": "sms"}
started = good("POST", f"{verify}/Verifications", {**number, "Locale": "de"})
assert started["status"] == "pending" and started["send_code_attempts"], started
assert good("GET", f"{verify}/Verifications/{started['sid']}")["sid"] == started["sid"]
with urllib.request.urlopen(config["codes"]) as answer:
    shown = json.load(answer)["verifications"]
code = next(one["code"] for one in shown if one["to"] == config["to"])
wrong = f"{(int(code) + 1) % 1_000_000:06}"
check = f"{verify}/VerificationCheck"
assert good("POST", check, {"VerificationSid": started["sid"], "Code": wrong})["status"] == "pending"
assert good("POST", check, {"To": config["to"], "Code": code})["valid"] is True
bad(20404, 404, "POST", check, {"To": config["to"], "Code": code})
other = good("POST", f"{verify}/Verifications", {"To": "+14155550199", "Channel": "whatsapp"})
canceled = good("POST", f"{verify}/Verifications/{other['sid']}", {"Status": "canceled"})
assert canceled["status"] == "canceled", canceled
bad(60200, 400, "POST", f"{verify}/Verifications", {**number, "Channel": "pigeon"})
bad(60410, 403, "POST", f"{verify}/Verifications", {**number, "To": "+14155559104"})
bad(20404, 404, "POST", f"/v2/Services/VA{'f' * 31}/Verifications", number)
if config["content"]:
    attempts = good("GET", "/v2/Attempts?" + urllib.parse.urlencode({"VerificationSid": started["sid"]}))
    assert attempts["attempts"][0]["conversion_status"] == "converted", attempts
    # The server accepts every parameter that Twilio describes.
    form = specs["api_v2010"]["paths"]["/2010-04-01/Accounts/{AccountSid}/Messages.json"]["post"]["requestBody"]
    for name in form["content"]["application/x-www-form-urlencoded"]["schema"]["properties"]:
        status, body = call("POST", f"{messages}.json", {name: "", **text})
        assert status == 201, (name, body)
    listed = good("GET", "/v1/Content")["contents"]
    good("GET", "/v1/ContentAndApprovals")
    good("GET", f"/v1/Content/{listed[0]['sid']}")
    good("GET", f"/v1/Content/{listed[0]['sid']}/ApprovalRequests")
    bad(20001, 400, "POST", f"{messages}.json", {**text, "Bodi": "x"})
    bad(35118, 400, "POST", f"{messages}.json", {**text, "ScheduleType": "fixed", "SendAt": config["later"]})
    bad(35114, 400, "POST", f"{messages}.json", {**later, "SendAt": config["soon"]})
    bad(20503, 503, "POST", f"{messages}.json", {**text, "To": "+14155559004"})
    bad(20429, 429, "POST", f"{messages}.json", {**text, "To": "+14155559001"})
# Executions of a flow.
executions = f"/v2/Flows/{config['flow']}/Executions"
start = {"To": config["to"], "From": "+14155238886", "Parameters": json.dumps({"text": "Hällo"})}
made = good("POST", executions, start)
deadline = time.monotonic() + 30
while good("GET", f"{executions}/{made['sid']}")["status"] != "ended":
    assert time.monotonic() < deadline, made
    time.sleep(0.05)
assert good("GET", f"{executions}/{made['sid']}/Context")["context"]["flow"]["data"]["text"] == "Hällo"
assert good("POST", f"{executions}/{made['sid']}", {"Status": "ended"})["status"] == "ended"
good("POST", executions, start)
page = good("GET", f"{executions}?" + urllib.parse.urlencode({"PageSize": 1, "DateCreatedFrom": "2026-01-01T00:00:00Z"}))
assert len(page["executions"]) == 1 and page["meta"]["next_page_url"], page
bad(84004, 400, "POST", executions, {**start, "To": "Ada"})
bad(84004, 400, "POST", executions, {**start, "Parameters": "[]"})
bad(20001, 400, "POST", executions, {**start, "Context": "{}"})
bad(20404, 404, "GET", f"{executions}/FN{'0' * 32}")
bad(20404, 404, "POST", "/v2/Flows/FW1/Executions", start)
bad(20404, 404, "POST", executions, {**start, "To": "+14155559008"})
print("judged", len(set(judged)))
