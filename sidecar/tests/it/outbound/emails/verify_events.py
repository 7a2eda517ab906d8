"""Judges a post of events with SendGrid's own library: prints True if the signature is valid."""

import json
import sys

from sendgrid.helpers.eventwebhook import EventWebhook

post = json.load(sys.stdin)
judge = EventWebhook(post["key"])
print(judge.verify_signature(post["body"], post["signature"], post["timestamp"]))
