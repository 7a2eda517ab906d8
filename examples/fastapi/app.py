"""A shop that answers messages, in FastAPI behind twilio-edge."""

import os
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Response
from twilio.twiml.messaging_response import MessagingResponse
from twilio_edge import TrustedWebhook
from twilio_edge.events import Event
from twilio_edge.fastapi import SinkEvents, TrustedWebhooks
from twilio_edge.sdk import Client

app = FastAPI()
# The password is an API key of the sidecar, and TWILIO_EDGE_URL the sidecar. No auth token of Twilio is here.
client = Client(os.environ["TWILIO_ACCOUNT_SID"], os.environ["TWILIO_AUTH_TOKEN"])
received: dict[str, list[str]] = {"messages": [], "statuses": [], "events": []}

Webhook = Annotated[TrustedWebhook, Depends(TrustedWebhooks())]
SignedEvent = Annotated[Event, Depends(SinkEvents(os.environ["SINK_SECRET"]))]


@app.post("/twilio/inbound")
def inbound(webhook: Webhook) -> Response:
    text = str(webhook.parameters.get("Body", ""))
    received["messages"].append(text)
    answer = MessagingResponse()
    if webhook.opt == "stop":
        # Twilio and the sidecar answer opt-outs.
        pass
    elif text == "remind me":
        client.messages.create(to=webhook.sender, from_=webhook.recipient, body="FastAPI reminds you")
    else:
        answer.message(f"Hello {webhook.sender}")
    return Response(str(answer), media_type="text/xml")


@app.post("/twilio/status", status_code=204)
def status(webhook: Webhook) -> None:
    received["statuses"].append(f"{webhook.message_sid} {webhook.status}")


@app.post("/events", status_code=204)
def events(event: SignedEvent) -> None:
    # A delivery may come twice.
    if event["event_id"] not in received["events"]:
        received["events"].append(event["event_id"])


@app.get("/received")
def show() -> dict[str, list[str]]:
    return received


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8084")), log_level="warning")
