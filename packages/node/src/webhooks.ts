/** Reads what the filter of twilio-edge has verified: the trusted headers of a webhook, and its parameters. */
import { UnverifiedWebhookError } from "./errors.js";
import type { ForwardedEvent } from "./events.js";

/** Headers of a request, as `node:http` and `fetch` have them. */
export type Headers =
  | Readonly<Record<string, string | readonly string[] | undefined>>
  | { get(name: string): string | null };

/** A webhook that Twilio has signed, as the filter reports it. */
export interface TrustedWebhook {
  /** Account whose key signed the webhook. */
  accountSid: string;
  /** Class of its route. */
  kind: "inbound" | "status" | "other";
  messageSid?: string;
  /** Status of a status callback. */
  status?: string;
  /** Address of the sender without the prefix of its channel. */
  from?: string;
  /** Address of the recipient without the prefix of its channel. */
  to?: string;
  /** Channel, for instance `sms` or `whatsapp`. */
  channel?: string;
  /** Keyword of an opt-out, an opt-in or a request for help. */
  opt?: "stop" | "start" | "help";
  /** True if the sender is on the suppression list; missing without a verdict. */
  suppressed?: boolean;
  /** End of the conversation window that the message opened. */
  windowExpires?: Date;
  /** Links to the media that the sidecar stores. */
  media: string[];
  /** `first`, or `unknown` without a verdict; in shadow mode also `duplicate`. */
  dedupe?: "first" | "unknown" | "duplicate";
  /** Number of times that the webhook was passed to the backend, from 1; missing without a verdict. */
  attempt?: number;
  /** Key that signed: `current`, `next`, `key-3`, .. */
  key?: string;
  /** True if `twilio-edge listen` sent this copy to a developer's machine. */
  isCopy: boolean;
  /** Parameters as Twilio signed them. A name that occurs more than once has a list. */
  parameters: Readonly<Record<string, string | string[]>>;
  /** JSON event of a route with `body: json`. */
  event?: ForwardedEvent;
}

/** Requests that an application accepts. */
export interface WebhookOptions {
  /** Account SIDs whose webhooks are accepted; default: all that the filter accepts. */
  accounts?: readonly string[];
  /** Accepts the copies of `twilio-edge listen`, for development. */
  allowCopies?: boolean;
}

/** Parts of a request that have the parameters. */
export interface WebhookBody {
  /** Bytes of the body, or the object of a parser of forms. */
  body?: Uint8Array | string | Readonly<Record<string, unknown>> | undefined;
  /** Query of the URL, which has the parameters of a webhook by GET. */
  query?: string | undefined;
}

/**
 * Returns the webhook that the filter has verified.
 *
 * The application must be reachable through Envoy only: a client that reaches it directly can send any header.
 *
 * @throws UnverifiedWebhookError if the filter did not verify the request, or if it is for another account.
 */
export function trustedWebhook(headers: Headers, content: WebhookBody = {}, options: WebhookOptions = {}): TrustedWebhook {
  const trusted = (name: string) => header(headers, `x-twilio-edge-${name}`);
  const accountSid = trusted("verified");
  if (!accountSid) {
    throw new UnverifiedWebhookError(
      "the request has no header x-twilio-edge-verified: send webhooks through Envoy, on a route of the filter with mode enforce",
    );
  }
  if (options.accounts && !options.accounts.includes(accountSid)) {
    throw new UnverifiedWebhookError(`the webhook is for the account ${accountSid}, which this application does not serve`);
  }
  const isCopy = trusted("copy") === "true";
  if (isCopy && !options.allowCopies) {
    throw new UnverifiedWebhookError(
      "the request is a copy of `twilio-edge listen`: set allowCopies on a developer's machine only",
    );
  }
  const kind = trusted("class");
  if (kind !== "inbound" && kind !== "status" && kind !== "other") {
    throw new UnverifiedWebhookError(`the class of the webhook is ${JSON.stringify(kind)}: upgrade this package`);
  }
  const { body, query } = content;
  const type = (header(headers, "content-type") ?? "").split(";")[0]?.trim().toLowerCase();
  const event = type === "application/json" ? eventOf(body) : undefined;
  const form = type === "application/x-www-form-urlencoded" ? body : (query ?? "");
  const suppressed = trusted("suppressed");
  const attempt = trusted("attempt");
  const expires = trusted("window-expires");
  return {
    accountSid,
    kind,
    ...defined({
      messageSid: trusted("message-sid"),
      status: trusted("status"),
      from: trusted("from"),
      to: trusted("to"),
      channel: trusted("channel"),
      opt: trusted("opt") as TrustedWebhook["opt"],
      suppressed: suppressed === undefined ? undefined : suppressed === "true",
      windowExpires: expires === undefined ? undefined : new Date(expires),
      dedupe: trusted("dedupe") as TrustedWebhook["dedupe"],
      attempt: attempt === undefined ? undefined : Number(attempt),
      key: trusted("key"),
      event,
    }),
    media: (trusted("media") ?? "").split(" ").filter(Boolean),
    isCopy,
    parameters: event ? event.raw : parametersOf(form),
  };
}

/** Returns a header by its name in lower case; of several values the first one. */
export function header(headers: Headers, name: string): string | undefined {
  if (typeof headers.get === "function") return (headers as { get(name: string): string | null }).get(name) ?? undefined;
  const value = (headers as Readonly<Record<string, string | readonly string[] | undefined>>)[name];
  return typeof value === "object" ? value[0] : value;
}

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

function defined<T extends object>(fields: T): Defined<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Defined<T>;
}

function eventOf(body: WebhookBody["body"]): ForwardedEvent | undefined {
  let event: unknown = body;
  if (typeof body === "string" || body instanceof Uint8Array) {
    try {
      event = JSON.parse(Buffer.from(body as Uint8Array).toString("utf8"));
    } catch {
      return undefined;
    }
  }
  // The JSON body of a webhook of class `other` has any form.
  const isEvent = typeof event === "object" && event !== null && "event_type" in event && "raw" in event;
  return isEvent ? (event as ForwardedEvent) : undefined;
}

function parametersOf(form: WebhookBody["body"]): Record<string, string | string[]> {
  if (form !== undefined && typeof form !== "string" && !(form instanceof Uint8Array)) {
    return form as Record<string, string | string[]>;
  }
  const text = form === undefined ? "" : Buffer.from(form as Uint8Array).toString("utf8");
  const found: Record<string, string | string[]> = Object.create(null) as Record<string, string | string[]>;
  const pairs = new URLSearchParams(text);
  for (const name of new Set(pairs.keys())) {
    const values = pairs.getAll(name);
    found[name] = values.length === 1 ? (values[0] as string) : values;
  }
  return found;
}
