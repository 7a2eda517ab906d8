//! Table of all log events with their level and meaning, which `twilio-edge reference events` prints for
//! docs/OBSERVABILITY.md. A test compares it with the log lines in the code, in both directions.

use std::fmt::Write as _;

/// Name, level and meaning of each event.
const ALL: &[(&str, &str, &str)] = &[
    (
        "accounts.loaded",
        "info",
        "The sidecar read the accounts file at start: `accounts`, `generation`",
    ),
    (
        "accounts.reload_failed",
        "warn",
        "The sidecar could not use the accounts file; filters receive the last valid keys",
    ),
    ("accounts.reloaded", "info", "The sidecar read the accounts file again after a change"),
    ("admin.listening", "info", "The admin listener started"),
    (
        "archive.erased",
        "info",
        "The sidecar erased redacted data from the archive: `erasure.id` (docs/ARCHIVE.md)",
    ),
    (
        "archive.not_configured",
        "warn",
        "The sidecar found webhooks that are queued for an archive, but its own `archive.url` is not set",
    ),
    (
        "archive.write_failed",
        "warn",
        "The sidecar could not archive webhooks; it retries, and they stay in the ledger: `reason`",
    ),
    ("claim.answered", "debug", "The sidecar answered a claim: `decision`, `attempt`"),
    ("claims.unavailable", "warn", "No store could decide claims; filters receive `unavailable`"),
    (
        "connections.capped",
        "warn",
        "The limit of open files permitted fewer connections than `connections.max`: `max`, `wanted`",
    ),
    (
        "connections.refused",
        "warn",
        "The sidecar could not accept a connection, because the process has no open files left: `reason`",
    ),
    (
        "consent.persist_failed",
        "error",
        "The database did not record a withdrawn consent; a webhook that reported it waits",
    ),
    ("consent.withdrawn", "info", "Twilio reported that a recipient opted out of marketing"),
    (
        "contact.link_failed",
        "error",
        "The database did not record the links between user ids and numbers of contacts; their webhooks wait",
    ),
    (
        "contact.too_many_links",
        "warn",
        "The sidecar did not record a link, because the number or user id has 8 links already",
    ),
    (
        "deliveries.claim_failed",
        "warn",
        "The worker could not claim due deliveries, because the database failed: `sink`",
    ),
    (
        "deliveries.persist_failed",
        "warn",
        "The worker could not store the results of deliveries and waits for the database: `sink`",
    ),
    (
        "deliveries.results_rejected",
        "error",
        "The database rejected the results of deliveries; the worker delivers them again",
    ),
    (
        "delivery.dead_lettered",
        "error",
        "A delivery became a dead letter: `sink`, `delivery.id`, `reason` (docs/DELIVERY.md)",
    ),
    (
        "demo.enabled",
        "warn",
        "The sidecar started with `demo = true` and accepts published secrets",
    ),
    ("event.rejected", "error", "The database rejected an event permanently; the event is lost"),
    (
        "events.persist_failed",
        "warn",
        "The database did not store events; they wait in memory and in the spool",
    ),
    (
        "events.queue_full",
        "warn",
        "The queue was full and the database did not answer; claims are `unavailable`",
    ),
    (
        "export.aborted",
        "warn",
        "The sidecar aborted an export, because the database did not answer",
    ),
    (
        "files.exposed",
        "warn",
        "Other users have access to a file or folder with message data: `file`; the line contains the command that restricts it",
    ),
    (
        "files.restricted",
        "warn",
        "Other users had access to a file or folder with message data; the sidecar restricted it to its owner: `file`",
    ),
    (
        "flow.persist_failed",
        "error",
        "The database did not store the execution of a flow that an inbound message starts; its webhook waits",
    ),
    (
        "flow.started",
        "info",
        "The sidecar stored the execution of a flow for an inbound message: `flow.sid`, `state`, `code` of a refused one (docs/STUDIO.md)",
    ),
    (
        "idempotency.persist_failed",
        "warn",
        "The sidecar carried out a request, but could not store the response for its repetitions",
    ),
    (
        "idempotency.release_failed",
        "warn",
        "The sidecar could not release the idempotency key of a request that was refused or failed",
    ),
    (
        "inbound_media.delete_failed",
        "warn",
        "The sidecar could not delete a medium of an inbound message at Twilio: `media.id`, `reason`; `is_given_up` shows whether it retries",
    ),
    (
        "inbound_media.fetch_failed",
        "warn",
        "The sidecar could not fetch a medium of an inbound message: `media.id`, `code`, `reason`; `is_given_up` shows whether it retries",
    ),
    (
        "inbound_media.persist_failed",
        "warn",
        "The database did not store the result of a fetch, or did not return due media; the sidecar retries",
    ),
    ("key.created", "info", "An administrator created an API key"),
    (
        "key.last_use_failed",
        "warn",
        "The sidecar could not store the time of the last use of an API key",
    ),
    ("key.revoked", "info", "An administrator revoked an API key"),
    (
        "keys.read_failed",
        "warn",
        "The sidecar could not read the keys of the ledger after its start; it retries, and every claim reads the ledger",
    ),
    (
        "keyword.answered",
        "info",
        "The sidecar stored the reply to STOP, START or HELP: `keyword`, `state`, `code` of a refused one (docs/COMPLIANCE.md)",
    ),
    (
        "log.lines_suppressed",
        "info",
        "The sidecar suppressed log lines of the event `of`, because there were too many: `count`",
    ),
    ("media.bucket_failed", "warn", "The bucket of `media.store` failed an operation: `reason`"),
    (
        "media.delete_failed",
        "warn",
        "The sidecar could not delete expired media; it retries: `reason`",
    ),
    (
        "media.listening",
        "info",
        "The media listener started and serves links to stored media: `links`",
    ),
    (
        "media.private_addresses_allowed",
        "warn",
        "The sidecar started with `media.trust_addresses` and fetches media from private addresses: `addresses`. Never in production",
    ),
    (
        "media.refused",
        "info",
        "The sidecar found that media of a message cannot be sent; `why` is the reason in one word",
    ),
    (
        "message.absent",
        "info",
        "The reconciler found that Twilio never had an `unknown` message; the dispatcher sends it again",
    ),
    (
        "message.answered",
        "debug",
        "Twilio answered a request to send a message: `twilio.request_id`, `meaning`",
    ),
    (
        "message.attempt_lost",
        "error",
        "Sidecars stopped during attempts to send; `count` messages became `unknown` (docs/SENDING.md)",
    ),
    (
        "message.delivered_late",
        "error",
        "Twilio reported the delivery of a message after its failure, and the sidecar had sent it again: the recipient may have it twice",
    ),
    (
        "message.delivery_failed",
        "info",
        "Twilio accepted a message and could not deliver it: `message.id`, `message.sid`, `status`, `code`",
    ),
    (
        "message.fallback_sent",
        "info",
        "The sidecar replaced a message that its channel did not accept: `code`, `to`, `instead`, `state`",
    ),
    (
        "message.persist_failed",
        "error",
        "The database did not store the outcome of an attempt to send; the message becomes `unknown` unless a retry succeeds",
    ),
    ("message.reconciled", "info", "The reconciler found an `unknown` message in Twilio's list"),
    (
        "message.refused",
        "info",
        "The sidecar or Twilio refused an accepted message, which is not sent: `code`, `reason`, `twilio.request_id`",
    ),
    (
        "message.repeated",
        "info",
        "Twilio could not deliver a message, and the sidecar sends it again: `message.id`, `code`, `due` (docs/SENDING.md)",
    ),
    (
        "message.search_failed",
        "warn",
        "The reconciler could not read Twilio's list of messages; it retries",
    ),
    (
        "message.sent",
        "info",
        "Twilio accepted a message: `message.id`, `message.sid`, `twilio.request_id`",
    ),
    (
        "message.unknown",
        "error",
        "An attempt ended without a clear answer, so the message became `unknown`: `message.id`, `reason` (docs/SENDING.md)",
    ),
    (
        "message.unresolved",
        "error",
        "The reconciler could not determine from Twilio's list whether a message was sent; an operator must decide (docs/SENDING.md)",
    ),
    ("messages.claim_failed", "warn", "The database did not answer; messages wait to be sent"),
    (
        "notification.persist_failed",
        "warn",
        "The database did not store a declined message; the notification log does not have it, and the caller got its refusal",
    ),
    (
        "optout.persist_failed",
        "error",
        "The database did not record opt-outs; webhooks that reported them wait",
    ),
    (
        "peer.heartbeat_failed",
        "warn",
        "The sidecar could not send its heartbeat to the other sidecars",
    ),
    (
        "peer.unregister_failed",
        "warn",
        "The sidecar could not unregister itself from the other sidecars at shutdown",
    ),
    (
        "plan.move_on_failed",
        "warn",
        "The reconciler could not move unanswered steps of notifications on; it retries: `reason`",
    ),
    (
        "process.panicked",
        "error",
        "The sidecar panicked, which is a defect of the program: `location`, and `reason` if it contains no data. Set `RUST_BACKTRACE=1` for a `backtrace`",
    ),
    ("redis.available", "info", "Redis answered again"),
    ("redis.unavailable", "warn", "Redis did not answer; the database alone decides claims"),
    (
        "refused_requests.misconfigured",
        "warn",
        "Filters refuse genuine webhooks, for a cause that was not known yet: `cause`, `http.route`, `remedy`. Logged once for each group (docs/SIGNATURES.md)",
    ),
    (
        "refused_requests.persist_failed",
        "warn",
        "The database did not store a refused request; its report is lost: `reason`",
    ),
    (
        "replay.step_failed",
        "warn",
        "The database or the archive did not answer; the replay waits and then continues",
    ),
    ("request.answered", "debug", "The API carried out a request"),
    (
        "request.failed",
        "warn",
        "The API could not carry out a request; the operator must act: `code`, `reason`",
    ),
    (
        "request.refused",
        "info",
        "The API refused a request; the caller must act: `code` (docs/API.md), `http.route`, `actor`",
    ),
    ("retention.done", "info", "The retention job redacted or deleted rows: `redacted`, `deleted`"),
    ("retention.failed", "warn", "A run of the retention job failed; the next run continues"),
    (
        "routing.reload_failed",
        "warn",
        "The sidecar could not use the routing file; the last valid routes stay in effect",
    ),
    ("routing.reloaded", "info", "The sidecar read changed routes, which are now in effect"),
    ("session.ended", "info", "The owner of an API key ended a session: `key.id`"),
    (
        "session.started",
        "info",
        "The owner of an API key started a session, for instance in the console: `key.id`",
    ),
    (
        "settings.contradictory",
        "warn",
        "The sidecar found two settings that contradict each other, at start: `reason` (docs/SENDING.md)",
    ),
    ("settlement.answered", "debug", "The sidecar answered a settlement: `outcome`, `result`"),
    (
        "settlements.persist_failed",
        "warn",
        "The sidecar could not store settlements; filters send them again",
    ),
    (
        "shutdown.deliveries_aborted",
        "warn",
        "The shutdown deadline passed before every delivery ended; the deliveries are retried",
    ),
    (
        "shutdown.events_spooled",
        "error",
        "The shutdown deadline passed before every event was written; the spool contains them",
    ),
    (
        "shutdown.messages_aborted",
        "error",
        "The shutdown deadline passed before Twilio answered; these messages become `unknown`",
    ),
    (
        "shutdown.requests_aborted",
        "warn",
        "The shutdown deadline passed before every request was answered",
    ),
    ("sidecar.listening", "info", "The sidecar started to listen: `version`, `stores`, `listen`"),
    ("sidecar.stopped", "info", "The sidecar completed its shutdown"),
    (
        "sidecar.stopping",
        "info",
        "The sidecar received SIGTERM or SIGINT, or a background task failed: `reason`",
    ),
    ("sink.recovered", "info", "A sink answered again"),
    ("sink.unavailable", "warn", "A sink did not answer; its deliveries wait: `sink`, `reason`"),
    ("spool.delete_failed", "warn", "The sidecar could not remove a spool file"),
    (
        "spool.recovered",
        "warn",
        "The sidecar found the spool of a killed sidecar and wrote its events to the database",
    ),
    (
        "spool.recovery_failed",
        "warn",
        "The sidecar could not write the events of a killed sidecar's spool yet; it retries",
    ),
    ("spool.resumed", "info", "The spool accepted events again"),
    (
        "spool.unavailable",
        "error",
        "The spool could not store events, because it is full or its disk failed; claims wait for the database",
    ),
    (
        "spool.unknown_version",
        "error",
        "The sidecar found a spool file of another version and did not change it",
    ),
    (
        "status.apply_failed",
        "warn",
        "The sidecar could not store reported statuses of sent messages: `count`",
    ),
    (
        "status.lookup_failed",
        "warn",
        "The reconciler could not read or store the status of a sent message that no callback reported; it retries",
    ),
    (
        "stream.closed",
        "info",
        "A live stream ended: `actor`, `reason`, `webhooks`, `duration_ms` (docs/STREAM.md)",
    ),
    ("stream.opened", "info", "A caller opened a live stream: `actor`, `source`, `account.sid`"),
    (
        "stream.read_failed",
        "warn",
        "The sidecar could not read the ledger for live streams; it retries, and the streams miss nothing: `reason`",
    ),
    ("suppression.changed", "info", "An opt-out or opt-in changed a suppression, or it expired"),
    (
        "suppressions.expire_failed",
        "warn",
        "The sidecar could not store the end of expired suppressions; it retries, and they are without effect: `reason`",
    ),
    (
        "task.failed",
        "error",
        "A background task panicked or ended too early; the sidecar shuts down with an error: `task`, `reason` (docs/ARCHITECTURE.md)",
    ),
    (
        "templates.changed",
        "info",
        "The sidecar found changed templates at Twilio: `count`; the audit log lists each one",
    ),
    (
        "templates.persist_failed",
        "warn",
        "The sidecar could not store templates that it read from Twilio; it reads them again",
    ),
    (
        "templates.reload_failed",
        "warn",
        "The sidecar could not read templates from the database again",
    ),
    (
        "templates.sync_failed",
        "warn",
        "The sidecar could not read templates from Twilio; the earlier ones stay in effect: `reason`. Logged once until a read succeeds",
    ),
    (
        "tenant.invalid",
        "error",
        "The profile of an account in the database is invalid under the current configuration; the defaults apply",
    ),
    ("tenants.reload_failed", "warn", "The sidecar could not read the profiles of accounts again"),
    ("traces.dropped", "warn", "The shutdown deadline passed before every span was exported"),
    (
        "traces.export_failed",
        "warn",
        "The collector did not accept spans; spans are lost until it does",
    ),
    ("traces.export_recovered", "info", "The collector accepted spans again"),
    (
        "verification.check_failed",
        "warn",
        "Twilio Verify did not answer a request about a verification: `reason`; the caller repeats it",
    ),
    (
        "verification.ended",
        "info",
        "A verification was approved or canceled, or had too many wrong codes: `status`, `verification.sid`",
    ),
    (
        "webhooks.accept_failed",
        "warn",
        "The database did not store accepted webhooks; filters receive `unavailable`",
    ),
];

/// Renders all events as the table of docs/OBSERVABILITY.md.
pub fn reference() -> String {
    let mut table = "| event | level | meaning |\n|---|---|---|\n".to_owned();
    for (event, level, meaning) in ALL {
        let _ = writeln!(table, "| `{event}` | {level} | {meaning} |");
    }
    table
}

#[cfg(test)]
mod tests;
