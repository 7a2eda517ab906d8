// Runs Twilio's Node SDK against the sidecar. argv[2] is JSON with its address and the credentials.
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

const client = twilio(config.account, config.token, { httpClient: new Moved() });
const secret = config.token.split("_").at(-1);
const byKey = twilio(config.key, secret, { accountSid: config.account, httpClient: new Moved() });
const send = (more = {}, by = client) => by.messages.create({ to: PERSON, from: OURS, body: "Hello", ...more });

async function refused(code, status, act) {
  await assert.rejects(act, (error) => {
    assert.deepEqual([error.code, error.status], [code, status], error.message);
    return true;
  });
}

async function until(condition) {
  for (const deadline = Date.now() + 30_000; !(await condition()); await sleep(50)) {
    assert.ok(Date.now() < deadline);
  }
}

// Creates a message with Twilio's SID and fetches it until it is delivered, with both kinds of client.
const made = await send({ body: "Ünï & 😀+" });
assert.match(made.sid, /^SM[0-9a-f]{32}$/);
assert.deepEqual([made.status, made.body, made.to, made.from], ["queued", "Ünï & 😀+", PERSON, OURS]);
assert.ok(made.dateCreated instanceof Date && made.dateSent === null && made.errorCode === null);
await until(async () => (await byKey.messages(made.sid).fetch()).status === "delivered");
assert.ok((await client.messages(made.sid).fetch()).dateSent instanceof Date);

// Sends a template, whose text is stored at Twilio.
const template = await client.messages.create({
  to: config.agreed,
  from: "whatsapp:" + OURS,
  contentSid: "HX00112233445566778899aabbccddeeff",
  contentVariables: JSON.stringify({ 1: "Ada", 2: "7" }),
});
assert.equal((await client.messages(template.sid).fetch()).body, "Hello Ada, your order 7 is on its way.");

// Lists messages page by page.
for (let number = 0; number < 5; number += 1) await send({ to: "+14155550199", body: String(number) });
const listed = await client.messages.list({ to: "+14155550199", pageSize: 2 });
assert.deepEqual(listed.map((message) => message.body), ["4", "3", "2", "1", "0"]);
assert.equal((await client.messages.list({ to: "+14155550199", limit: 3 })).length, 3);
const page = await client.messages.page({ to: "+14155550199", pageSize: 2 });
assert.deepEqual((await page.nextPage()).instances.map((message) => message.body), ["2", "1"]);
const before = new Date(Date.now() - 86_400_000);
assert.deepEqual(await client.messages.list({ to: "+14155550199", dateSentBefore: before }), []);
assert.equal((await client.messages.list({ to: "+14155550199", dateSentAfter: before })).length, 5);

// Refusals of our rules and refusals of Twilio have Twilio's error codes.
await refused(21610, 400, () => send({ to: config.stopped }));
await refused(63016, 400, () => send({ to: "whatsapp:" + PERSON, from: "whatsapp:" + OURS }));
await refused(21211, 400, () => send({ to: "+1555" }));
await refused(21211, 400, () => send({ to: "+14155559002" }));
await refused(21619, 400, () => send({ body: undefined }));
await refused(20404, 404, () => client.messages("SM" + "0".repeat(32)).fetch());
const stranger = twilio(config.account, "wrong", { httpClient: new Moved() });
await refused(20003, 401, () => stranger.messages.list());

// An `unknown` message: the sidecar has accepted it, and the reconciler finds it at Twilio.
const unknown = await send({ to: "+14155559005" });
assert.equal(unknown.status, "queued");
await until(async () => (await client.messages(unknown.sid).fetch()).sid !== unknown.sid);
assert.equal((await client.messages.list({ to: "+14155559005" })).length, 1);

// Schedules a message and cancels it.
const sendAt = new Date(Date.now() + 3_600_000);
const scheduled = await send({ scheduleType: "fixed", sendAt });
assert.equal(scheduled.status, "scheduled");
assert.equal((await client.messages(scheduled.sid).update({ status: "canceled" })).status, "canceled");

// A repeated request with the same idempotency key creates one message.
const twice = twilio(config.account, config.token, { httpClient: new Moved({ "Idempotency-Key": "js-1" }) });
const [first, copy] = [await send({}, twice), await send({}, twice)];
assert.equal(first.sid, copy.sid);
// Reads the media, feedback and account of a message, redacts the message and deletes it.
const picture = await send({ mediaUrl: ["https://example.com/a.png"] });
await until(async () => (await client.messages(picture.sid).fetch()).status === "delivered");
const [medium] = await client.messages(picture.sid).media.list();
assert.equal((await client.messages(picture.sid).media(medium.sid).fetch()).contentType, "image/png");
assert.equal(await client.messages(picture.sid).media(medium.sid).remove(), true);
assert.deepEqual(await client.messages(picture.sid).media.list(), []);
assert.equal((await client.messages(made.sid).feedback.create({ outcome: "confirmed" })).outcome, "confirmed");
assert.equal((await client.messages(made.sid).update({ body: "" })).body, "");
assert.equal(await client.messages(made.sid).remove(), true);
await refused(20404, 404, () => client.messages(made.sid).fetch());
const account = await client.api.v2010.accounts(config.account).fetch();
assert.deepEqual([account.sid, account.status, account.authToken], [config.account, "active", null]);
await refused(20003, 401, () => client.api.v2010.accounts(config.other).fetch());

// Senders, contents and error codes that Twilio accepts or returns.
const service = "MG" + "0".repeat(32);
assert.equal((await send({ from: service })).messagingServiceSid, service);
assert.equal((await send({ to: "+447400123456", from: "ACME" })).from, "ACME");
const contentSid = "HX00112233445566778899aabbccddeeff";
const superseded = await client.messages.create({
  to: config.agreed,
  from: "whatsapp:" + OURS,
  body: "Your Message",
  contentSid,
  contentVariables: '{"1":"Ada","2":19.90}',
});
assert.equal((await client.messages(superseded.sid).fetch()).body, "Hello Ada, your order 19.90 is on its way.");
await refused(21654, 400, () => send({ contentVariables: '{"1":"Ada"}' }));
await refused(20404, 404, () => send({ to: "+14155559008" }));
await refused(20003, 401, () => send({ to: "+14155559009" }));

// Verify: a code is checked by SID or by number, and is right once.
const verify = client.verify.v2.services(config.service);
const codeOf = async (number) => {
  const { verifications } = await (await fetch(config.codes)).json();
  return verifications.find(({ to }) => to === number).code;
};
const started = await verify.verifications.create({ to: PERSON, channel: "sms", locale: "de" });
assert.match(started.sid, /^VE[0-9a-f]{32}$/);
assert.deepEqual([started.status, started.channel, started.to, started.valid], ["pending", "sms", PERSON, false]);
const code = await codeOf(PERSON);
const wrong = String((Number(code) + 1) % 1_000_000).padStart(6, "0");
const checkOf = (more) => verify.verificationChecks.create(more);
assert.equal((await checkOf({ code: wrong, to: PERSON })).status, "pending");
const checked = await checkOf({ code, verificationSid: started.sid });
assert.deepEqual([checked.status, checked.valid, checked.sid], ["approved", true, started.sid]);
await refused(20404, 404, () => checkOf({ code, to: PERSON }));

// WhatsApp does not reach this number, so the code is sent as an SMS. A pending verification can be canceled.
const switched = await verify.verifications.create({ to: "+14155559110", channel: "auto" });
const current = () => byKey.verify.v2.services(config.service).verifications(switched.sid).fetch();
await until(async () => (await current()).channel === "sms");
assert.equal((await verify.verifications(switched.sid).update({ status: "canceled" })).status, "canceled");
await refused(21610, 400, () => verify.verifications.create({ to: config.stopped, channel: "sms" }));
await refused(60203, 429, () => verify.verifications.create({ to: "+14155559102", channel: "sms" }));
console.log("judged");
