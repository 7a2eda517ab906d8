/** Verifies events that the sidecar delivers to an HTTP sink, by the signature of Standard Webhooks (standardwebhooks.com). */
import { createHmac, timingSafeEqual } from "node:crypto";

import { UnverifiedEventError } from "./errors.js";
import type { Event } from "./events.js";
import { type Headers, header } from "./webhooks.js";

/** Options of a verifier. */
export interface SinkOptions {
  /** Largest difference between the time of the signature and now, in seconds; default 300. */
  toleranceSeconds?: number;
}

/** Verifies the signatures of one sink. */
export class SinkVerifier {
  readonly #keys: Buffer[];
  readonly #toleranceSeconds: number;

  /**
   * @param secrets Secrets of the sink, `whsec_..`; several of them while one is replaced by another.
   * @throws TypeError if a secret is not valid.
   */
  constructor(secrets: string | readonly string[], options: SinkOptions = {}) {
    const given = typeof secrets === "string" ? [secrets] : secrets;
    if (given.length === 0) throw new TypeError("a sink has at least one secret, whsec_..");
    this.#keys = given.map(keyOf);
    this.#toleranceSeconds = options.toleranceSeconds ?? 300;
  }

  /**
   * Returns the event of a request.
   *
   * @param body Bytes of the request, not a parsed and rendered copy.
   * @throws UnverifiedEventError if the request is not signed with one of the secrets, is too old, or has no event.
   */
  verify(headers: Headers, body: Uint8Array | string): Event {
    const [id, timestamp, signatures] = ["id", "timestamp", "signature"].map((name) => header(headers, `webhook-${name}`));
    if (!id || !timestamp || !signatures) {
      throw new UnverifiedEventError("the request has no signature: set secrets of the sink, and send nothing else to this URL");
    }
    const seconds = /^\d{1,15}$/.test(timestamp) ? Number(timestamp) : Number.NaN;
    if (!(Math.abs(Date.now() / 1000 - seconds) <= this.#toleranceSeconds)) {
      throw new UnverifiedEventError(
        "the time of the signature is not near the time of this machine: set both clocks, and repeat nothing old",
      );
    }
    const expected = this.#keys.map((key) => createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest());
    const given = signatures.split(" ").filter((one) => one.startsWith("v1,"));
    // Compares every pair, so that the time does not depend on the secret that matches.
    const matches = expected.flatMap((one) => given.map((other) => isEqual(one, Buffer.from(other.slice(3), "base64"))));
    if (!matches.includes(true)) {
      throw new UnverifiedEventError("the signature is wrong: the secret is not that of the sink, or a proxy changed the body");
    }
    const event = parsed(typeof body === "string" ? body : Buffer.from(body).toString("utf8"));
    if (typeof event !== "object" || event === null || !("event_type" in event)) {
      throw new UnverifiedEventError('the body is no event: the sink needs format = "event"');
    }
    return event as Event;
  }
}

function keyOf(secret: string): Buffer {
  const text = secret.replace(/^whsec_/, "");
  const key = Buffer.from(text, "base64");
  if (key.length === 0 || key.toString("base64") !== text) throw new TypeError("a secret of a sink is whsec_ and Base64");
  return key;
}

function isEqual(one: Buffer, other: Buffer): boolean {
  return one.length === other.length && timingSafeEqual(one, other);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
