"""Fetches a medium as Twilio does: HEAD and GET, and in parts. Prints "fetched" if every response was correct."""

import base64
import json
import sys

import requests

arguments = json.loads(sys.argv[1])
expected = base64.b64decode(arguments["bytes"])
url, kind, size = arguments["url"], arguments["type"], len(expected)

# A link that a bucket has signed allows only GET.
if arguments["ours"]:
    head = requests.head(url, timeout=20)
    assert head.status_code == 200, head.status_code
    assert head.headers["content-type"] == kind and head.headers["content-length"] == str(size), head.headers
    assert head.headers["accept-ranges"] == "bytes" and not head.content

whole = requests.get(url, headers={"accept-encoding": "identity"}, timeout=20)
assert whole.status_code == 200, (whole.status_code, whole.text)
assert whole.content == expected
assert whole.headers["content-type"] == kind and whole.headers["content-length"] == str(size), whole.headers

for header, first, last in [("bytes=0-3", 0, 3), (f"bytes=5-{size + 9}", 5, size - 1), ("bytes=-4", size - 4, size - 1)]:
    part = requests.get(url, headers={"range": header}, timeout=20)
    assert part.status_code == 206, (header, part.status_code)
    assert part.content == expected[first : last + 1], header
    assert part.headers["content-range"] == f"bytes {first}-{last}/{size}", part.headers
    assert part.headers["content-length"] == str(last + 1 - first), part.headers

if arguments["ours"]:
    beyond = requests.get(url, headers={"range": f"bytes={size}-"}, timeout=20)
    assert beyond.status_code == 416 and beyond.headers["content-range"] == f"bytes */{size}", beyond.headers
    odd = requests.get(url, headers={"range": "bytes=0-1,3-4"}, timeout=20)
    assert odd.status_code == 200 and odd.content == expected
    # Every other path, query and method gets an empty 404, which reveals nothing about the server.
    base, rest = url.split("/media/")
    name, query = rest.split("?")
    for path in ["", "/", "/media", "/media/", f"/media/{name}", f"/media/{name}?", f"/media/{name}/?{query}",
                 f"/media/{name}?{query}0", f"/media/{name[:-1]}{0 if name[-1] != '0' else 1}?{query}", f"/media/../{name}?{query}",
                 f"/media/{name}?{query.replace('expires=', 'expires=9')}", "/v1/media", "/metrics", "/healthz"]:
        answer = requests.get(base + path, timeout=20)
        assert (answer.status_code, answer.content) == (404, b""), (path, answer.status_code)
    for method in ["POST", "PUT", "DELETE", "OPTIONS"]:
        assert requests.request(method, url, timeout=20).status_code == 404, method

print("fetched")
