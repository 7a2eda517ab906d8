// Deliveries as an application in JavaScript gets them: each is held against the official Standard Webhooks library with each
// secret, unchanged and changed. Reads what came from stdin, answers on stdout; its argument is where npm put the library.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { Webhook, WebhookVerificationError } = createRequire(`${process.argv[2]}/`)("standardwebhooks");

function verifies(secret, body, headers) {
  try {
    new Webhook(secret).verify(body, headers);
    return true;
  } catch (error) {
    if (error instanceof WebhookVerificationError) return false;
    throw error;
  }
}

const asked = JSON.parse(readFileSync(0, "utf8"));
const answers = asked.deliveries.map(({ body, headers }) => ({
  signed: asked.secrets.map((secret) => ({
    whole: verifies(secret, body, headers),
    body: verifies(secret, `${body.slice(0, -1)} `, headers),
    id: verifies(secret, body, { ...headers, "webhook-id": `${headers["webhook-id"]}x` }),
    time: verifies(secret, body, {
      ...headers,
      "webhook-timestamp": String(Number(headers["webhook-timestamp"]) - 3600),
    }),
  })),
}));
process.stdout.write(JSON.stringify(answers));
