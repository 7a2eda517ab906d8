// Trusted headers and signatures, compared with the official library, and the frameworks' answers without them.
import assert from "node:assert/strict";
import { test } from "node:test";
import express from "express";
import { fastify } from "fastify";
import { Webhook } from "standardwebhooks";
import { SinkVerifier, trustedWebhook, UnverifiedEventError, UnverifiedWebhookError } from "twilio-edge";
import * as edgeExpress from "twilio-edge/express";
import * as edgeFastify from "twilio-edge/fastify";

import { ACCOUNT, SECRET } from "./stack.mjs";

const NEXT = "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
const EVENT = '{"event_type": "test", "event_id": "1", "body": "Grüße"}';
const FORM = { "content-type": "application/x-www-form-urlencoded" };
const HEADERS = {
  "x-twilio-edge-verified": ACCOUNT,
  "x-twilio-edge-class": "inbound",
  "x-twilio-edge-message-sid": "SM1",
  "x-twilio-edge-from": "+14155550123",
  "x-twilio-edge-to": "+14155238886",
  "x-twilio-edge-channel": "whatsapp",
  "x-twilio-edge-opt": "stop",
  "x-twilio-edge-suppressed": "true",
  "x-twilio-edge-window-expires": "2026-11-24T12:00:00Z",
  "x-twilio-edge-media": "https://m/1 https://m/2",
  "x-twilio-edge-dedupe": "first",
  "x-twilio-edge-attempt": "2",
  "x-twilio-edge-key": "current",
};

/** Headers of the official signer. @param {{ secret?: string, seconds?: number, body?: string }} options */
function signed({ secret = SECRET, seconds = 0, body = EVENT } = {}) {
  const at = new Date(Date.now() + seconds * 1000);
  return {
    "webhook-id": "msg_1",
    "webhook-timestamp": `${Math.floor(at.getTime() / 1000)}`,
    "webhook-signature": new Webhook(secret).sign("msg_1", at, body),
  };
}

test("trusted headers and parameters are read", () => {
  const webhook = trustedWebhook({ ...HEADERS, ...FORM }, { body: Buffer.from("Body=STOP&MediaUrl=1&MediaUrl=2&Empty=") });
  assert.deepEqual(
    { ...webhook, parameters: { ...webhook.parameters } },
    {
      accountSid: ACCOUNT,
      kind: "inbound",
      messageSid: "SM1",
      from: "+14155550123",
      to: "+14155238886",
      channel: "whatsapp",
      opt: "stop",
      suppressed: true,
      windowExpires: new Date("2026-11-24T12:00:00Z"),
      media: ["https://m/1", "https://m/2"],
      dedupe: "first",
      attempt: 2,
      key: "current",
      isCopy: false,
      parameters: { Body: "STOP", MediaUrl: ["1", "2"], Empty: "" },
    },
  );
  assert.equal(trustedWebhook(new Headers(HEADERS), { query: "Body=Hi%20there" }).parameters["Body"], "Hi there");
  const event = { event_type: "twilio_inbound", raw: { Body: "Hi" } };
  const json = { ...HEADERS, "content-type": "application/json" };
  for (const body of [JSON.stringify(event), Buffer.from(JSON.stringify(event)), event]) {
    assert.equal(trustedWebhook(json, { body }).parameters["Body"], "Hi");
  }
});

test("other requests are refused", () => {
  /** @type {[object, import("twilio-edge").WebhookOptions, RegExp][]} */
  const cases = [
    [{ "x-twilio-edge-verified": undefined }, {}, /x-twilio-edge-verified/],
    [{}, { accounts: [`AC${"f".repeat(32)}`] }, /does not serve/],
    [{ "x-twilio-edge-copy": "true" }, {}, /twilio-edge listen/],
    [{ "x-twilio-edge-class": "voice" }, {}, /upgrade this package/],
  ];
  for (const [changed, options, reason] of cases) {
    assert.throws(() => trustedWebhook({ ...HEADERS, ...changed }, {}, options), (error) => {
      assert.ok(error instanceof UnverifiedWebhookError);
      assert.match(error.message, reason);
      return true;
    });
  }
  assert.ok(trustedWebhook({ ...HEADERS, "x-twilio-edge-copy": "true" }, {}, { allowCopies: true }).isCopy);
});

test("events of the official signer are accepted, and changed ones are not", () => {
  for (const body of [EVENT, Buffer.from(EVENT)]) {
    assert.equal(new SinkVerifier(SECRET).verify(signed(), body).event_type, "test");
  }
  const both = signed();
  both["webhook-signature"] = `v1a,other ${signed({ secret: NEXT })["webhook-signature"]} ${both["webhook-signature"]}`;
  for (const secrets of [SECRET, NEXT, [NEXT, SECRET]]) assert.ok(new SinkVerifier(secrets).verify(both, EVENT));
  const refused = (/** @type {object} */ changed, /** @type {string} */ body, /** @type {RegExp} */ reason) =>
    assert.throws(() => new SinkVerifier(SECRET).verify({ ...signed(), ...changed }, body), (error) => {
      assert.ok(error instanceof UnverifiedEventError);
      assert.match(error.message, reason);
      return true;
    });
  refused({ "webhook-id": undefined }, EVENT, /no signature/);
  refused({ "webhook-id": "msg_2" }, EVENT, /signature is wrong/);
  refused({ "webhook-signature": "v1,AAAA" }, EVENT, /signature is wrong/);
  refused({}, `${EVENT} `, /a proxy changed/);
  refused({ "webhook-timestamp": "x" }, EVENT, /clocks/);
  for (const seconds of [-400, 400]) refused(signed({ seconds }), EVENT, /clocks/);
  refused(signed({ body: "[]" }), "[]", /no event/);
  for (const secret of [[], "whsec_no Base64"]) assert.throws(() => new SinkVerifier(secret), TypeError);
});

/** @param {string} base */
async function checkFramework(base) {
  const post = async (/** @type {string} */ path, /** @type {string} */ body, /** @type {HeadersInit} */ headers) => {
    const response = await fetch(base + path, { method: "POST", body, headers });
    return [response.status, await response.text()];
  };
  assert.equal((await post("/inbound", "Body=Hi", FORM))[0], 403);
  assert.deepEqual(await post("/inbound", "Body=Hi", { ...HEADERS, ...FORM }), [200, "Hi"]);
  const json = { "content-type": "application/json" };
  assert.equal((await post("/events", EVENT, json))[0], 401);
  assert.deepEqual(await post("/events", EVENT, { ...signed(), ...json }), [200, "test"]);
  // An error of a handler is one of the application.
  assert.equal((await post("/fails", "Body=Hi", { ...HEADERS, ...FORM }))[0], 500);
  assert.deepEqual((await post("/parsed", EVENT, { ...signed(), ...json }))[0], 500);
}

test("Express refuses and passes on", async (context) => {
  const app = express();
  app.set("env", "test");
  app.post("/inbound", edgeExpress.trustedWebhook((webhook, _request, response) => response.send(webhook.parameters["Body"])));
  app.post("/form", express.urlencoded(), edgeExpress.trustedWebhook((webhook, _request, response) => response.send(webhook.parameters["Body"])));
  app.post("/events", edgeExpress.sinkEvent(SECRET, (event, _request, response) => response.send(event.event_type)));
  app.post("/raw", express.raw({ type: "*/*" }), edgeExpress.sinkEvent(SECRET, (event, _request, response) => response.send(event.event_type)));
  app.post("/parsed", express.json(), edgeExpress.sinkEvent(SECRET, () => assert.fail("a parsed body is not verified")));
  app.post("/fails", edgeExpress.trustedWebhook(() => Promise.reject(new Error("defect"))));
  app.use((/** @type {Error} */ _error, /** @type {any} */ _request, /** @type {any} */ response, /** @type {any} */ _next) => {
    response.sendStatus(500);
  });
  const server = app.listen(0, "127.0.0.1");
  context.after(() => server.close());
  await new Promise((resolve) => server.once("listening", resolve));
  const base = `http://127.0.0.1:${/** @type {import("node:net").AddressInfo} */ (server.address()).port}`;
  await checkFramework(base);
  const form = await fetch(`${base}/form`, { method: "POST", body: "Body=Hi", headers: { ...HEADERS, ...FORM } });
  assert.equal(await form.text(), "Hi");
  const raw = await fetch(`${base}/raw`, { method: "POST", body: EVENT, headers: signed() });
  assert.equal(await raw.text(), "test");
  const large = await fetch(`${base}/events`, { method: "POST", body: "x".repeat(2 << 20), headers: signed() });
  assert.equal(large.status, 500);
});

test("Fastify refuses and passes on", async (context) => {
  const app = fastify();
  app.register(async (scope) => {
    edgeFastify.rawBodies(scope);
    scope.post("/inbound", edgeFastify.trustedWebhook((webhook) => webhook.parameters["Body"]));
    scope.post("/events", edgeFastify.sinkEvent(SECRET, (event) => event.event_type));
    scope.post("/fails", edgeFastify.trustedWebhook(() => Promise.reject(new Error("defect"))));
  });
  app.post("/parsed", edgeFastify.sinkEvent(SECRET, () => assert.fail("a parsed body is not verified")));
  context.after(() => app.close());
  await checkFramework(await app.listen({ port: 0, host: "127.0.0.1" }));
});
