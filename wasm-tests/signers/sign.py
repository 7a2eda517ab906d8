"""Signs webhooks with Twilio's Python SDK. One JSON object per line in, one per line out:

{token, url, params: [[name, value], ..]}  ->  {url, signature}   a form
{token, url, body}                         ->  {url, signature}   anything else: the hash of the body joins the URL
"""

import json
import sys

from twilio.request_validator import RequestValidator


class Form(dict):
    """Form of a web framework as the SDK expects it: every value of a name."""

    def getall(self, name):
        return self[name]


def sign(token, url, params=(), body=None):
    validator = RequestValidator(token)
    if body is not None:
        url += ("&" if "?" in url else "?") + "bodySHA256=" + validator.compute_hash(body)
    form = Form()
    for name, value in params:
        form.setdefault(name, []).append(value)
    return {"url": url, "signature": validator.compute_signature(url, form)}


for line in sys.stdin:
    print(json.dumps(sign(**json.loads(line))), flush=True)
