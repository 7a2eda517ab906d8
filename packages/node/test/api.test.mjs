// The typed client against the sidecar.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";
import { ApiError, edgeClient, unwrap } from "twilio-edge/api";

import { ACCOUNT, OURS, PERSON, stack } from "./stack.mjs";

const edge = edgeClient({ url: stack.url, key: stack.app_key, timeoutMs: 10_000 });
const body = { to: PERSON, from: OURS, body: "Hello" };

test("a message is sent and fetched", async () => {
  const message = await unwrap(edge.POST("/v1/messages", { body, params: { query: { wait_ms: 5000 } } }));
  assert.ok("state" in message && message.id.startsWith("ms_"));
  const fetched = await unwrap(edge.GET("/v1/messages/{id}", { params: { path: { id: message.id } } }));
  assert.deepEqual([fetched.id, fetched.sid, fetched.state], [message.id, message.sid, "sent"]);
});

test("a refusal is an error with code and remedy", async () => {
  const call = edge.POST("/v1/messages", { body: { ...body, to: "+1555" } });
  await assert.rejects(unwrap(call), (error) => {
    assert.ok(error instanceof ApiError);
    assert.deepEqual([error.status, error.code, error.actor], [422, "invalid_recipient", "caller"]);
    assert.ok(error.detail?.startsWith("to: "));
    assert.ok(error.remedy && error.message.includes(error.remedy.replace(/\.$/, "")), error.message);
    return true;
  });
  const { error } = await edge.POST("/v1/messages", { body: { ...body, to: "+1555" } });
  assert.equal(error?.code, "invalid_recipient");
});

test("a key makes two calls one message", async () => {
  const params = { header: { "Idempotency-Key": "node-api-1" } };
  const [first, second] = [await unwrap(edge.POST("/v1/messages", { body, params })), await unwrap(edge.POST("/v1/messages", { body, params }))];
  assert.ok("id" in first && "id" in second);
  assert.equal(first.id, second.id);
});

test("an administrator lists keys and uploads a file", async () => {
  const administrator = edgeClient({ url: stack.admin_url, key: stack.admin_key });
  const { keys } = await unwrap(administrator.GET("/v1/keys"));
  assert.ok(keys.some((key) => key.name === "packages"));
  const rows = new Blob(["number\n+14155550112\n"]);
  const params = { query: { account_sid: ACCOUNT } };
  const imported = await unwrap(administrator.POST("/v1/suppressions/import", { body: rows, params }));
  assert.equal(imported.added, 1);
});

test("the stream of webhooks has a beginning and no end", async () => {
  const stop = new AbortController();
  const params = { query: { account_sid: ACCOUNT } };
  const { response } = await edge.GET("/v1/stream", { params, parseAs: "stream", signal: stop.signal });
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  stop.abort();
});

test("failed attempts are repeated with the same key", async (context) => {
  /** @type {(string | undefined)[]} */
  const keys = [];
  const answers = [503, 0, 409, 0, 200];
  const server = createServer((request, response) => {
    keys.push(/** @type {string | undefined} */ (request.headers["idempotency-key"]));
    const status = answers.shift();
    if (status) response.writeHead(status, { "Retry-After": "0" }).end();
    else request.socket.destroy();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  context.after(() => server.close());
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  const flaky = edgeClient({ url: `http://127.0.0.1:${port}`, key: "key" });
  await assert.rejects(unwrap(flaky.POST("/v1/messages", { body })), { status: 409, code: undefined, retryAfterSeconds: 0 });
  assert.equal(keys.length, 3);
  assert.equal(new Set(keys).size, 1);
  assert.ok(keys[0]);
  // Without a key, a request without an answer is not repeated.
  await assert.rejects(flaky.POST("/v1/messages/{id}/cancel", { params: { path: { id: "ms_1" } } }), TypeError);
  assert.deepEqual(keys.slice(3), [undefined]);
});
