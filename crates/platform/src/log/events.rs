//! Table of all log events with their level and meaning, which `twilio-edge reference events` prints for
//! docs/OBSERVABILITY.md. A test compares it with the log lines in the code, in both directions.

use std::fmt::Write as _;

/// Name, level and meaning of each event.
const ALL: &[(&str, &str, &str)] = &[
    ("accounts.read", "info", "The accounts file was read at start: `accounts`, `generation`"),
    ("accounts.read_again", "info", "It was read again, because it has changed"),
    ("accounts.unusable", "warn", "It cannot be used any more: filters get the last good keys"),
    ("admin.listening", "info", "The listener of administrators is there"),
    (
        "archive.erased",
        "info",
        "What was redacted is out of the archive too: `erasure.id` (docs/ARCHIVE.md)",
    ),
    (
        "archive.missing",
        "warn",
        "Webhooks are queued for an archive, and this sidecar has no `archive.url`",
    ),
    (
        "archive.waiting",
        "warn",
        "The archive does not take webhooks: they stay in the ledger until it does: `reason`",
    ),
    ("claim.answered", "debug", "A webhook was claimed: `decision`, `attempt`"),
    (
        "claims.undecided",
        "warn",
        "No store could say whose webhooks these are: filters are told `unavailable`",
    ),
    (
        "connections.capped",
        "warn",
        "The limit of open files permits fewer connections than `connections.max`: `max`, `wanted`",
    ),
    (
        "connections.refused",
        "warn",
        "A connection could not be taken, because the process has no open files left: `reason`",
    ),
    (
        "consent.unrecorded",
        "error",
        "The database does not take a withdrawn consent: its webhook waits",
    ),
    ("consent.withdrawn", "info", "Twilio reported that a recipient opted out of marketing"),
    (
        "contact.link_failed",
        "error",
        "The database does not take which user ids belong to which numbers: their webhooks wait",
    ),
    (
        "contact.too_many_links",
        "warn",
        "A number or user id of a contact has 8 others already: one more is not recorded",
    ),
    (
        "deliveries.refused",
        "error",
        "The database refuses how deliveries ended: they are tried once more",
    ),
    ("deliveries.unwritten", "warn", "How deliveries ended waits for the database: `sink`"),
    ("deliveries.waiting", "warn", "What is due cannot be read from the database: `sink`"),
    (
        "delivery.given_up",
        "error",
        "A delivery is a dead letter: `sink`, `delivery.id`, `reason` (docs/DELIVERY.md)",
    ),
    ("demo.enabled", "warn", "`demo = true`: published secrets are accepted"),
    ("event.refused", "error", "The database refuses an event for good: it is lost"),
    (
        "events.no_room",
        "warn",
        "The queue is full and the database does not answer: claims are `unavailable`",
    ),
    (
        "events.waiting",
        "warn",
        "The database does not take events: they wait, in memory and in the spool",
    ),
    (
        "files.exposed",
        "warn",
        "Others may look into a file or folder with what people wrote: `file`, and the command that mends it",
    ),
    (
        "files.restricted",
        "warn",
        "Others could read a file or folder with what people wrote; the sidecar has taken that from them: `file`",
    ),
    (
        "idempotency.not_freed",
        "warn",
        "A request was refused or failed, and its key could not be given back",
    ),
    (
        "idempotency.not_kept",
        "warn",
        "A request was done, and its answer could not be kept for copies",
    ),
    ("key.created", "info", "An administrator made a key"),
    ("key.revoked", "info", "An administrator revoked a key"),
    ("key.use_not_noted", "warn", "When a key was last used could not be written down"),
    (
        "limits.disagree",
        "warn",
        "Two settings do not fit together, at start: `reason` (docs/SENDING.md)",
    ),
    ("list.cut_short", "warn", "An export was broken off, because the database did not answer"),
    (
        "log.held_back",
        "info",
        "Lines of the event `of` that were not written, because there were too many: `count`",
    ),
    (
        "media.listening",
        "info",
        "Links to media that are kept are answered from now on, and where: `links`",
    ),
    (
        "media.no_bucket",
        "warn",
        "The bucket of `media.store` does not do what is asked of it: `reason`",
    ),
    (
        "media.not_deleted",
        "warn",
        "Media that have had their time are still there; it is tried again: `reason`",
    ),
    (
        "media.trusting",
        "warn",
        "Addresses that are not public count as if they were: `addresses`. Never in production",
    ),
    ("media.unfit", "info", "Media of a message cannot be sent, and `why` in one word"),
    (
        "message.persist_failed",
        "error",
        "The database did not take what became of a message: it is tried again, then unknown",
    ),
    ("optout.unrecorded", "error", "The database does not take opt-outs: their webhooks wait"),
    ("peer.heartbeat_failed", "warn", "Others could not be told that this sidecar is there"),
    ("redis.away", "warn", "Redis does not answer: claims go to the database alone"),
    ("redis.back", "info", "Redis answers again"),
    (
        "replay.waiting",
        "warn",
        "The database or the archive does not answer: a replay goes on when it does",
    ),
    ("request.answered", "debug", "The API did as it was asked"),
    ("request.failed", "warn", "It could not, and the operator must act: `code`, `reason`"),
    (
        "request.refused",
        "info",
        "It did not, and the caller must act: `code` (docs/API.md), `http.route`, `actor`",
    ),
    ("retention.done", "info", "Something was redacted or deleted: `redacted`, `deleted`"),
    ("retention.failed", "warn", "A run of the retention job did not finish; the next one goes on"),
    ("routing.read_again", "info", "The routes have changed, and count now"),
    ("routing.unusable", "warn", "Their file cannot be used any more: the last good ones count"),
    ("send.absent", "info", "Twilio never had a message of which nobody knew: it is sent again"),
    ("send.answered", "debug", "Twilio answered: `twilio.request_id`, `meaning`"),
    (
        "send.lost",
        "error",
        "Sidecars ended while messages were on their way: `count` of them are unknown (docs/SENDING.md)",
    ),
    ("send.not_looked_for", "warn", "Twilio's list could not be read: it is tried again"),
    ("send.reconciled", "info", "A message of which nobody knew is in Twilio's list"),
    (
        "send.refused",
        "info",
        "A message that was taken on is not sent: `code`, `reason`, `twilio.request_id`",
    ),
    ("send.sent", "info", "Twilio has a message: `send.id`, `message.sid`, `twilio.request_id`"),
    (
        "send.switched",
        "info",
        "Another message is sent instead of one that its channel did not take: `code`, `to`, `instead`, `state`",
    ),
    (
        "send.unclear",
        "error",
        "Twilio's list does not tell whether a message was sent: somebody has to decide (docs/SENDING.md)",
    ),
    (
        "send.unknown",
        "error",
        "Nobody knows whether a message was sent: `send.id`, `reason` (docs/SENDING.md)",
    ),
    ("sends.waiting", "warn", "The database does not answer: messages wait to be sent"),
    ("settlement.answered", "debug", "A webhook was settled: `outcome`, `result`"),
    ("settlements.unsettled", "warn", "Settlements could not be written: filters send them again"),
    ("siblings.not_left", "warn", "Others could not be told that this sidecar stops"),
    ("sidecar.cut_requests", "warn", "The time to stop was over before every request was answered"),
    (
        "sidecar.left_deliveries",
        "warn",
        "The time to stop was over before every delivery was: they are tried again",
    ),
    (
        "sidecar.left_events",
        "error",
        "The time to stop was over before every event was written; the spool has them",
    ),
    (
        "sidecar.left_sends",
        "error",
        "The time to stop was over before Twilio had answered: these messages are unknown",
    ),
    ("sidecar.listening", "info", "The sidecar is there: `version`, `stores`, `listen`"),
    ("sidecar.stopped", "info", "The end, in order"),
    ("sidecar.stopping", "info", "SIGTERM or SIGINT came"),
    ("sink.away", "warn", "A sink does not answer, its deliveries wait: `sink`, `reason`"),
    ("sink.back", "info", "It answers again"),
    ("spool.file_stays", "warn", "A file of the spool could not be removed"),
    (
        "spool.other_version",
        "error",
        "A file of the spool is of another version, and is left as it is",
    ),
    (
        "spool.recovered",
        "warn",
        "A spool was found of a sidecar that was killed: its events are written",
    ),
    (
        "spool.refuses",
        "error",
        "The spool is full, or its disk takes nothing: claims wait for the database",
    ),
    ("spool.resumed", "info", "It takes events again"),
    (
        "spool.waiting",
        "warn",
        "What a killed sidecar left in its spool could not be written yet: it is tried again",
    ),
    (
        "status.apply_failed",
        "warn",
        "What statuses say of messages that are sent could not be written down: `count`",
    ),
    ("suppression.changed", "info", "A person said STOP or START, and it changed something"),
    (
        "templates.changed",
        "info",
        "Templates are not as they were at Twilio: `count`; the audit has each",
    ),
    (
        "templates.persist_failed",
        "warn",
        "Templates that were read could not be written down; they are read again",
    ),
    ("templates.unread", "warn", "Templates could not be read from the database again"),
    (
        "templates.unsynced",
        "warn",
        "Templates could not be read from Twilio, until that works again: `reason`; those of before count",
    ),
    (
        "tenant.unusable",
        "error",
        "What the database says of an account cannot count; it is as all others",
    ),
    ("tenants.unread", "warn", "What is said of accounts could not be read again"),
    ("traces.dropped", "warn", "The time to stop was over before every span was exported"),
    ("traces.not_taken", "warn", "The collector does not take spans; they are lost until it does"),
    ("traces.taken", "info", "It takes them again"),
    (
        "webhooks.not_accepted",
        "warn",
        "The database did not take webhooks to be accepted: filters are told `unavailable`",
    ),
];

/// Renders all events as the table of docs/OBSERVABILITY.md.
pub fn reference() -> String {
    let mut table = "| event | level | what has happened |\n|---|---|---|\n".to_owned();
    for (event, level, meaning) in ALL {
        let _ = writeln!(table, "| `{event}` | {level} | {meaning} |");
    }
    table
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        path::{Path, PathBuf},
    };

    use super::*;

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => sources(&path, found),
                false => found.push(path),
            }
        }
    }

    /// Returns the event and level of each log line in a source file.
    fn written(path: &Path) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
        let calls = code.split("tracing::").skip(1).filter_map(|rest| rest.split_once("!("));
        let levels = ["error", "warn", "info", "debug", "trace"];
        let calls = calls.filter(|(level, _)| levels.contains(level));
        let event = |(level, rest): (&str, &str)| {
            let own = rest.split_once("event = \"").filter(|(before, _)| {
                before.trim().is_empty() || before.trim().starts_with("target: ")
            });
            let told = format!("{}: a line of {level} without its event", path.display());
            let event = own.map(|(_, rest)| rest.split('"').next().unwrap()).expect(&told);
            (event.to_owned(), level.to_owned())
        };
        calls.map(event).collect()
    }

    #[test]
    fn every_line_has_an_event_of_the_table_and_the_other_way_round() {
        let mut files = Vec::new();
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        sources(&repository.join("sidecar/src"), &mut files);
        for member in std::fs::read_dir(repository.join("crates")).unwrap() {
            sources(&member.unwrap().path().join("src"), &mut files);
        }
        files.retain(|path| !path.ends_with("log/events.rs"));
        let written: BTreeSet<_> = files.iter().flat_map(|path| written(path)).collect();
        let told = ALL.iter().map(|(event, level, _)| ((*event).to_owned(), (*level).to_owned()));
        assert_eq!(written, told.collect());
        assert!(ALL.is_sorted_by_key(|(event, ..)| *event), "in their order");
    }

    #[test]
    fn the_document_holds_the_print() {
        let document = include_str!("../../../../docs/OBSERVABILITY.md");
        let told = "docs/OBSERVABILITY.md: put in `twilio-edge reference events`";
        assert!(document.contains(&reference()), "{told}");
    }
}
