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

SIMULATOR, PORT = sys.argv[1], int(sys.argv[2])
SID, TOKEN = "AC00112233445566778899aabbccddeeff", "0123456789abcdef0123456789abcdef"
HOOKS = f"http://127.0.0.1:{PORT}"
received, lock = [], threading.Lock()


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = dict(urllib.parse.parse_qsl(body, keep_blank_values=True))
        signature = self.headers["X-Twilio-Signature"]
        valid = RequestValidator(TOKEN).validate(HOOKS + self.path, form, signature)
        with lock:
            received.append((self.path, form, valid, self.headers["I-Twilio-Idempotency-Token"]))
        self.send_response(500 if form.get("Body") == "fail" and self.path == "/inbound" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

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
assert reply("STOP")["delivered"]
refused(21610, send)
reply("start")
send()
failed = reply("fail")
assert failed["calls"] == [{"status": 500}, {"status": 500}, {"status": 200}], failed
with lock:
    fallback = [form for path, form, _, _ in received if path == "/fallback"]
assert fallback[0]["ErrorCode"] == "11200" and fallback[0]["MessageSid"] == failed["sid"]

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
for suffix, want in [("9013", ["sent", "undelivered"]), ("9020", ["delivered"] * 2 + ["sent"] * 2)]:
    sent = send(to=f"+1415555{suffix}", status_callback=f"{HOOKS}/status")
    until(lambda: sorted(statuses(sent.sid)) == want)

with lock:
    assert all(valid and token for _, _, valid, token in received), received
print("judged")
