// A shop that answers messages, in Express behind twilio-edge.
import express from "express";
import { sinkEvent, trustedWebhook } from "twilio-edge/express";
import twilio from "twilio-edge/sdk";

const { PORT = "8084", SINK_SECRET, TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN } = process.env;
// The password is an API key of the sidecar, and TWILIO_EDGE_URL the sidecar. No auth token of Twilio is here.
const client = twilio(TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN);
const app = express();
/** @type {{ messages: string[], statuses: string[], events: string[] }} */
const received = { messages: [], statuses: [], events: [] };

app.post(
  "/twilio/inbound",
  trustedWebhook(async (webhook, _request, response) => {
    const text = String(webhook.parameters["Body"] ?? "");
    received.messages.push(text);
    const answer = new twilio.twiml.MessagingResponse();
    if (webhook.opt === "stop") {
      // Twilio and the sidecar answer opt-outs.
    } else if (text === "remind me") {
      await client.messages.create({ to: `${webhook.from}`, from: webhook.to, body: "Express reminds you" });
    } else {
      answer.message(`Hello ${webhook.from}`);
    }
    response.type("text/xml").send(answer.toString());
  }),
);

app.post(
  "/twilio/status",
  trustedWebhook((webhook, _request, response) => {
    received.statuses.push(`${webhook.messageSid} ${webhook.status}`);
    response.sendStatus(204);
  }),
);

app.post(
  "/events",
  sinkEvent(`${SINK_SECRET}`, (event, _request, response) => {
    // A delivery may come twice.
    if (!received.events.includes(event.event_id)) received.events.push(event.event_id);
    response.sendStatus(204);
  }),
);

app.get("/received", (_request, response) => void response.json(received));
app.listen(Number(PORT), "127.0.0.1");
