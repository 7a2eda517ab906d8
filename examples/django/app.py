"""A shop that answers messages, in Django behind twilio-edge. One file has the settings, the views and the URLs."""

import os

from django.conf import settings

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY=os.urandom(32).hex())

from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from twilio.twiml.messaging_response import MessagingResponse
from twilio_edge import TrustedWebhook
from twilio_edge.django import sink_event, trusted_webhook
from twilio_edge.events import Event
from twilio_edge.sdk import Client

# The password is an API key of the sidecar, and TWILIO_EDGE_URL the sidecar. No auth token of Twilio is here.
client = Client(os.environ["TWILIO_ACCOUNT_SID"], os.environ["TWILIO_AUTH_TOKEN"])
received: dict[str, list[str]] = {"messages": [], "statuses": [], "events": []}


@trusted_webhook()
def inbound(request: HttpRequest, webhook: TrustedWebhook) -> HttpResponse:
    text = str(webhook.parameters.get("Body", ""))
    received["messages"].append(text)
    answer = MessagingResponse()
    if webhook.opt == "stop":
        # Twilio and the sidecar answer opt-outs.
        pass
    elif text == "remind me":
        client.messages.create(to=webhook.sender, from_=webhook.recipient, body="Django reminds you")
    else:
        answer.message(f"Hello {webhook.sender}")
    return HttpResponse(str(answer), content_type="text/xml")


@trusted_webhook()
def status(request: HttpRequest, webhook: TrustedWebhook) -> HttpResponse:
    received["statuses"].append(f"{webhook.message_sid} {webhook.status}")
    return HttpResponse(status=204)


@sink_event(os.environ["SINK_SECRET"])
def events(request: HttpRequest, event: Event) -> HttpResponse:
    # A delivery may come twice.
    if event["event_id"] not in received["events"]:
        received["events"].append(event["event_id"])
    return HttpResponse(status=204)


def show(request: HttpRequest) -> JsonResponse:
    return JsonResponse(received)


urlpatterns = [path("twilio/inbound", inbound), path("twilio/status", status), path("events", events), path("received", show)]

if __name__ == "__main__":
    execute_from_command_line(["app.py", "runserver", "--noreload", f"127.0.0.1:{os.environ.get('PORT', '8084')}"])
