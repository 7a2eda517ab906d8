"""Twilio's Python SDK against the simulator at argv[1]; webhooks come to port argv[2] and are verified."""

import http.client
import http.server
import json
import sys
import threading
import time
import urllib.parse
import urllib.request

from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.request_validator import RequestValidator
from twilio.rest import Client
from twilio.twiml.messaging_response import MessagingResponse

SIMULATOR, PORT = sys.argv[1], int(sys.argv[2])
SID, TOKEN = "AC00112233445566778899aabbccddeeff", "0123456789abcdef0123456789abcdef"
HOOKS = f"http://127.0.0.1:{PORT}"
received, lock = [], threading.Lock()


def replied(text=None, redirect=None, **attributes):
    """TwiML of Twilio's own library."""
    response = MessagingResponse()
    if text is not None:
        response.message(text, **attributes)
    if redirect is not None:
        response.redirect(redirect, method="GET")
    return str(response)


# Answers to inbound messages, by text and path: status, content type, body.
XML = "text/xml; charset=utf-8"
ANSWERS = {
    ("fail", "/inbound"): (500, None, ""),
    ("price?", "/inbound"): (200, XML, replied("<3 & more", "next?step=2", status_callback="/status")),
    ("price?", "/next"): (200, XML, replied("two")),
    ("loop", "/inbound"): (200, XML, replied(redirect="/inbound")),
    ("json", "/inbound"): (200, "application/json", '{"ok": true}'),
    ("json", "/fallback"): (200, "text/plain", "from the fallback"),
    ("STOP", "/inbound"): (200, XML, replied("Bye")),
}


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.answer(dict(urllib.parse.parse_qsl(body, keep_blank_values=True)), signed_form=True)

    def do_GET(self):
        query = urllib.parse.urlsplit(self.path).query
        self.answer(dict(urllib.parse.parse_qsl(query, keep_blank_values=True)), signed_form=False)

    def answer(self, form, signed_form):
        signature = self.headers["X-Twilio-Signature"]
        signed = form if signed_form else {}
        valid = RequestValidator(TOKEN).validate(HOOKS + self.path, signed, signature)
        with lock:
            received.append((self.path, form, valid, self.headers["I-Twilio-Idempotency-Token"]))
        key = (form.get("Body"), urllib.parse.urlsplit(self.path).path)
        status, content_type, body = ANSWERS.get(key, (200, None, ""))
        body = body.encode()
        self.send_response(status)
        if content_type:
            self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Moved(TwilioHttpClient):
    """HTTP client of the SDK that replaces only the host."""

    def request(self, method, url, *arguments, **named):
        parts = urllib.parse.urlsplit(url)
        moved = SIMULATOR + parts.path + ("?" + parts.query if parts.query else "")
        return super().request(method, moved, *arguments, **named)


server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = Client(SID, TOKEN, http_client=Moved(timeout=10))


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, received
        time.sleep(0.02)


def statuses(sid):
    with lock:
        return [form["MessageStatus"] for _, form, _, _ in received if form.get("MessageSid") == sid]


def send(to="+14155550123", sender="+14155238886", body="Hello", **more):
    return client.messages.create(to=to, from_=sender, body=body, **more)


def refused(code, act):
    try:
        act()
    except TwilioRestException as error:
        assert error.code == code, error
        return error
    raise AssertionError(f"{code} expected")


def reply(body, sender="+14155550123", to="+14155238886"):
    given = json.dumps({"from": sender, "to": to, "body": body}).encode()
    with urllib.request.urlopen(f"{SIMULATOR}/simulator/inbound", given) as answer:
        return json.load(answer)


# Creates messages, receives their status callbacks, fetches and lists them.
sms = send(status_callback=f"{HOOKS}/status?a=b%20c")
assert sms.status == "queued" and sms.sid.startswith("SM") and sms.num_segments == "1", sms
until(lambda: sorted(statuses(sms.sid)) == ["delivered", "sent"])
fetched = client.messages(sms.sid).fetch()
assert fetched.status == "delivered" and fetched.date_sent is not None
for number in range(5):
    send(to="+14155550199", body=str(number))
listed = client.messages.list(to="+14155550199", page_size=2)
assert [message.body for message in listed] == ["4", "3", "2", "1", "0"], listed
picture = client.messages.create(
    to="+14155550123", from_="+14155238886", media_url=["https://example.com/a.png"]
)
(medium,) = client.messages(picture.sid).media.list()
assert medium.content_type == "image/png"

# WhatsApp accepts only templates outside of the window.
whatsapp = {"to": "whatsapp:+14155550123", "sender": "whatsapp:+14155238886"}
closed = send(**whatsapp, status_callback=f"{HOOKS}/status")
until(lambda: statuses(closed.sid) == ["failed"])
assert client.messages(closed.sid).fetch().error_code == 63016
contents = client.content.v1.contents.list()
(content,) = (one for one in contents if (one.friendly_name, one.language) == ("shipping_update", "en_US"))
template = client.messages.create(
    to=whatsapp["to"], messaging_service_sid="MG" + "0" * 32, content_sid=content.sid,
    content_variables=json.dumps({"1": "Ada", "2": "7"}), status_callback=f"{HOOKS}/status",
)
until(lambda: sorted(statuses(template.sid)) == ["delivered", "queued", "read", "sent"])
assert reply("Hi", whatsapp["to"], whatsapp["sender"])["delivered"]
opened = send(**whatsapp, status_callback=f"{HOOKS}/status")
until(lambda: "read" in statuses(opened.sid))

# Contacts reply. A STOP is in effect until a START.
stopped = reply("STOP")
assert stopped["delivered"] and stopped["replies"] == [{"code": 21610}], stopped
refused(21610, send)
reply("start")
send()
failed = reply("fail")
assert failed["calls"] == [{"status": 500}, {"status": 500}, {"status": 200}], failed
with lock:
    fallback = [form for path, form, _, _ in received if path == "/fallback"]
assert fallback[0]["ErrorCode"] == "11200" and fallback[0]["MessageSid"] == failed["sid"]

# TwiML in the answers sends replies and redirects.
priced = reply("price?")
assert priced["calls"] == [{"status": 200}] * 2 and priced["error_code"] is None, priced
first, second = [client.messages(one["sid"]).fetch() for one in priced["replies"]]
assert (first.body, second.body) == ("<3 & more", "two")
assert (first.direction, first.from_, first.to) == ("outbound-reply", "+14155238886", "+14155550123")
until(lambda: sorted(statuses(first.sid)) == ["delivered", "sent"])
looped = reply("loop")
assert not looped["delivered"] and looped["error_code"] == 11215 and len(looped["calls"]) == 12, looped
odd = reply("json")
assert odd["delivered"] and client.messages(odd["replies"][0]["sid"]).fetch().body == "from the fallback"
with lock:
    fallback = [form for path, form, _, _ in received if path == "/fallback" and form["Body"] == "json"]
assert fallback[0]["ErrorCode"] == "12300" and fallback[0]["ErrorUrl"] == f"{HOOKS}/inbound", fallback

# Refusals and failures that the number of the recipient selects.
refused(20404, lambda: client.messages("SM" + "0" * 32).fetch())
refused(20003, lambda: Client(SID, "wrong", http_client=Moved(timeout=10)).messages(sms.sid).fetch())
assert refused(20429, lambda: send(to="+14155559001")).status == 429
refused(21211, lambda: send(to="+14155559002"))
refused(20500, lambda: send(to="+14155559005"))
assert len(client.messages.list(to="+14155559005")) == 1
parts = urllib.parse.urlsplit(SIMULATOR)
try:
    send(to="+14155559007")
    raise AssertionError("the connection was not closed")
except TwilioRestException:
    raise
except OSError:
    pass
assert client.messages.list(to="+14155559007") == []
for suffix, code in [("9324", 63024), ("9349", 63049)]:
    failed = send(to=f"whatsapp:+1415555{suffix}", sender=whatsapp["sender"])
    until(lambda: client.messages(failed.sid).fetch().status == "failed")
    assert client.messages(failed.sid).fetch().error_code == code
for suffix, want in [("9017", ["sent", "undelivered"]), ("9013", ["sent", "undelivered"]), ("9020", ["delivered"] * 2 + ["sent"] * 2)]:
    sent = send(to=f"+1415555{suffix}", status_callback=f"{HOOKS}/status")
    until(lambda: sorted(statuses(sent.sid)) == want)

with lock:
    assert all(valid and token for _, _, valid, token in received), received
print("judged")
