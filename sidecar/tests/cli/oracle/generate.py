"""Invents webhooks, has Twilio's own SDKs judge them, and prints those on which the SDKs agree.

    generate.py --seed 7 --count 1000 --node-modules DIR > vectors.jsonl

Requests are signed with the Python SDK (PyPI `twilio`), then kept unchanged, re-encoded or tampered with, then
judged by the Python SDK and by the Node SDK (npm `twilio`, in DIR), each behind the body parsing of its
usual framework. What the two disagree about proves nothing and is dropped: a body with its type missing, the
order of astral characters, Node's second chance for a re-encoded query. So is a rejection of a URL that
Python's urllib prints differently than it was (a bare `?`, HTTPS in capitals, the port of an IPv6 literal or
after userinfo): there Python rejects what is Twilio's, and Node's rejection can have another cause. An
exception is a rejection: the framework answers 500.

The same seed prints the same bytes. Counts go to standard error.
"""

import argparse
import base64
import functools
import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qsl, quote, quote_plus, urlparse

from twilio.request_validator import RequestValidator, remove_port

FORM = "application/x-www-form-urlencoded"
BATCH = 500  # requests invented before they are judged; their verdicts fit into a pipe
MAX_PARAMETERS = 1000  # body-parser's parameterLimit and Django's DATA_UPLOAD_MAX_NUMBER_FIELDS

SCRIPTS = [
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
    " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "äöüßéèçñøåÆŁžŵ¡¿€£",
    "привет мир",
    "你好世界，订单",
    "مرحبا بالعالم",
    "สวัสดี नमस्ते",
    "😀👩‍👩‍👧👍🏽🏳️‍🌈",
    "\t\r\n\x00\x01\x7f",
    "\ufeff\ufffd\ufffe\uff21\u200b\u2028\u0301",
]


class Parameters(list):
    """Ordered pairs, read the way Flask's MultiDict and Django's QueryDict are."""

    def __init__(self, pairs):
        super().__init__(pairs)
        self.values = {}
        for name, value in pairs:
            self.values.setdefault(name, []).append(value)

    def __iter__(self):
        return (name for name, _ in super().__iter__())

    def getlist(self, name):
        return self.values.get(name, [])


class Inventor:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def chance(self, probability):
        return self.random.random() < probability

    def pick(self, choices):
        return self.random.choice(choices)

    def hexadecimal(self, digits):
        return f"{self.random.getrandbits(4 * digits):0{digits}x}"

    def text(self, longest):
        scripts = self.random.sample(SCRIPTS, self.random.randint(1, 3))
        length = self.random.randint(0, longest)
        # Each script as often as the others, however many characters it has.
        weights = [1 / len(script) for script in scripts for _ in script]
        text = "".join(self.random.choices("".join(scripts), weights, k=length))
        if self.chance(0.1):
            text = self.pick([" ", "  ", "\n", "\r\n", "\t"]) + text + self.pick([" ", "\n", ""])
        return text

    def phone(self, channel):
        number = "+" + str(self.random.randint(10**9, 10**13))
        return number if channel == "sms" else f"{channel}:{number}"

    # The request.

    def url(self):
        scheme = self.pick(["https"] * 12 + ["http"] * 4 + ["HTTPS"])
        host = self.pick(
            ["hooks.example.com"] * 6
            + ["Hooks.Example.COM", "localhost", "127.0.0.1", "xn--bcher-kva.example", "a.b.c.d.example"]
            + ["hooks.example.com.", "under_score.example", "[::1]", "[2001:db8::7]"]
        )
        userinfo = self.pick([""] * 30 + ["user:pass@", "user@", "u%40x:p%3Aq@"])
        port = self.pick([""] * 8 + [":443", ":80", ":8443", ":8080", ":0443", f":{self.random.randint(1, 65535)}"])
        return f"{scheme}://{userinfo}{host}{port}{self.path()}{self.query()}"

    def path(self):
        segments = ["twilio", "inbound", "status", "v1", "a b".replace(" ", "%20"), "caf%C3%A9", "caf%c3%a9"]
        segments += ["a%2Fb", "a%2fb", "%7Euser", "~user", "it's", "(x)", "a+b", "a:b", "a@b", "a,b;c=d", "$1", "!*"]
        segments += ["", ".", "..", "%2e%2e", "%", "%zz", "index.php", "é", "日本", "x" * 200]
        path = "".join("/" + self.pick(segments) for _ in range(self.random.randint(0, 4)))
        return path + self.pick(["", "", "", "/", "//"])

    def query(self):
        if self.chance(0.55):
            return ""
        pairs = ["a=1", "b=2", "a=0", "foo", "foo=", "=bar", "x=y=z", "tenant=acme%20inc", "tenant=acme+inc"]
        pairs += ["q=%C3%A9", "q=%c3%a9", "q=it's", "q=it%27s", "next=https://h.example/x?y=1", "next=a%26b", "p=a:b@c"]
        pairs += ["list[]=1", "m[k]=v", "semi=1;2", "pct=%", "pct=%zz", "%61=1", "body=sha", "tilde=~", "sp=a%20b+c", ""]
        pairs += [f"n={self.random.randint(0, 10**6)}", "long=" + "y" * self.random.randint(1, 300), "é=ü", "e=😀"]
        return "?" + "&".join(self.pick(pairs) for _ in range(self.random.randint(0, 5)))

    def message(self):
        channel = self.pick(["whatsapp", "whatsapp", "sms", "messenger"])
        sid = self.pick(["SM", "MM"]) + self.hexadecimal(32)
        pairs = [("MessageSid", sid), ("SmsSid", sid), ("AccountSid", "AC" + self.hexadecimal(32))]
        pairs += [("From", self.phone(channel)), ("To", self.phone(channel)), ("ApiVersion", "2010-04-01")]
        if self.chance(0.3):
            status = self.pick(["queued", "sent", "delivered", "read", "failed", "undelivered"])
            pairs += [("MessageStatus", status), ("SmsStatus", status), ("ChannelPrefix", channel)]
            if status in ("failed", "undelivered"):
                pairs += [("ErrorCode", self.pick(["30003", "63016"])), ("ErrorMessage", "")]
        else:
            media = self.pick([0, 0, 0, 1, 2, 11])
            body = self.pick(["STOP", "Where is my order?", "", self.text(160), self.text(1600)])
            pairs += [("Body", body), ("NumMedia", str(media)), ("NumSegments", "1"), ("SmsMessageSid", sid)]
            pairs += [("SmsStatus", "received"), ("ProfileName", self.text(20)), ("WaId", str(self.random.randint(0, 10**12)))]
            for index in range(media):
                pairs += [(f"MediaUrl{index}", f"https://api.twilio.com/Media/ME{self.hexadecimal(32)}")]
                pairs += [(f"MediaContentType{index}", self.pick(["image/jpeg", "audio/ogg; codecs=opus"]))]
            if channel == "sms":
                pairs += [(f"{end}{what}", self.pick(["", "", "CA", "SAN FRANCISCO"])) for end in ("From", "To") for what in ("City", "State", "Zip", "Country")]
        self.random.shuffle(pairs)
        return pairs

    def parameters(self):
        if self.chance(0.6):
            return self.message()
        if self.chance(0.01):
            return [(self.pick(["p", "q"]) + str(index), "") for index in range(self.pick([999, 1000, 1001, 1200]))]
        names = ["a", "A", "ab", "B", "a1", "a10", "a2", "__proto__", "toString", "length", "0", "10", "9", ""]
        pairs = []
        for _ in range(self.random.randint(0, 14)):
            name = self.pick(names) if self.chance(0.6) else self.text(12)
            longest = self.pick([3, 12, 60, 300]) if self.chance(0.98) else 12000
            pairs.append((name, self.text(longest)))
            if self.chance(0.15):
                pairs.append((name, self.pick(["", "0", "1", "10", "2", pairs[-1][1], self.text(5)])))
        self.random.shuffle(pairs)
        return pairs

    # How it is written.

    def encode(self, pairs, style):
        if style == "mixed":
            encode = self.encode_mixed
        else:
            encode = {
                "twilio": quote_plus,
                "percent-20": lambda text: quote(text, safe=""),
                "lower-hex": lambda text: lower_escapes(quote_plus(text)),
                "reserved-raw": lambda text: quote_plus(text, safe="!\"#$'()*,-./:;<>?@[\\]^_`{|}~"),
            }[style]
        body = "&".join(f"{encode(name)}={encode(value)}" for name, value in pairs)
        if style == "mixed":
            body = self.pick(["", "", "&", "&&"]) + body + self.pick(["", "", "&"])
            body = body.replace("=&", self.pick(["=&", "&"]))
        return body.encode()

    def encode_mixed(self, text):
        out = []
        for character in text:
            if character == " ":
                out.append(self.pick(["+", "%20"]))
            elif character in "%&=+\x00" or self.chance(0.3):
                escaped = "".join(f"%{byte:02X}" for byte in character.encode())
                out.append(escaped if self.chance(0.5) else escaped.lower())
            elif self.chance(0.02):
                out.append(character + self.pick(["%", "%4", "%zz", "%u00e9", "%FF", "%C3", "%E2%82"]))
            else:
                out.append(character)
        return "".join(out)

    def content_type(self):
        return self.pick(
            [f"{FORM}; charset=utf-8"] * 6
            + [FORM] * 3
            + [FORM.title() + "; Charset=UTF-8", f"{FORM};charset=utf-8", f"{FORM} ; charset=UTF-8", f"{FORM};"]
        )

    def token(self):
        return self.hexadecimal(32) if self.chance(0.97) else self.pick(["12345", "", "pässwörd", self.hexadecimal(90)])


def lower_escapes(text):
    parts = text.split("%")
    return parts[0] + "".join("%" + part[:2].lower() + part[2:] for part in parts[1:])


def split_port(url):
    """(before the port, port with its colon or empty, after it): right for userinfo and IPv6 too."""
    start = url.index("://") + 3
    end = min((index for index in (url.find(mark, start) for mark in "/?#") if index >= 0), default=len(url))
    host = start + url[start:end].rfind("@") + 1
    colon = url.rfind(":", max(host, url.rfind("]", host, end)), end)
    return (url[:colon], url[colon:end], url[end:]) if colon >= 0 else (url[:end], "", url[end:])


def port_variants(url):
    before, port, after = split_port(url)
    default = ":443" if url.lower().startswith("https:") else ":80"
    return [before + after, before + (port or default) + after]


# What Python makes of a request.


def media_type(request):
    value = header(request, "content-type")
    return value.split(";")[0].strip().lower() if value is not None else None


def header(request, name):
    return next((value for have, value in request["headers"].items() if have.lower() == name), None)


@functools.lru_cache(maxsize=2 * BATCH)  # each body is read to sign it, to tamper with it, and to judge it
def parsed_form(body):
    return Parameters(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def signed_part(request):
    """What the SDK is handed besides the URL: parameters of a form, or else the body's text."""
    if request["method"] in ("GET", "HEAD"):
        return {}
    if media_type(request) == FORM:
        return parsed_form(request["body"])
    return request["body"].decode()


def python_accepts(request):
    try:
        part = signed_part(request)
        if len(part) > MAX_PARAMETERS and isinstance(part, Parameters):
            return False
        signature = header(request, "x-twilio-signature") or ""
        return RequestValidator(request["token"]).validate(request["url"], part, signature)
    except (TypeError, ValueError):
        return False


def python_misreads(url):
    try:
        parsed = urlparse(url)
        return parsed.geturl() != url or remove_port(parsed) != port_variants(url)[0]
    except ValueError:
        return True


# Making one vector.


def sign(request, url=None, token=None):
    part = signed_part(request)
    validator = RequestValidator(request["token"] if token is None else token)
    return validator.compute_signature(url or request["url"], part if isinstance(part, Parameters) else {})


def invent(inventor):
    """A request as Twilio might send it, signed."""
    kind = inventor.pick(["form"] * 16 + ["get"] * 2 + ["json"] * 4 + ["empty"])
    request = {"token": inventor.token(), "url": inventor.url(), "method": "POST", "headers": {}, "body": b""}
    note = kind
    if kind == "form":
        style = inventor.pick(["twilio"] * 4 + ["percent-20", "lower-hex", "reserved-raw"] + ["mixed"] * 3)
        request["body"] = inventor.encode(inventor.parameters(), style)
        request["headers"]["Content-Type"] = inventor.content_type()
        request["method"] = inventor.pick(["POST"] * 12 + ["PUT", "PATCH"])
        note = f"form, {style}"
    elif kind == "get":
        query = inventor.encode(inventor.message(), "twilio").decode()
        request["url"] += ("&" if "?" in request["url"] else "?") + query
        request["method"] = inventor.pick(["GET", "GET", "HEAD"])
    elif kind == "json":
        document = {inventor.text(8): inventor.text(80) for _ in range(inventor.random.randint(0, 6))}
        text = json.dumps(document, ensure_ascii=inventor.chance(0.5), indent=inventor.pick([None, 1]))
        request["body"] = (text + inventor.pick(["", "", "\n"])).encode()
        request["headers"]["Content-Type"] = inventor.pick(["application/json", "application/json; charset=utf-8", "application/cloudevents+json"])
        name = inventor.pick(["bodySHA256"] * 12 + ["x=1&bodySHA256"])
        request["url"] += ("&" if "?" in request["url"] else "?") + f"{name}={hashlib.sha256(request['body']).hexdigest()}"
    else:
        request["headers"]["Content-Type"] = inventor.content_type()
    signed_url = inventor.pick([request["url"]] * 2 + port_variants(request["url"]))
    signature = sign(request, signed_url)
    request["headers"][inventor.pick(["X-Twilio-Signature"] * 5 + ["x-twilio-signature", "X-TWILIO-SIGNATURE"])] = signature
    return request, note


def set_signature(request, value):
    for name in [name for name in request["headers"] if name.lower() == "x-twilio-signature"]:
        del request["headers"][name]
    if value is not None:
        request["headers"]["X-Twilio-Signature"] = value


def tamper_signature(inventor, request):
    signature = header(request, "x-twilio-signature")
    raw = base64.b64decode(signature)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = alphabet.index(signature[26])
    position = inventor.random.randrange(26)
    kinds = {
        "absent": None,
        "empty": "",
        "truncated": signature[: inventor.random.randrange(28)],
        "without padding": signature[:-1],
        "extended": signature + inventor.pick(["=", "A", "AAAA", signature]),
        "case swapped": signature.swapcase(),
        "lower case": signature.lower(),
        "url-safe": signature.replace("+", "-").replace("/", "_"),
        "hex": raw.hex(),
        "non-canonical base64": signature[:26] + alphabet[last ^ 1] + "=",
        "one character changed": signature[:position] + ("A" if signature[position] != "A" else "B") + signature[position + 1 :],
        "of the URL alone": RequestValidator(request["token"]).compute_signature(request["url"], {}),
        "with another token": sign(request, token=inventor.hexadecimal(32)),
        "HMAC-SHA256": RequestValidator(request["token"]).compute_signature(request["url"], signed_part(request) if isinstance(signed_part(request), Parameters) else {}, "HMAC_SHA256"),
        "garbage": inventor.text(40).replace("\x00", "") or "x",
    }
    kind = inventor.pick(list(kinds))
    set_signature(request, kinds[kind])
    return f"signature {kind}"


def tamper_url(inventor, request):
    url = request["url"]
    scheme, rest = url.split("://", 1)
    before, _, after = split_port(url)
    path, mark, query = after.partition("?")
    pairs = query.split("&")
    shuffled = inventor.random.sample(pairs, len(pairs))
    kinds = {
        "scheme changed": ("http" if scheme.lower() == "https" else "https") + "://" + rest,
        "host changed": url.replace("example", "exarnple", 1),
        "host in another case": url.replace("hooks", "HOOKS", 1),
        "port changed": before + f":{inventor.random.randint(1, 65535)}" + after,
        "port removed": before + after,
        "slash added": before + path + "/" + mark + query,
        "slash removed": before + path.rstrip("/") + mark + query,
        "double slash merged": before + path.replace("//", "/") + mark + query,
        "prefix stripped": before + "/" + path.lstrip("/").partition("/")[2] + mark + query,
        "path unescaped": before + path.replace("%7E", "~").replace("%2F", "/").replace("%20", " ") + mark + query,
        "query dropped": before + path,
        "query added": url + ("&" if mark else "?") + "utm=1",
        "query reordered": before + path + mark + "&".join(shuffled),
        "query '+' as %20": before + path + mark + query.replace("+", "%20"),
        "query escapes in lower case": before + path + mark + lower_escapes(query),
        "query value changed": before + path + mark + query.replace("1", "2"),
        "bare '?'": url if mark else url + "?",
        "bare '&'": url + "&" if mark else url,
    }
    kind = inventor.pick(list(kinds))
    request["url"] = kinds[kind]
    return kind


def tamper_form(inventor, request):
    pairs = list(list.__iter__(parsed_form(request["body"])))
    if not pairs:
        request["body"] = b"injected=1"
        return "parameter added to none"
    index = inventor.random.randrange(len(pairs))
    name, value = pairs[index]
    other = inventor.random.randrange(len(pairs))
    cut = inventor.random.randint(0, len(value))
    kinds = {
        "value changed": [(name, value + "x")],
        "value trimmed": [(name, value.strip())],
        "value in another case": [(name, value.swapcase())],
        "space added": [(name, " " + value)],
        "parameter dropped": [],
        "parameter added": [(name, value), (inventor.pick(["zz", "Injected", "From"]), inventor.pick(["", "1"]))],
        "parameter repeated": [(name, value), (name, value)],
        "second value injected": [(name, value), (name, value + inventor.pick(["0", "z", "\n"]))],
        "parameter renamed": [(name + "x", value)],
        "boundary moved": [(name + value[:cut], value[cut:])],
        "value split off": [(name, value[:cut]), (value[cut:], "")],
        "percent-decoded again": [(name, parse_qsl("v=" + value.replace("&", "%26"), keep_blank_values=True)[0][1] if value else value)],
        "line breaks changed": [(name, value.replace("\r\n", "\n"))],
    }
    kind = inventor.pick([*kinds, "swapped", "shuffled", "recoded"])
    if kind == "swapped":
        pairs[index], pairs[other] = (name, pairs[other][1]), (pairs[other][0], value)
    elif kind in ("shuffled", "recoded"):
        inventor.random.shuffle(pairs)
    else:
        pairs[index : index + 1] = kinds[kind]
    request["body"] = inventor.encode(pairs, "mixed" if kind == "recoded" else "twilio")
    return kind


def tamper_bytes(inventor, request):
    body = bytearray(request["body"])
    if not body:
        return "nothing to change"
    position = inventor.random.randrange(len(body))
    kind = inventor.pick(["byte changed", "byte removed", "invalid UTF-8", "cut short", "byte added"])
    if kind == "byte changed":
        body[position] = inventor.random.randrange(256)
    elif kind == "byte removed":
        del body[position]
    elif kind == "invalid UTF-8":
        body[position:position] = inventor.pick([b"\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"%FF", b"%C3", b"\xc3%A9"])
        if inventor.chance(0.5):
            request["body"] = bytes(body)
            set_signature(request, sign(request) if media_type(request) == FORM else header(request, "x-twilio-signature"))
            return "invalid UTF-8, signed as the SDK reads it"
    elif kind == "cut short":
        del body[position:]
    else:
        body[position:position] = bytes([inventor.random.randrange(256)])
    request["body"] = bytes(body)
    return kind


def tamper_type(inventor, request):
    value = inventor.pick([None, "", "text/plain", "application/json", "multipart/form-data; boundary=x", f"{FORM}2", f"text/{FORM}", f"{FORM}, text/plain", FORM, f"application/{FORM}"])
    request["headers"].pop("Content-Type", None)
    if value is not None:
        request["headers"]["Content-Type"] = value
    return f"content type {value}"


def tamper_hash(inventor, request):
    before, separator, digest = request["url"].rpartition("bodySHA256=")
    if not separator:
        return tamper_url(inventor, request)
    kinds = {
        "upper case": before + separator + digest.upper(),
        "short": before + separator + digest[:-1],
        "of another body": before + separator + hashlib.sha256(b"other").hexdigest(),
        "absent": before.rstrip("?&"),
        "empty": before + separator,
        "twice, right first": f"{request['url']}&{separator}{'0' * 64}",
        "twice, right last": f"{before}{separator}{'0' * 64}&{separator}{digest}",
        "name in lower case": before + separator.lower() + digest,
        "escaped": before + separator + f"%{ord(digest[0]):02X}" + digest[1:],
        "with a space": before + separator + digest + "%20",
        "further on": f"{request['url']}&after=1",
    }
    kind = inventor.pick(list(kinds))
    request["url"] = kinds[kind]
    # Signed as it stands, so that the hash alone decides.
    set_signature(request, sign(request))
    return f"body hash {kind}"


def tamper_method(inventor, request):
    request["method"] = inventor.pick(["PUT", "DELETE", "PATCH", "POST"] if request["body"] else ["GET", "HEAD", "POST", "PUT"])
    return f"method {request['method']}"


def make(inventor):
    request, note = invent(inventor)
    if inventor.chance(0.45):
        return request, note, "re-encoded" if "twilio" not in note and note.startswith("form") else "twilio"
    tampers = [tamper_signature, tamper_url, tamper_url, tamper_bytes, tamper_type, tamper_method]
    if media_type(request) == FORM:
        tampers += [tamper_form] * 4
    elif request["body"]:
        tampers += [tamper_hash] * 4
    note += ": " + inventor.pick(tampers)(inventor, request)
    return request, note, "tampered"


def vector(request, identity, note, kind, accepts):
    line = {"id": identity, "note": note, "class": kind, "method": request["method"], "url": request["url"]}
    line |= {"headers": request["headers"], "content_type": header(request, "content-type")}
    try:
        line["body"] = request["body"].decode()
    except UnicodeDecodeError:
        line |= {"body": None, "body_b64": base64.b64encode(request["body"]).decode()}
    line |= {"auth_token": request["token"], "signature": header(request, "x-twilio-signature")}
    return line | {"expect": "accept" if accepts else "reject"}


class Node:
    """The Node SDK in a process of its own, for as long as there are requests."""

    def __init__(self, node_modules):
        command = ["node", str(Path(__file__).with_name("validate.mjs")), node_modules]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, requests):
        """It works while we do; its short answers wait in the pipe."""
        for request in requests:
            body = base64.b64encode(request["body"]).decode()
            line = {key: request[key] for key in ("token", "method", "url", "headers")} | {"body": body}
            self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def verdict(self):
        answer = self.process.stdout.readline().strip()
        if answer not in ("accept", "reject"):
            sys.exit(f"the Node SDK's process says {answer!r}")
        return answer == "accept"

    def end(self):
        self.process.stdin.close()
        if self.process.wait() != 0:
            sys.exit(f"the Node SDK's process ended with {self.process.returncode}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, default=1000, help="vectors to print; more are invented")
    parser.add_argument("--longest", type=int, default=1 << 20, help="leave out bodies and URLs longer than this, in bytes")
    parser.add_argument("--node-modules", required=True, help="folder that npm installed `twilio` into")
    arguments = parser.parse_args()

    inventor, node = Inventor(arguments.seed), Node(arguments.node_modules)
    counts = {"accept": 0, "reject": 0, "dropped": 0}
    number = printed = 0
    while printed < arguments.count:
        made = [make(inventor) for _ in range(BATCH)]
        node.ask([request for request, _, _ in made])
        for request, note, kind in made:
            number += 1
            accepts, node_accepts = python_accepts(request), node.verdict()
            if accepts != node_accepts or (not accepts and python_misreads(request["url"])):
                counts["dropped"] += 1
            elif printed < arguments.count and len(request["body"]) + len(request["url"]) <= arguments.longest:
                line = vector(request, f"r{arguments.seed}-{number}", note, kind, accepts)
                counts[line["expect"]] += 1
                printed += 1
                print(json.dumps(line, ensure_ascii=False))
    node.end()
    print(f"seed {arguments.seed}: {counts}", file=sys.stderr)


if __name__ == "__main__":
    main()
