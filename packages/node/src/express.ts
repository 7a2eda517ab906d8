/**
 * Verified webhooks and signed events in Express.
 *
 *     app.post("/twilio/inbound", trustedWebhook((webhook, request, response) => { .. }));
 *     app.post("/events", sinkEvent(process.env.SINK_SECRET, async (event, request, response) => { .. }));
 */
import type { NextFunction, Request, RequestHandler, Response } from "express";

import { EdgeError, UnverifiedEventError, UnverifiedWebhookError } from "./errors.js";
import type { Event } from "./events.js";
import { type SinkOptions, SinkVerifier } from "./sinks.js";
import { type TrustedWebhook, trustedWebhook as read, type WebhookOptions } from "./webhooks.js";

/** Largest body that is read, in bytes. */
const MAX_BODY = 1 << 20;

/** Handler that gets what was verified before the arguments of Express. */
export type Handler<T> = (verified: T, request: Request, response: Response, next: NextFunction) => unknown;

/** Passes the verified webhook to a handler. Answers 403 to every other request. */
export function trustedWebhook(handler: Handler<TrustedWebhook>, options: WebhookOptions = {}): RequestHandler {
  return verified(async (request) => {
    // A parser of forms or of JSON may have read the body before.
    const body = (await rawBody(request)) ?? (request.body as Record<string, unknown> | undefined);
    const query = request.originalUrl.split("?")[1];
    return read(request.headers, { body, query }, options);
  }, handler);
}

/** Passes the event of a delivery to a handler. Answers 401 to a request with a wrong signature. */
export function sinkEvent(secrets: string | readonly string[], handler: Handler<Event>, options: SinkOptions = {}): RequestHandler {
  const verifier = new SinkVerifier(secrets, options);
  return verified(async (request) => {
    const body = await rawBody(request);
    if (body === undefined) {
      throw new EdgeError("a parser has read the body before sinkEvent: register this route before express.json(), or use express.raw()");
    }
    return verifier.verify(request.headers, body);
  }, handler);
}

function verified<T>(verify: (request: Request) => Promise<T>, handler: Handler<T>): RequestHandler {
  return async (request, response, next) => {
    try {
      const found = await verify(request);
      await handler(found, request, response, next);
    } catch (error) {
      // The sidecar retries after 401; after 400 it would give the delivery up.
      if (error instanceof UnverifiedWebhookError) response.status(403).type("text/plain").send(`${error.message}\n`);
      else if (error instanceof UnverifiedEventError) response.status(401).type("text/plain").send(`${error.message}\n`);
      else next(error);
    }
  };
}

/** Returns the bytes of the body; undefined if a parser has read and kept none of them. */
async function rawBody(request: Request): Promise<Uint8Array | undefined> {
  if (request.body instanceof Uint8Array) return request.body;
  if (request.readableEnded || request.readableDidRead) return undefined;
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > MAX_BODY) throw new EdgeError(`the body has more than ${MAX_BODY} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
