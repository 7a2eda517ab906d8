// Twilio's SDK through the package: the examples of its own README, and one of each service that the sidecar offers.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { describe, test } from "node:test";
import sdk from "twilio";
import twilio, { EdgeRequestClient } from "twilio-edge/sdk";

import { ACCOUNT, AUTH_TOKEN, OURS, PERSON, post, stack, until, VERIFY_SERVICE } from "./stack.mjs";

const require = createRequire(import.meta.url);
const TEMPLATE = "HX00112233445566778899aabbccddeeff";
const FLOW = "FW00112233445566778899aabbccddeeff";
// Whether the sidecar sends to Twilio what it does not serve itself, such as the Content API.
const PASSES_THROUGH = false;
const TARGETS = [
  { name: "sidecar", url: stack.url, password: stack.app_key, verified: "+14155550181" },
  { name: "simulator", url: stack.simulator_url, password: AUTH_TOKEN, verified: "+14155550182" },
];

/** Examples of messages in the README of Twilio's SDK. */
function examples() {
  const text = readFileSync(require.resolve("twilio/package.json").replace(/package\.json$/, "README.md"), "utf8");
  const blocks = [...text.matchAll(/```(?:js|javascript)\n(.*?)```/gs)].map((match) => `${match[1]}`);
  // One example reads `client.lastRequest`, which this version of the SDK does not have.
  return blocks.filter((block) => block.includes("client.messages") && !block.includes("client.lastRequest"));
}

test("the README of the SDK has examples", () => {
  assert.ok(examples().length >= 5, "the README of the SDK has changed: adapt `examples`");
});

for (const { name, url, password, verified } of TARGETS) {
  const client = twilio(ACCOUNT, password, { httpClient: new EdgeRequestClient({ url, timeout: 10_000 }) });

  describe(name, () => {
    examples().forEach((example, index) => {
      test(`example ${index + 1} of the SDK runs with one changed line`, async () => {
        // Other tests send to other numbers.
        const to = `${/to: '(.*?)'/.exec(example)?.[1]}`;
        const before = await client.messages.list({ to, limit: 200 });
        const isModule = example.includes("await ") || example.includes("import ");
        // A line of the placeholders; examples that continue others have no client.
        let text = example
          .replace(/AC[X]{32}/, ACCOUNT)
          .replace("your_auth_token", password)
          .replace(/from: '\+12345678901'/, `from: '${OURS}'`);
        if (!/authToken = /.test(text)) text = `const [accountSid, authToken] = ['${ACCOUNT}', '${password}'];\n${text}`;
        if (!/client = /.test(text)) {
          const imported = isModule ? "import twilio from 'twilio';" : "const twilio = require('twilio');";
          text = `${imported}\n${text.replace(/(try|client\.messages)/, "const client = twilio(accountSid, authToken);\n$1")}`;
        }
        assert.match(text, /(require\('twilio'\)|from 'twilio')/);
        // The changed line; the second name of the same module in one example included.
        text = text.replace(/require\('twilio'\)/g, "require('twilio-edge/sdk')").replace("from 'twilio'", "from 'twilio-edge/sdk'");
        const file = new URL(`./example-${name}-${index}.${isModule ? "mjs" : "cjs"}`, import.meta.url);
        writeFileSync(file, text);
        const ended = spawnSync(process.execPath, [file.pathname], { encoding: "utf8", env: { ...process.env, TWILIO_EDGE_URL: url } });
        assert.equal(ended.status, 0, `${text}\n${ended.stderr}`);
        const after = await client.messages.list({ to, limit: 200 });
        assert.equal(after.length, before.length + 1, `${text}\n${ended.stdout}${ended.stderr}`);
      });
    });

    test("a message is sent, fetched, listed, redacted and deleted", async () => {
      const { sid } = await client.messages.create({ to: PERSON, from: OURS, body: "Hi there" });
      assert.match(sid, /^SM[0-9a-f]{32}$/);
      await until(async () => (await client.messages(sid).fetch()).status === "delivered");
      const listed = await client.messages.list({ to: PERSON, limit: 50 });
      assert.ok(listed.some((one) => one.sid === sid));
      assert.equal((await client.messages(sid).update({ body: "" })).body, "");
      assert.ok(await client.messages(sid).remove());
      await assert.rejects(client.messages(sid).fetch(), { status: 404, code: 20404 });
    });

    test("a list follows pages", async () => {
      const to = name === "sidecar" ? "+14155550186" : "+14155550187";
      for (const body of ["one", "two", "three"]) await client.messages.create({ to, from: OURS, body });
      const found = await client.messages.list({ to, pageSize: 2, limit: 3 });
      assert.deepEqual(
        found.map((one) => one.body),
        ["three", "two", "one"],
      );
    });

    test("a verification is started and checked", async () => {
      const service = client.verify.v2.services(VERIFY_SERVICE);
      assert.equal((await service.verifications.create({ to: verified, channel: "sms" })).status, "pending");
      const shown = await (await fetch(`${stack.simulator_url}/simulator/verifications`)).json();
      const { code } = shown.verifications.find((/** @type {{ to: string }} */ one) => one.to === verified);
      const check = await service.verificationChecks.create({ to: verified, code });
      assert.deepEqual([check.status, check.valid], ["approved", true]);
    });

    test("a flow is executed", async () => {
      const { executions } = client.studio.v2.flows(FLOW);
      const { sid } = await executions.create({ to: PERSON, from: OURS, parameters: { text: "Hello" } });
      await until(async () => (await executions(sid).fetch()).status === "ended");
    });

    test("a content is listed and fetched", async () => {
      const { contents } = client.content.v1;
      if (name === "sidecar" && !PASSES_THROUGH) {
        await assert.rejects(contents(TEMPLATE).fetch(), { status: 404 });
        return;
      }
      assert.ok((await contents.list()).some((one) => one.sid === TEMPLATE));
      assert.equal((await contents(TEMPLATE).fetch()).friendlyName, "shipping_update");
    });
  });
}

test("a refusal of a rule has Twilio's code", async () => {
  const client = twilio(ACCOUNT, stack.app_key, { httpClient: new EdgeRequestClient({ url: stack.url }) });
  await post("/v1/suppressions", { account_sid: ACCOUNT, number: "+14155550198" });
  await assert.rejects(client.messages.create({ to: "+14155550198", from: OURS, body: "Hi" }), (error) => {
    assert.ok(error instanceof twilio.RestException);
    assert.deepEqual([error.code, error.details], [21610, { code: "suppressed", actor: "caller" }]);
    return true;
  });
});

test("the module has all members of Twilio's SDK, imported and required", () => {
  const required = require("twilio-edge/sdk");
  assert.equal(typeof required, "function");
  for (const module of [twilio, required]) {
    assert.equal(module.twiml.MessagingResponse, sdk.twiml.MessagingResponse);
    assert.equal(module.validateRequest, sdk.validateRequest);
    assert.ok(module(ACCOUNT, "key").httpClient instanceof sdk.RequestClient);
  }
  assert.equal(required.default, required);
});

test("hosts of Twilio move and others do not", async () => {
  /** @type {string[]} */
  const seen = [];
  const client = new EdgeRequestClient({ url: "http://edge:8081/", headers: { "Twilio-Edge-Category": "marketing" } });
  client.axios.defaults.adapter = async (config) => {
    seen.push(`${config.url} ${config.headers["Twilio-Edge-Host"]} ${config.headers["Twilio-Edge-Category"]}`);
    return { status: 200, data: "{}", headers: {}, statusText: "", config };
  };
  for (const uri of ["https://content.sydney.au1.twilio.com/v1/Content?A=1", "https://nottwilio.com/x", "http://127.0.0.1:9/a"]) {
    await client.request({ method: "get", uri });
  }
  assert.deepEqual(seen, [
    "http://edge:8081/v1/Content?A=1 content.sydney.au1.twilio.com marketing",
    "https://nottwilio.com/x undefined undefined",
    "http://127.0.0.1:9/a undefined undefined",
  ]);
  for (const url of ["127.0.0.1:8081", "ftp://edge", "http://edge?a"]) {
    assert.throws(() => new EdgeRequestClient({ url }), /no base URL/);
  }
});
