"""An application that still verifies signatures with Twilio's SDK, in Flask behind the filter in shadow mode.

docs/MIGRATION.md describes the steps. This is the state during the comparison: the old validator decides, and the application records what
the filter would do.
"""

import os

from flask import Flask, Response, request
from twilio.request_validator import RequestValidator
from twilio_edge import UnverifiedWebhookError, trusted_webhook

app = Flask(__name__)
validator = RequestValidator(os.environ["OLD_AUTH_TOKEN"])
# URL that Twilio calls, without its path. The SDK's validator needs it, and a proxy changes what the request says.
public_url = os.environ["PUBLIC_URL"]
received: dict[str, list[str]] = {"decisions": []}


@app.post("/twilio/inbound")
def inbound() -> Response:
    signature = request.headers.get("X-Twilio-Signature", "")
    is_valid = validator.validate(public_url + request.path, request.form, signature)
    try:
        webhook = trusted_webhook(request.headers, request.get_data())
        verdict = f"{webhook.dedupe}"
    except UnverifiedWebhookError:
        verdict = "refused"
    received["decisions"].append(f"validator: {'accepted' if is_valid else 'refused'}, filter: {verdict}")
    if not is_valid:
        return Response("", 403)
    return Response("<Response><Message>From the old code</Message></Response>", mimetype="text/xml")


@app.get("/received")
def show() -> dict[str, list[str]]:
    return received


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "8084")))
