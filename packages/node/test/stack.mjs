// The stack that packages/test.py started.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

assert.ok(process.env["TWILIO_EDGE_STACK"], "run this by packages/test.py");

/** @type {{ url: string, admin_url: string, simulator_url: string, admin_key: string, app_key: string, app_key_id: string }} */
export const stack = JSON.parse(process.env["TWILIO_EDGE_STACK"]);
export const ACCOUNT = "AC00112233445566778899aabbccddeeff";
export const AUTH_TOKEN = "0123456789abcdef0123456789abcdef";
export const VERIFY_SERVICE = "VA00112233445566778899aabbccddeeff";
export const SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
export const [OURS, PERSON] = ["+14155238886", "+14155550123"];

/** @param {() => Promise<unknown>} condition */
export async function until(condition) {
  for (const deadline = Date.now() + 15_000; !(await condition()); await sleep(30)) {
    assert.ok(Date.now() < deadline, "the condition is not met within 15 s");
  }
}

/** @param {string} path @param {unknown} body */
export async function post(path, body) {
  const headers = { Authorization: `Bearer ${stack.app_key}` };
  const response = await fetch(stack.url + path, { method: "POST", headers, body: JSON.stringify(body) });
  assert.ok(response.ok, await response.text());
}
