"""Deliveries as an application in Python gets them: each is held against the official Standard Webhooks library with each
secret, unchanged and changed, and its event against the schema. Reads what came from stdin, answers on stdout."""

import json
import sys

from jsonschema import Draft202012Validator, FormatChecker
from standardwebhooks import Webhook, WebhookVerificationError


def verifies(secret, body, headers):
    try:
        Webhook(secret).verify(body, headers)
        return True
    except WebhookVerificationError:
        return False


def tried(secret, body, headers):
    stale = str(int(headers["webhook-timestamp"]) - 3600)
    return {
        "whole": verifies(secret, body, headers),
        "body": verifies(secret, body[:-1] + " ", headers),
        "id": verifies(secret, body, {**headers, "webhook-id": headers["webhook-id"] + "x"}),
        "time": verifies(secret, body, {**headers, "webhook-timestamp": stale}),
    }


asked = json.load(sys.stdin)
Draft202012Validator.check_schema(asked["schema"])
schema = Draft202012Validator(asked["schema"], format_checker=FormatChecker(["date-time"]))
answers = []
for delivery in asked["deliveries"]:
    body, headers = delivery["body"], delivery["headers"]
    problems = [error.message for error in schema.iter_errors(json.loads(body))]
    known = set(asked["schema"]["properties"])
    unknown = sorted(set(json.loads(body)) - known)
    answers.append({
        "signed": [tried(secret, body, headers) for secret in asked["secrets"]],
        "problems": problems + [f"{name} is not in the schema" for name in unknown],
    })
json.dump(answers, sys.stdout)
