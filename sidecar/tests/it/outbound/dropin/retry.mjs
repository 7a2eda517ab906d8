// Runs Twilio's Node SDK with automatic retries (autoRetry) against a sidecar with a low request limit. argv[2] is JSON with
// the address of the sidecar and the credentials.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const config = JSON.parse(process.argv[2]);
const require = createRequire(resolve(config.sdk, "package.json"));
const twilio = require("twilio");

class Moved extends twilio.RequestClient {
  request(options) {
    const { pathname, search } = new URL(options.uri);
    return super.request({ ...options, uri: config.base + pathname + search });
  }
}

const send = (client, n) =>
  client.messages.create({ to: "+1415555060" + n, from: "+14155238886", body: "m" + n });
const of = (options) => twilio(config.account, config.token, { httpClient: new Moved({ timeout: 20_000, ...options }) });

// Without autoRetry the SDK repeats no request, and requests above the limit fail with error 20429.
const impatient = await Promise.allSettled([0, 1, 2, 3, 4, 5].map((n) => send(of({}), n)));
const refused = impatient.filter((one) => one.status === "rejected").map((one) => one.reason);
assert.ok(refused.length > 0, "all were answered");
for (const error of refused) assert.deepEqual([error.code, error.status], [20429, 429], error.message);

// With autoRetry the SDK repeats refused requests, and each request creates one message.
const patient = of({ autoRetry: true, maxRetries: 40 });
const made = await Promise.all([6, 7, 8, 9].map((n) => send(patient, n)));
assert.equal(new Set(made.map((one) => one.sid)).size, 4);
console.log(JSON.stringify({ made: 6 - refused.length + 4 }));
