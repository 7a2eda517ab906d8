// Signs webhooks with Twilio's Node SDK. One JSON object per line in, one per line out:
//   {token, url, params: [[name, value], ..]}  ->  {url, signature}   a form
//   {token, url, body}                         ->  {url, signature}   anything else: the hash of the body joins the URL
import { createInterface } from "node:readline";
import twilio from "twilio/lib/webhooks/webhooks.js";

function sign({ token, url, params = [], body }) {
  if (body !== undefined) {
    url += (url.includes("?") ? "&" : "?") + "bodySHA256=" + twilio.getExpectedBodyHash(body);
  }
  const byName = {};
  for (const [name, value] of params) {
    byName[name] = name in byName ? [byName[name], value].flat() : value;
  }
  return { url, signature: twilio.getExpectedTwilioSignature(token, url, byName) };
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(sign(JSON.parse(line))) + "\n");
}
