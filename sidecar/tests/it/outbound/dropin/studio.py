"""Twilio's Python SDK with client.studio.v2, pointed at the sidecar that argv[1] describes as JSON."""

import json
import sys
import time
import urllib.parse

from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

config = json.loads(sys.argv[1])
OURS, PERSON = "+14155238886", "+14155550123"


class Moved(TwilioHttpClient):
    """The SDK's own client, with only the host exchanged."""

    def request(self, method, url, params=None, data=None, headers=None, *arguments, **named):
        parts = urllib.parse.urlsplit(url)
        moved = config["base"] + parts.path + ("?" + parts.query if parts.query else "")
        return super().request(method, moved, params, data, headers, *arguments, **named)


client = Client(config["account"], config["token"], http_client=Moved(timeout=20))
by_key = Client(
    config["key"], config["token"].rsplit("_", 1)[1], config["account"], http_client=Moved(timeout=20)
)


def refused(code, status, act):
    try:
        act()
    except TwilioRestException as error:
        assert (error.code, error.status) == (code, status), error
        return
    raise AssertionError(f"{code} expected")


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


for by, text in [(client, "by the account"), (by_key, "by the key")]:
    executions = by.studio.v2.flows(config["flow"]).executions
    made = executions.create(to=PERSON, from_=OURS, parameters={"text": text, "order": 7})
    assert made.sid.startswith("FN") and made.flow_sid == config["flow"], made.sid
    assert made.account_sid == config["account"] and made.contact_channel_address == PERSON
    until(lambda: by.studio.v2.flows(config["flow"]).executions(made.sid).fetch().status == "ended")
    context = by.studio.v2.flows(config["flow"]).executions(made.sid).execution_context().fetch().context
    data = context["flow"]["data"]
    assert (data["text"], data["order"]) == (text, 7), data
    assert data["twilio_edge_id"].startswith("ms_"), data
    assert context["widgets"]["message"]["outbound"]["Sid"].startswith("SM"), context
assert len(executions.list(page_size=1)) == 2
ended = client.studio.v2.flows(config["flow"]).executions(made.sid).update(status="ended")
assert ended.status == "ended"

# A rule of the sidecar is an error of Twilio; nothing is started.
create = client.studio.v2.flows(config["flow"]).executions.create
refused(21610, 400, lambda: create(to=config["stopped"], from_=OURS))
refused(63016, 400, lambda: create(to=f"whatsapp:{PERSON}", from_=f"whatsapp:{OURS}"))
refused(84004, 400, lambda: create(to="Ada", from_=OURS))
refused(20404, 404, lambda: client.studio.v2.flows(config["flow"]).executions("FN" + "0" * 32).fetch())
refused(20404, 404, lambda: client.studio.v2.flows("FW1").executions.create(to=PERSON, from_=OURS))
stranger = Client(config["other"], config["token"], http_client=Moved(timeout=20))
refused(20003, 403, lambda: stranger.studio.v2.flows(config["flow"]).executions.create(to=PERSON, from_=OURS))
assert len(executions.list()) == 2
print("judged")
