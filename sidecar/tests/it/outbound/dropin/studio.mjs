// Runs Twilio's Node SDK with client.studio.v2 against the sidecar. argv[2] is JSON with its address and the credentials.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const config = JSON.parse(process.argv[2]);
const require = createRequire(resolve(config.sdk, "package.json"));
const twilio = require("twilio");
const [OURS, PERSON] = ["+14155238886", "+14155550123"];

// HTTP client of the SDK that replaces only the host.
class Moved extends twilio.RequestClient {
  constructor(headers = {}) {
    super({ timeout: 20_000 });
    this.more = headers;
  }

  request(options) {
    const { pathname, search } = new URL(options.uri);
    const headers = { ...options.headers, ...this.more };
    return super.request({ ...options, headers, uri: config.base + pathname + search });
  }
}

async function refused(code, status, act) {
  await assert.rejects(act, (error) => {
    assert.deepEqual([error.code, error.status], [code, status], error.message);
    return true;
  });
}

const client = twilio(config.account, config.token, { httpClient: new Moved() });
const flow = client.studio.v2.flows(config.flow);
const made = await flow.executions.create({ to: PERSON, from: OURS, parameters: { text: "Hallo" } });
assert.match(made.sid, /^FN[0-9a-f]{32}$/);
assert.deepEqual([made.flowSid, made.contactChannelAddress], [config.flow, PERSON]);
for (const deadline = Date.now() + 30_000; (await flow.executions(made.sid).fetch()).status !== "ended"; await sleep(50)) {
  assert.ok(Date.now() < deadline);
}
const { context } = await flow.executions(made.sid).executionContext().fetch();
assert.equal(context.flow.data.text, "Hallo");

// Two requests with one idempotency key start one execution.
const key = { "I-Twilio-Idempotency-Token": "order-17" };
const twice = twilio(config.account, config.token, { httpClient: new Moved(key) });
const create = () => twice.studio.v2.flows(config.flow).executions.create({ to: PERSON, from: OURS });
const [first, second] = [await create(), await create()];
assert.equal((await flow.executions(first.sid).fetch()).sid, (await flow.executions(second.sid).fetch()).sid);
assert.equal((await flow.executions.list()).length, 2);

await refused(21610, 400, () => flow.executions.create({ to: config.stopped, from: OURS }));
console.log("judged");
