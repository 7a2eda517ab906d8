"""Twilio's Python SDK, pointed at the sidecar that argv[1] describes as JSON."""

import datetime
import json
import sys
import time
import urllib.parse
import urllib.request

from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

config = json.loads(sys.argv[1])
OURS, PERSON = "+14155238886", "+14155550123"


class Moved(TwilioHttpClient):
    """The SDK's own client, with only the host exchanged."""

    def __init__(self, **headers):
        super().__init__(timeout=20)
        self.headers = headers

    def request(self, method, url, params=None, data=None, headers=None, *arguments, **named):
        parts = urllib.parse.urlsplit(url)
        moved = config["base"] + parts.path + ("?" + parts.query if parts.query else "")
        headers = {**(headers or {}), **self.headers}
        return super().request(method, moved, params, data, headers, *arguments, **named)


client = Client(config["account"], config["token"], http_client=Moved())
by_key = Client(config["key"], config["token"].rsplit("_", 1)[1], config["account"], http_client=Moved())


def send(to=PERSON, sender=OURS, body="Hello", by=client, **more):
    return by.messages.create(to=to, from_=sender, body=body, **more)


def refused(code, status, act):
    try:
        act()
    except TwilioRestException as error:
        assert (error.code, error.status) == (code, status), error
        return error
    raise AssertionError(f"{code} expected")


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# A message has Twilio's own SID, and both kinds of client can fetch it.
made = send(body="Ünï & 😀+", validity_period=600)
assert made.sid.startswith("SM") and made.status == "queued" and made.body == "Ünï & 😀+", made.body
assert (made.to, made.from_, made.num_segments, made.num_media) == (PERSON, OURS, "1", "0")
assert made.direction == "outbound-api" and made.account_sid == config["account"]
assert made.date_created.tzinfo and made.date_sent is None and made.error_code is None
assert made.uri.endswith(f"/Messages/{made.sid}.json")
until(lambda: by_key.messages(made.sid).fetch().status == "delivered")
fetched = made.fetch()
assert fetched.sid == made.sid and fetched.date_sent and fetched.body == made.body

# Messages through a Messaging Service, with a medium, and from a template.
service = client.messages.create(
    to=PERSON, messaging_service_sid="MG" + "0" * 32, body="Hi", media_url=["https://example.com/a.png"]
)
assert service.status == "accepted" and service.from_ is None and service.sid.startswith("MM")
template = client.messages.create(
    to=config["agreed"], from_="whatsapp:" + OURS, content_sid="HX00112233445566778899aabbccddeeff",
    content_variables=json.dumps({"1": "Ada", "2": "7"}),
)
assert client.messages(template.sid).fetch().body == "Hello Ada, your order 7 is on its way."
marketing = Client(config["account"], config["token"], http_client=Moved(**{"Twilio-Edge-Category": "marketing"}))
refused(21610, 400, lambda: marketing.messages.create(
    to=config["agreed"], from_="whatsapp:" + OURS, content_sid="HX00112233445566778899aabbccddeeff",
    content_variables=json.dumps({"1": "Ada", "2": "7"}),
))
# Checks of the template catalogue.
refused(21656, 400, lambda: client.messages.create(
    to=config["agreed"], from_="whatsapp:" + OURS, content_sid="HX00112233445566778899aabbccddeeff",
    content_variables=json.dumps({"1": "Ada"}),
))
refused(63040, 400, lambda: client.messages.create(
    to=config["agreed"], from_="whatsapp:" + OURS, content_sid="HX00112233445566778899aabbccddee04",
    content_variables=json.dumps({"1": "Ada"}),
))

# Lists of messages, page by page, and filtered by sender, recipient and date.
for number in range(5):
    send(to="+14155550199", body=str(number))
listed = client.messages.list(to="+14155550199", page_size=2)
assert [message.body for message in listed] == ["4", "3", "2", "1", "0"], listed
assert len(client.messages.list(to="+14155550199", limit=3, page_size=2)) == 3
page = client.messages.page(to="+14155550199", page_size=2)
following = page.next_page()
assert [message.body for message in following] == ["2", "1"]
today = datetime.datetime.now(datetime.timezone.utc).date()
assert len(client.messages.list(from_=OURS, to="+14155550199", date_sent=today)) == 5
assert client.messages.list(to="+14155550199", date_sent_before=today - datetime.timedelta(days=1)) == []
assert len(client.messages.list(to="+14155550199", date_sent_after=today)) == 5

# Refusals by our rules and by Twilio have Twilio's error codes.
stopped = refused(21610, 400, lambda: send(to=config["stopped"]))
assert "suppressed" in stopped.msg and stopped.details == {"code": "suppressed", "actor": "caller"}
refused(63016, 400, lambda: send(to="whatsapp:" + PERSON, sender="whatsapp:" + OURS))
refused(21211, 400, lambda: send(to="+1555"))
refused(21211, 400, lambda: send(to="+14155559002"))
refused(21610, 400, lambda: send(to="+14155559003"))
refused(21619, 400, lambda: send(body=None))
refused(21617, 400, lambda: send(body="x" * 1601))
refused(21603, 400, lambda: send(sender=None))
refused(21910, 400, lambda: send(sender="whatsapp:" + OURS))
refused(20404, 404, lambda: client.messages("SM" + "0" * 32).fetch())
refused(20003, 401, lambda: send(by=Client(config["account"], "wrong", http_client=Moved())))
other = Client(config["account"], config["token"], config["other"], http_client=Moved())
refused(20003, 401, lambda: send(by=other))

# Twilio is overloaded: the sidecar accepts the message and queues it under a SID of its own.
waiting = send(to="+14155559001")
assert waiting.status == "queued" and waiting.fetch().sid == waiting.sid
until(lambda: [one.sid for one in client.messages.list(to="+14155559001")] == [waiting.sid])
# The outcome at Twilio is unknown: the message has a SID of ours until the reconciler finds Twilio's SID.
unknown = send(to="+14155559005", body="once")
assert unknown.status == "queued"
until(lambda: client.messages(unknown.sid).fetch().sid != unknown.sid)
assert len(client.messages.list(to="+14155559005")) == 1

# Scheduled messages, and their cancelation.
later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
scheduled = send(schedule_type="fixed", send_at=later)
assert scheduled.status == "scheduled" and scheduled.fetch().status == "scheduled"
# Scheduled messages are listed first, each of them once, for every page size.
waiting = [send(schedule_type="fixed", send_at=later, to="+14155550199", body=f"later {n}") for n in range(3)]
bodies = ["later 2", "later 1", "later 0", "4", "3", "2", "1", "0"]
for size in (1, 2, 3, 50):
    listed = client.messages.list(to="+14155550199", from_=OURS, page_size=size)
    assert [message.body for message in listed] == bodies, (size, [message.body for message in listed])
assert [message.status for message in client.messages.list(to="+14155550199", limit=4)].count("scheduled") == 3
assert len(client.messages.list(to="+14155550199", date_sent_after=today)) == 5
assert client.messages.list(to="+14155550199", from_="+14155238887") == []
assert scheduled.update(status="canceled").status == "canceled"
refused(30409, 400, lambda: client.messages(made.sid).update(status="canceled"))
refused(35114, 400, lambda: send(schedule_type="fixed", send_at=later - datetime.timedelta(days=1)))
refused(35111, 400, lambda: send(schedule_type="fixed"))

# The same request twice is one message.
twice = Client(config["account"], config["token"], http_client=Moved(**{"Idempotency-Key": "py-1"}))
first, copy = send(by=twice, body="just once"), send(by=twice, body="just once")
assert first.sid == copy.sid and copy.status == "queued"
assert len([one for one in client.messages.list(to=PERSON) if one.body == "just once"]) == 1
# Media and feedback at Twilio; redaction and deletion of messages at Twilio and of messages that wait in the sidecar.
until(lambda: client.messages(service.sid).fetch().status == "delivered")
[medium] = client.messages(service.sid).media.list()
assert client.messages(service.sid).media(medium.sid).fetch().content_type == "image/png"
assert client.messages(service.sid).media(medium.sid).delete()
assert client.messages(service.sid).media.list() == []
refused(20404, 404, lambda: client.messages(service.sid).media(medium.sid).fetch())
assert client.messages(made.sid).feedback.create(outcome="confirmed").outcome == "confirmed"
redacted = client.messages(made.sid).update(body="")
assert redacted.body == "" and made.fetch().body == "" and redacted.sid == made.sid
assert client.messages(made.sid).delete()
refused(20404, 404, made.fetch)
refused(20404, 404, lambda: client.messages(made.sid).delete())
refused(20404, 404, lambda: client.messages("SM" + "0" * 32).feedback.create())
waiting = send(schedule_type="fixed", send_at=later, media_url=["https://example.com/a.png"])
assert client.messages(waiting.sid).media.list() == []
refused(20404, 404, lambda: client.messages(waiting.sid).feedback.create())
refused(20009, 409, lambda: client.messages(waiting.sid).delete())
refused(20009, 409, lambda: client.messages(waiting.sid).update(body=""))
assert client.messages(waiting.sid).update(status="canceled").status == "canceled"
assert client.messages(waiting.sid).delete()
refused(20404, 404, lambda: client.messages(waiting.sid).fetch())
refused(30400, 400, lambda: client.messages(service.sid).update(body="another text"))
account = client.api.accounts(config["account"]).fetch()
assert account.sid == config["account"] and account.status == "active" and account.auth_token is None
refused(20003, 401, lambda: client.api.accounts(config["other"]).fetch())
refused(20404, 404, client.calls("CA" + "0" * 32).fetch)
assert "call Twilio" in refused(20004, 405, lambda: client.api.accounts(config["account"]).update(friendly_name="x")).msg

# Senders and contents that Twilio accepts or refuses.
assert send(sender="MG" + "0" * 32).messaging_service_sid == "MG" + "0" * 32
assert send(to="+447400123456", sender="ACME").from_ == "ACME"
assert send(sender="89292").from_ == "89292"
refused(21212, 400, lambda: send(to="whatsapp:" + PERSON, sender="whatsapp:ACME"))
refused(21910, 400, lambda: send(to="whatsapp:" + PERSON, sender="ACME"))
assert send(media_url=["http://example.com/a.png"]).num_media == "1"


def filled(variables, **more):
    return client.messages.create(
        to=config["agreed"], from_="whatsapp:" + OURS, content_sid="HX00112233445566778899aabbccddeeff",
        content_variables=variables, **more,
    )


superseded = filled('{"1":"Ada","2":19.90}', body="Your Message", media_url=["https://example.com/a.png"])
assert client.messages(superseded.sid).fetch().body == "Hello Ada, your order 19.90 is on its way."
assert '"2" is null' in refused(21656, 400, lambda: filled('{"1":"Ada","2":null}')).msg
refused(21656, 400, lambda: filled('{"1":["Ada"],"2":"7"}'))
refused(21654, 400, lambda: send(content_variables='{"1":"Ada"}'))
refused(21623, 400, lambda: send(media_url=["https://example.com/a.png"] * 11))

# Twilio's own status, with its code.
refused(20404, 404, lambda: send(to="+14155559008"))
refused(20003, 401, lambda: send(to="+14155559009"))


def code_of(number):
    with urllib.request.urlopen(config["codes"]) as shown:
        return next(one["code"] for one in json.load(shown)["verifications"] if one["to"] == number)


# Verify: a code is checked by SID or by number, and is right once.
verify = client.verify.v2.services(config["service"])
started = verify.verifications.create(to=PERSON, channel="sms", locale="de", tags='{"login": "7"}')
assert started.sid.startswith("VE") and (started.status, started.channel) == ("pending", "sms"), started.status
assert (started.to, started.account_sid, started.valid) == (PERSON, config["account"], False)
assert by_key.verify.v2.services(config["service"]).verifications(started.sid).fetch().status == "pending"
code = code_of(PERSON)
wrong = f"{(int(code) + 1) % 1_000_000:06}"
assert verify.verification_checks.create(code=wrong, verification_sid=started.sid).status == "pending"
checked = verify.verification_checks.create(code=code, to=PERSON)
assert (checked.status, checked.valid, checked.sid) == ("approved", True, started.sid)
refused(20404, 404, lambda: verify.verification_checks.create(code=code, to=PERSON))
assert verify.verifications(started.sid).fetch().status == "approved"

# WhatsApp is not configured, so the code is an SMS. A pending verification can be canceled.
switched = verify.verifications.create(to="+14155559111", channel="auto")
assert switched.status == "pending", switched.status
until(lambda: verify.verifications(switched.sid).fetch().channel == "sms")
assert verify.verifications(switched.sid).update(status="canceled").status == "canceled"
refused(21610, 400, lambda: verify.verifications.create(to=config["stopped"], channel="sms"))
refused(60200, 400, lambda: verify.verifications.create(to=PERSON, channel="sms", custom_code="123456"))
refused(60200, 400, lambda: verify.verifications.create(to=PERSON, channel="call"))
refused(60410, 403, lambda: verify.verifications.create(to="+14155559104", channel="sms"))
unknown = client.verify.v2.services("VA" + "f" * 32)
refused(20404, 404, lambda: unknown.verifications.create(to=PERSON, channel="sms"))
print("judged")
