// The code blocks of the README run as they are, with the URL of the stack.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";

import { ACCOUNT, SECRET, stack } from "./stack.mjs";

const readme = readFileSync(new URL("../node_modules/twilio-edge/README.md", import.meta.url), "utf8");
const blocks = [...readme.matchAll(/```js\n(.*?)```/gs)].map((match) => `${match[1]}`);

test("the blocks of the README run", async (context) => {
  assert.equal(blocks.length, 3);
  Object.assign(process.env, {
    SINK_SECRET: SECRET,
    TWILIO_ACCOUNT_SID: ACCOUNT,
    TWILIO_AUTH_TOKEN: stack.app_key,
    TWILIO_EDGE_KEY: stack.app_key,
    TWILIO_EDGE_URL: stack.url,
  });
  /** @type {string[]} */
  const printed = [];
  context.mock.method(console, "log", (/** @type {unknown} */ text) => printed.push(`${text}`));
  for (const [index, block] of blocks.entries()) {
    const file = new URL(`./readme-${index}.mjs`, import.meta.url);
    writeFileSync(file, block.replaceAll("http://127.0.0.1:8081", stack.url));
    await import(file.href);
  }
  assert.match(printed.join(" "), /^SM[0-9a-f]{32} ms_[0-9a-f]{32}$/);
});
