// Use of the types as an ES module. It is compiled, and not run.
import type { Event, TrustedWebhook } from "twilio-edge";
import { edgeClient, type Schemas, unwrap } from "twilio-edge/api";
import twilio, { EdgeRequestClient } from "twilio-edge/sdk";

export function handle(event: Event, webhook: TrustedWebhook): string {
  if (event.event_type === "twilio_inbound") return `${event.raw["Body"]} ${webhook.kind}`;
  if (event.event_type === "message.failed") return event.data.error?.code ?? event.data.state;
  if (event.event_type === "consent.changed") return event.data.category;
  // @ts-expect-error: only operational events have data.
  if (event.event_type === "twilio_status") return event.data;
  return event.event_id;
}

export async function send(): Promise<Schemas["Message"] | Schemas["DryRun"]> {
  const edge = edgeClient({ url: "http://127.0.0.1:8081", key: "key" });
  // @ts-expect-error: a message has a recipient.
  await edge.POST("/v1/messages", { body: { body: "Hi" } });
  // @ts-expect-error: the API has no such path.
  await edge.GET("/v1/mesages");
  return unwrap(edge.POST("/v1/messages", { body: { to: "+14155550123", body: "Hi" } }));
}

export async function call(): Promise<string> {
  const client = twilio("AC1", "key", { httpClient: new EdgeRequestClient({ url: "http://127.0.0.1:8081" }) });
  return (await client.messages.create({ to: "+14155550123", body: "Hi" })).sid;
}
