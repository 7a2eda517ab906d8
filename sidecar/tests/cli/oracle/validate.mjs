// Judges webhooks with Twilio's Node SDK, behind Express's body parsing. One JSON object per line in,
//   {token, method, url, headers, body}   body in base64
// and `accept` or `reject` per line out. Argument: the folder that npm installed `twilio` into.
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { parse } from "node:querystring";
import { createInterface } from "node:readline";

const require = createRequire(resolve(process.argv[2], "package.json"));
const twilio = require("twilio/lib/webhooks/webhooks.js");

const MAX_PARAMETERS = 1000; // body-parser's parameterLimit

// What express.urlencoded() and express.json(), with a `verify` that keeps the bytes, make of a request.
function parseBody(method, contentType, bytes) {
  if (bytes.length === 0) return { body: {}, rawBody: undefined };
  const [type, ...parameters] = (contentType ?? "").split(";").map((part) => part.trim().toLowerCase());
  const charset = parameters.find((part) => part.startsWith("charset="))?.slice("charset=".length);
  if (charset && charset !== "utf-8") throw new Error("415: unsupported charset");
  const text = bytes.toString("utf8");
  if (type === "application/x-www-form-urlencoded") {
    if (text.split("&").length > MAX_PARAMETERS) throw new Error("413: too many parameters");
    return { body: parse(text, "&", "=", { maxKeys: MAX_PARAMETERS }), rawBody: bytes };
  }
  if (type === "application/json") return { body: JSON.parse(text), rawBody: bytes };
  return { body: {}, rawBody: bytes };
}

function accepts({ token, method, url, headers, body }) {
  const byName = new Map(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
  const header = (name) => byName.get(name.toLowerCase());
  const signature = header("X-Twilio-Signature");
  if (!signature) return false; // the middleware answers 400
  const parsed = parseBody(method, header("Content-Type"), Buffer.from(body, "base64"));
  return twilio.validateExpressRequest({ header, ...parsed }, token, { url });
}

for await (const line of createInterface({ input: process.stdin })) {
  let verdict;
  try {
    verdict = accepts(JSON.parse(line));
  } catch {
    verdict = false; // Express answers 4xx or 500
  }
  console.log(verdict ? "accept" : "reject");
}
