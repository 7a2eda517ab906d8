/**
 * The API `/v1` of the sidecar with types, which are generated from its OpenAPI documents.
 *
 *     const edge = edgeClient({ url: "http://127.0.0.1:8081", key });
 *     const message = await unwrap(edge.POST("/v1/messages", { body: { to, from, body } }));
 */
import createClient, { type Client } from "openapi-fetch";

import { ApiError, type Problem } from "./errors.js";
import { BINARY, KEYED } from "./operations.js";
import type { components, operations, paths } from "./v1.js";

export { ApiError } from "./errors.js";
export type { components, operations, paths };

/** Connection to a listener of the sidecar: the methods of openapi-fetch, for the paths of the API. */
export type EdgeClient = Client<paths>;
/** Schemas of the API by name, for instance `Schemas["Message"]`. */
export type Schemas = components["schemas"];

/** Options of a connection. */
export interface EdgeClientOptions {
  /** Base URL of a listener: `http://127.0.0.1:8081` for applications, `http://127.0.0.1:8082` for administrators. */
  url: string;
  /** API key of the sidecar, `twilio_edge_..`. */
  key: string;
  /** Limit of each attempt, in milliseconds; default 30000. It does not apply to `/v1/stream`. */
  timeoutMs?: number;
  /** Number of repetitions of a request; default 2. */
  retries?: number;
  /** Replacement of the global `fetch`. */
  fetch?: (request: Request) => Promise<Response>;
}

// Statuses after which a repeated request may succeed.
const RETRIED = new Set([429, 502, 503, 504]);

/**
 * Returns a connection to a listener of the sidecar.
 *
 * A request that was answered 429, 502, 503 or 504 is repeated, because it changed nothing. A request without an answer is repeated if
 * that is safe: one with GET, and one with an `Idempotency-Key`, which the sidecar carries out once. Operations that accept such a key get
 * a new one for each call.
 */
export function edgeClient(options: EdgeClientOptions): EdgeClient {
  const { key, retries = 2, timeoutMs = 30_000 } = options;
  const send = options.fetch ?? ((request: Request) => fetch(request));
  const client = createClient<paths>({
    baseUrl: options.url,
    headers: { Authorization: `Bearer ${key}` },
    bodySerializer: (body: unknown) => (body instanceof Blob ? body : JSON.stringify(body)),
    fetch: (request: Request) => repeated(request, send, retries, timeoutMs),
  });
  client.use({
    onRequest({ request, schemaPath }) {
      const type = BINARY.get(schemaPath);
      if (request.method === "POST" && type) request.headers.set("Content-Type", type);
      if (request.method === "POST" && KEYED.has(schemaPath) && !request.headers.has("Idempotency-Key")) {
        request.headers.set("Idempotency-Key", crypto.randomUUID());
      }
      return request;
    },
  });
  return client;
}

/**
 * Returns the data of a successful call.
 *
 * @throws ApiError if the sidecar refused the request, or failed.
 */
export async function unwrap<T>(call: Promise<{ data?: T; error?: unknown; response: Response }>): Promise<T> {
  const { data, error, response } = await call;
  if (response.ok) return data as T;
  const isProblem = response.headers.get("content-type")?.startsWith("application/problem+json");
  const seconds = Number(response.headers.get("retry-after") ?? Number.NaN);
  throw new ApiError(response.status, isProblem ? (error as Problem) : undefined, ...(Number.isFinite(seconds) ? [seconds] : []));
}

async function repeated(
  request: Request,
  send: (request: Request) => Promise<Response>,
  retries: number,
  timeoutMs: number,
): Promise<Response> {
  const isSafe = request.method === "GET" || request.headers.has("Idempotency-Key");
  const isStream = new URL(request.url).pathname.endsWith("/v1/stream");
  for (let attempt = 0; ; attempt++) {
    const isLast = attempt >= retries;
    let pause = 200 * 2 ** attempt;
    try {
      const limit = isStream ? request.signal : AbortSignal.any([request.signal, AbortSignal.timeout(timeoutMs)]);
      const response = await send(new Request(request.clone(), { signal: limit }));
      if (isLast || !RETRIED.has(response.status)) return response;
      const seconds = Number(response.headers.get("retry-after") ?? Number.NaN);
      if (Number.isFinite(seconds)) pause = Math.min(seconds, 30) * 1000;
      await response.body?.cancel();
    } catch (error) {
      if (isLast || !isSafe || request.signal.aborted) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}
