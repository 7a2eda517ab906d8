/**
 * Client of twilio-edge, which verifies Twilio's webhooks in Envoy and sends messages.
 *
 * - `twilio-edge/sdk`: Twilio's SDK through the sidecar.
 * - `twilio-edge/express`, `twilio-edge/fastify`: verified webhooks and signed events in a framework.
 * - `twilio-edge/api`: the API `/v1` with types.
 *
 * @packageDocumentation
 */
export { ApiError, EdgeError, UnverifiedEventError, UnverifiedWebhookError } from "./errors.js";
export type { Actor, Problem } from "./errors.js";
export type * from "./events.js";
export { SinkVerifier } from "./sinks.js";
export type { SinkOptions } from "./sinks.js";
export { trustedWebhook } from "./webhooks.js";
export type { Headers, TrustedWebhook, WebhookOptions } from "./webhooks.js";
