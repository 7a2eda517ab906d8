/**
 * Verified webhooks and signed events in Fastify. The routes are in a scope of their own, whose bodies are not parsed:
 *
 *     app.register(async (scope) => {
 *       rawBodies(scope);
 *       scope.post("/twilio/inbound", trustedWebhook(async (webhook, request, reply) => { .. }));
 *       scope.post("/events", sinkEvent(process.env.SINK_SECRET, async (event, request, reply) => { .. }));
 *     });
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";

import { EdgeError, UnverifiedEventError, UnverifiedWebhookError } from "./errors.js";
import type { Event } from "./events.js";
import { type SinkOptions, SinkVerifier } from "./sinks.js";
import { type TrustedWebhook, trustedWebhook as read, type WebhookOptions } from "./webhooks.js";

/** Handler that gets what was verified before the arguments of Fastify. */
export type Handler<T> = (verified: T, request: FastifyRequest, reply: FastifyReply) => unknown;
/** Handler of a route. */
export type RouteHandler = (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>;

/** Gives the routes of this scope the bytes of bodies instead of parsed ones. */
export function rawBodies(scope: Pick<FastifyInstance, "addContentTypeParser" | "removeAllContentTypeParsers">): void {
  scope.removeAllContentTypeParsers();
  scope.addContentTypeParser("*", { parseAs: "buffer" }, (_request, body, done) => done(null, body));
}

/** Passes the verified webhook to a handler. Answers 403 to every other request. */
export function trustedWebhook(handler: Handler<TrustedWebhook>, options: WebhookOptions = {}): RouteHandler {
  return verified((request) => {
    const body = request.body as Uint8Array | Record<string, unknown> | undefined;
    return read(request.headers, { body, query: request.url.split("?")[1] }, options);
  }, handler);
}

/** Passes the event of a delivery to a handler. Answers 401 to a request with a wrong signature. */
export function sinkEvent(secrets: string | readonly string[], handler: Handler<Event>, options: SinkOptions = {}): RouteHandler {
  const verifier = new SinkVerifier(secrets, options);
  return verified((request) => {
    if (!(request.body instanceof Uint8Array)) {
      throw new EdgeError("the body is parsed: call rawBodies(scope) in the scope of this route");
    }
    return verifier.verify(request.headers, request.body);
  }, handler);
}

function verified<T>(verify: (request: FastifyRequest) => T, handler: Handler<T>): RouteHandler {
  return async (request, reply) => {
    let found: T;
    try {
      found = verify(request);
    } catch (error) {
      // The sidecar retries after 401; after 400 it would give the delivery up.
      if (error instanceof UnverifiedWebhookError) return reply.code(403).type("text/plain").send(`${error.message}\n`);
      if (error instanceof UnverifiedEventError) return reply.code(401).type("text/plain").send(`${error.message}\n`);
      throw error;
    }
    return handler(found, request, reply);
  };
}
