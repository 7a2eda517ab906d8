"""A shop that answers messages, in Flask behind twilio-edge."""

import os

from flask import Flask, Response
from twilio.twiml.messaging_response import MessagingResponse
from twilio_edge import TrustedWebhook
from twilio_edge.events import Event
from twilio_edge.flask import sink_event, trusted_webhook
from twilio_edge.sdk import Client

app = Flask(__name__)
# The password is an API key of the sidecar, and TWILIO_EDGE_URL the sidecar. No auth token of Twilio is here.
client = Client(os.environ["TWILIO_ACCOUNT_SID"], os.environ["TWILIO_AUTH_TOKEN"])
received: dict[str, list[str]] = {"messages": [], "statuses": [], "events": []}


@app.post("/twilio/inbound")
@trusted_webhook()
def inbound(webhook: TrustedWebhook) -> Response:
    text = str(webhook.parameters.get("Body", ""))
    received["messages"].append(text)
    answer = MessagingResponse()
    if webhook.opt == "stop":
        # Twilio and the sidecar answer opt-outs.
        pass
    elif text == "remind me":
        client.messages.create(to=webhook.sender, from_=webhook.recipient, body="Flask reminds you")
    else:
        answer.message(f"Hello {webhook.sender}")
    return Response(str(answer), mimetype="text/xml")


@app.post("/twilio/status")
@trusted_webhook()
def status(webhook: TrustedWebhook) -> tuple[str, int]:
    received["statuses"].append(f"{webhook.message_sid} {webhook.status}")
    return "", 204


@app.post("/events")
@sink_event(os.environ["SINK_SECRET"])
def events(event: Event) -> tuple[str, int]:
    # A delivery may come twice.
    if event["event_id"] not in received["events"]:
        received["events"].append(event["event_id"])
    return "", 204


@app.get("/received")
def show() -> dict[str, list[str]]:
    return received


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "8084")))
