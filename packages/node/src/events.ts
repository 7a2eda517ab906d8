/**
 * Types of the events that the sidecar delivers (docs/event.schema.json). `event_type` distinguishes them. A later version may add
 * fields and types: ignore those that you do not know.
 */

/** Parameters of a webhook; a name that occurs more than once has a list. */
export type Parameters = Record<string, string | string[]>;
/** Keyword of an opt-out, an opt-in or a request for help. */
export type Opt = "stop" | "start" | "help";

/** Medium of an inbound message that the sidecar stores. */
export interface Media {
  id: string;
  content_type: string;
  url: string;
}

/** Button that the contact tapped. */
export interface Button {
  text?: string;
  payload?: string;
}

/** List item that the contact chose. */
export interface ListItem {
  id: string;
  title?: string;
}

/** Location that the contact shared. */
export interface Location {
  latitude: number;
  longitude: number;
  address?: string;
  label?: string;
}

/** Advertisement that the contact came from. */
export interface Referral {
  source_id?: string;
  source_type?: string;
  source_url?: string;
  headline?: string;
  body?: string;
  media_url?: string;
  media_content_type?: string;
  ctwa_clid?: string;
}

/** vCard that the contact shared. */
export interface Contact {
  url: string;
  content_type: string;
}

/** Message that the contact replied to. */
export interface RepliedTo {
  message_sid: string;
  sender?: string;
}

/** Fields of every event. */
interface Base {
  /** Id of the event, the same for each copy and each sink: use it to drop duplicates. */
  event_id: string;
  account_sid: string;
  /** True if an operator requested the delivery again. */
  replay: boolean;
  replay_id?: string;
}

interface Webhook extends Base {
  received_at?: string;
  message_sid: string;
  from?: string;
  to?: string;
  channel?: string;
  error_code?: string;
  body?: string;
  num_media?: number;
  route: string;
  raw: Parameters;
}

/** A message that a person sent. */
export interface InboundEvent extends Webhook {
  event_type: "twilio_inbound";
  media?: Media[];
  opt?: Opt;
  suppressed?: boolean;
  window_expires?: string;
  button?: Button;
  list?: ListItem;
  location?: Location;
  referral?: Referral;
  contacts?: Contact[];
  replied_to?: RepliedTo;
}

/** Status of a message. Statuses can arrive out of order. */
export interface StatusEvent extends Webhook {
  event_type: "twilio_status";
  status: string;
  metadata?: Record<string, string>;
}

/** Test of the sink that an operator requested. Its account and message do not exist: do not act on it. */
export interface TestEvent extends Base, Partial<Omit<Webhook, keyof Base>> {
  event_type: "test";
}

/** JSON event that the filter forwards on a route with `body: json` (docs/CONFIG.md). */
export interface ForwardedEvent {
  event_type: "twilio_inbound" | "twilio_status" | "twilio_other";
  account_sid: string;
  message_sid?: string;
  from?: string;
  to?: string;
  channel?: string;
  body?: string;
  status?: string;
  error_code?: string;
  num_media?: number;
  media?: Media[];
  opt?: Opt;
  suppressed?: boolean;
  window_expires?: string;
  dedupe?: "first" | "unknown" | "duplicate";
  attempt?: number;
  key?: string;
  raw: Parameters;
}

/** Reason why a message was not sent or not delivered. */
export interface MessageError {
  code: string;
  reason?: string;
  actor?: "caller" | "operator" | "administrator" | "recipient" | "none";
  remedy?: string;
}

/** An outbound message, as the change left it. */
export interface Message {
  id: string;
  notification_id?: string;
  provider?: string;
  sid?: string;
  state: "sent" | "refused" | "unknown" | "declined";
  status?: string;
  error?: MessageError;
  to?: string;
  from?: string;
  channel: string;
  category?: string;
  template?: string;
  fallback?: string;
  fallback_of?: string;
  reply_to?: { sid: string; keyword: Opt };
  metadata?: Record<string, string>;
  attempts: number;
  repetitions: number;
  created_at: string;
}

/** A reason to suppress a contact. */
export interface Suppression {
  contact: string;
  channel: string;
  suppressed: boolean;
  source: "keyword" | "opt_out_type" | "callback" | "administrator" | "application" | "import";
  error_code?: string;
  since: string;
  expires_at?: string;
  message_sid?: string;
  sender?: string;
  changed_by?: string;
}

/** A consent that was granted or withdrawn. */
export interface Consent {
  contact: string;
  channel: string;
  category: string;
  state: "granted" | "withdrawn";
  at: string;
  source: string;
  recorded_by: string;
}

/** A conversation window of WhatsApp. */
export interface Window {
  contact: string;
  channel: "whatsapp";
  sender: string;
  message_sid: string;
  opened_at: string;
  expires_at: string;
}

/** A changed template. */
export interface Template {
  change: "set" | "added" | "changed" | "approval_changed" | "removed";
  reference: string;
  name?: string;
  locale?: string;
  content_sid?: string;
  approval?: string;
  reason?: string;
  detail?: Record<string, unknown>;
}

/** A delivery that became a dead letter. */
export interface Delivery {
  sink: string;
  delivery_id: string;
  event_id: string;
  queued_at: string;
  tries: number;
  reason?: string;
}

/** Profile of an account. */
export interface Account {
  revision: number;
  friendly_name: string;
  parent_sid?: string;
  senders: string[];
  services: string[];
  policy?: Record<string, unknown>;
  retention?: Record<string, unknown>;
  closed_at?: string;
}

interface Operational<Type extends string, Data> extends Base {
  event_type: Type;
  recorded_at: string;
  data: Data;
}

/** A change of an outbound message. */
export type MessageEvent = Operational<
  | "message.declined"
  | "message.refused"
  | "message.sent"
  | "message.expired"
  | "message.unknown"
  | "message.switched"
  | "message.failed"
  | "verification.ended",
  Message
>;
/** A reason to suppress a contact began, was prolonged, ended or expired. */
export type SuppressionEvent = Operational<"suppression.changed", Suppression>;
/** A consent was recorded, granted or withdrawn. */
export type ConsentEvent = Operational<"consent.changed", Consent>;
/** A contact opened a conversation window. */
export type WindowEvent = Operational<"window.opened", Window>;
/** A template was added, changed, approved or removed. */
export type TemplateEvent = Operational<"template.changed", Template>;
/** A delivery became a dead letter. */
export type DeliveryEvent = Operational<"delivery.dead", Delivery>;
/** The profile of an account was created, changed or closed. */
export type AccountEvent = Operational<"account.changed", Account>;

/** An event that reports what the sidecar did. */
export type OperationalEvent =
  | MessageEvent
  | SuppressionEvent
  | ConsentEvent
  | WindowEvent
  | TemplateEvent
  | DeliveryEvent
  | AccountEvent;
/** An event of a sink. */
export type Event = InboundEvent | StatusEvent | TestEvent | OperationalEvent;
