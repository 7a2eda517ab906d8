// Twilio's Node SDK that asks again by itself (autoRetry), at a sidecar that answers few requests a second: argv[2] tells of it.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const told = JSON.parse(process.argv[2]);
const require = createRequire(resolve(told.sdk, "package.json"));
const twilio = require("twilio");

class Moved extends twilio.RequestClient {
  request(options) {
    const { pathname, search } = new URL(options.uri);
    return super.request({ ...options, uri: told.base + pathname + search });
  }
}

const send = (client, n) =>
  client.messages.create({ to: "+1415555060" + n, from: "+14155238886", body: "m" + n });
const of = (options) => twilio(told.account, told.token, { httpClient: new Moved({ timeout: 20_000, ...options }) });

// By itself it repeats nothing: whoever asks too often is told so.
const impatient = await Promise.allSettled([0, 1, 2, 3, 4, 5].map((n) => send(of({}), n)));
const refused = impatient.filter((one) => one.status === "rejected").map((one) => one.reason);
assert.ok(refused.length > 0, "all were answered");
for (const error of refused) assert.deepEqual([error.code, error.status], [20429, 429], error.message);

// Told to, it does, and each is one message.
const patient = of({ autoRetry: true, maxRetries: 40 });
const made = await Promise.all([6, 7, 8, 9].map((n) => send(patient, n)));
assert.equal(new Set(made.map((one) => one.sid)).size, 4);
console.log(JSON.stringify({ made: 6 - refused.length + 4 }));
