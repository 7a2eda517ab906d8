"""Twilio's Python SDK reads the media of an inbound message from the sidecar that argv[1] describes as JSON. Twilio has
deleted them."""

import json
import sys
import urllib.parse

import requests
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

config = json.loads(sys.argv[1])


class Moved(TwilioHttpClient):
    """The SDK's own client, with only the host exchanged."""

    def request(self, method, url, *arguments, **named):
        parts = urllib.parse.urlsplit(url)
        moved = config["base"] + parts.path + ("?" + parts.query if parts.query else "")
        return super().request(method, moved, *arguments, **named)


client = Client(config["account"], config["token"], http_client=Moved(timeout=20))
message = client.messages(config["message"])

listed = message.media.list()
assert [medium.content_type for medium in listed] == ["image/jpeg", "application/pdf"], listed
assert all(medium.parent_sid == config["message"] and medium.date_created for medium in listed)
assert message.media(listed[1].sid).fetch().content_type == "application/pdf"

# The medium itself: a redirect to our link, as Twilio redirects to its content network.
path = config["base"] + listed[1].uri.removesuffix(".json")
answer = requests.get(path, auth=(config["account"], config["token"]), timeout=20)
assert (answer.status_code, answer.content[:4]) == (200, b"%PDF"), answer.content
assert answer.history[0].status_code == 307 and "sig=" in answer.url, answer.history

assert message.media(listed[1].sid).delete()
assert [medium.sid for medium in message.media.list()] == [listed[0].sid]
try:
    message.media(listed[1].sid).fetch()
    raise AssertionError("it is deleted")
except TwilioRestException as error:
    assert (error.code, error.status) == (20404, 404), error
assert requests.get(answer.url, timeout=20).status_code == 410
print("judged")
