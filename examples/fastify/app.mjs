// A shop that answers messages, in Fastify behind twilio-edge.
import { fastify } from "fastify";
import { rawBodies, sinkEvent, trustedWebhook } from "twilio-edge/fastify";
import twilio from "twilio-edge/sdk";

const { PORT = "8084", SINK_SECRET, TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN } = process.env;
// The password is an API key of the sidecar, and TWILIO_EDGE_URL the sidecar. No auth token of Twilio is here.
const client = twilio(TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN);
const app = fastify();
/** @type {{ messages: string[], statuses: string[], events: string[] }} */
const received = { messages: [], statuses: [], events: [] };

app.register(async (scope) => {
  rawBodies(scope);

  scope.post(
    "/twilio/inbound",
    trustedWebhook(async (webhook, _request, reply) => {
      const text = String(webhook.parameters["Body"] ?? "");
      received.messages.push(text);
      const answer = new twilio.twiml.MessagingResponse();
      if (webhook.opt === "stop") {
        // Twilio and the sidecar answer opt-outs.
      } else if (text === "remind me") {
        await client.messages.create({ to: `${webhook.from}`, from: webhook.to, body: "Fastify reminds you" });
      } else {
        answer.message(`Hello ${webhook.from}`);
      }
      return reply.type("text/xml").send(answer.toString());
    }),
  );

  scope.post(
    "/twilio/status",
    trustedWebhook((webhook, _request, reply) => {
      received.statuses.push(`${webhook.messageSid} ${webhook.status}`);
      return reply.code(204).send();
    }),
  );

  scope.post(
    "/events",
    sinkEvent(`${SINK_SECRET}`, (event, _request, reply) => {
      // A delivery may come twice.
      if (!received.events.includes(event.event_id)) received.events.push(event.event_id);
      return reply.code(204).send();
    }),
  );
});

app.get("/received", () => received);
await app.listen({ port: Number(PORT), host: "127.0.0.1" });
