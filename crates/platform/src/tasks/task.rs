//! List of the background tasks, with their names in logs and metrics.

use std::fmt::{self, Write as _};

/// Kind of a background task. A sidecar may run several tasks of one kind, for instance one delivery worker per sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Accepts connections of one listener.
    Listener,
    /// Reports suppressed log lines.
    LogRepeats,
    /// Records the recent activity of the sidecar.
    Activity,
    /// Writes the events of the journal to the ledger.
    JournalWriter,
    /// Commits requests of one kind in shared transactions.
    GroupCommit,
    /// Recovers the spools of killed sidecars.
    SpoolRecovery,
    /// Remembers the keys of the ledger.
    KnownKeys,
    /// Registers the sidecar among its peers.
    PeerHeartbeat,
    /// Delivers webhooks to one sink.
    DeliveryWorker,
    /// Measures the age of dead letters.
    DeadLetterAge,
    /// Continues replays.
    Replays,
    /// Reads the ledger for live streams.
    LiveFeed,
    /// Writes webhooks to the archive.
    Archivist,
    /// Redacts and deletes expired data.
    Retention,
    /// Ends expired suppressions.
    SuppressionExpiry,
    /// Finds the causes of refused requests.
    RefusedRequests,
    /// Puts changed tenant profiles into effect.
    TenantsRefresh,
    /// Puts a changed routing file into effect.
    RoutingFile,
    /// Deletes expired media.
    MediaCleanup,
    /// Fetches media of inbound messages.
    InboundMedia,
    /// Puts changed templates into effect.
    TemplatesRefresh,
    /// Reads templates from Twilio.
    TemplatesSync,
    /// Sends queued messages.
    Dispatcher,
    /// Resolves messages whose outcome is unknown.
    Reconciler,
}

impl Task {
    /// All background tasks.
    pub const ALL: [Task; 24] = [
        Task::Listener,
        Task::LogRepeats,
        Task::Activity,
        Task::JournalWriter,
        Task::GroupCommit,
        Task::SpoolRecovery,
        Task::KnownKeys,
        Task::PeerHeartbeat,
        Task::DeliveryWorker,
        Task::DeadLetterAge,
        Task::Replays,
        Task::LiveFeed,
        Task::Archivist,
        Task::Retention,
        Task::SuppressionExpiry,
        Task::RefusedRequests,
        Task::TenantsRefresh,
        Task::RoutingFile,
        Task::MediaCleanup,
        Task::InboundMedia,
        Task::TemplatesRefresh,
        Task::TemplatesSync,
        Task::Dispatcher,
        Task::Reconciler,
    ];

    /// Returns the name of the task in logs and metrics.
    pub fn as_str(self) -> &'static str {
        self.description().name
    }

    fn description(self) -> Description {
        let (name, work, at_shutdown) = match self {
            Task::Listener => (
                "listener",
                "Accepts the connections of one listener: `listen`, `admin.listen`, `media.store.listen`",
                "Finishes the requests in progress",
            ),
            Task::LogRepeats => ("log_repeats", "Reports suppressed log lines every 5 s", STOPPED),
            Task::Activity => (
                "activity",
                "Records counts of webhooks and deliveries every 30 s, for the overview of the console",
                "Is interrupted; the counts are in memory only",
            ),
            Task::JournalWriter => (
                "journal_writer",
                "Writes the events of the journal to SQL",
                "Writes all pending events; the spool contains those that do not fit into the time limit",
            ),
            Task::GroupCommit => (
                "group_commit",
                "Commits requests of one kind (claims, releases, opt-outs, accepted webhooks, messages) in shared transactions",
                "Ends with the stores",
            ),
            Task::SpoolRecovery => (
                "spool_recovery",
                "Writes the events of killed sidecars from their spools to SQL, every 2 s",
                STOPPED,
            ),
            Task::KnownKeys => (
                "known_keys",
                "Reads the keys of the ledger once after the start, so that claims of unknown webhooks need no read; only with SQLite alone",
                STOPPED,
            ),
            Task::PeerHeartbeat => (
                "peer_heartbeat",
                "Registers the sidecar among the sidecars of its database every second; only with Redis and PostgreSQL",
                "Unregisters the sidecar after the last event is written",
            ),
            Task::DeliveryWorker => (
                "delivery_worker",
                "Delivers webhooks to one sink",
                "Finishes the deliveries in progress; others are delivered by another sidecar, or after the next start",
            ),
            Task::DeadLetterAge => (
                "dead_letter_age",
                "Measures the age of the oldest dead letter of each sink every 15 s",
                STOPPED,
            ),
            Task::Replays => ("replays", "Continues running replays every second", STOPPED),
            Task::LiveFeed => (
                "live_feed",
                "Reads the ledger for live streams every 250 ms; only while a stream is open",
                "Is interrupted, after the streams ended with a request to connect again",
            ),
            Task::Archivist => (
                "archivist",
                "Writes queued webhooks to the archive, and erases redacted content from it",
                STOPPED,
            ),
            Task::Retention => {
                ("retention", "Redacts and deletes expired data every `redaction.every_s`", STOPPED)
            }
            Task::SuppressionExpiry => (
                "suppression_expiry",
                "Stores and reports the end of suppressions whose time to live is over, every second",
                STOPPED,
            ),
            Task::RefusedRequests => (
                "refused_requests",
                "Finds the causes of refused requests that filters reported, at most four a second; only with `retention.refused_requests`",
                "Is interrupted; the waiting reports are lost",
            ),
            Task::TenantsRefresh => (
                "tenants_refresh",
                "Puts changed profiles of accounts into effect, every second",
                STOPPED,
            ),
            Task::RoutingFile => (
                "routing_file",
                "Reads a changed `sending.routing_file`, every second; only if one is set",
                STOPPED,
            ),
            Task::MediaCleanup => (
                "media_cleanup",
                "Deletes expired media every `redaction.every_s`; only with `media.store.url`",
                STOPPED,
            ),
            Task::TemplatesRefresh => {
                ("templates_refresh", "Puts changed templates into effect, every second", STOPPED)
            }
            Task::TemplatesSync => (
                "templates_sync",
                "Reads the templates of each account from Twilio every `sending.templates_every_s`",
                STOPPED,
            ),
            Task::InboundMedia => (
                "inbound_media",
                "Fetches media of inbound messages from Twilio every 500 ms, and deletes them there on request; only with `media.store.url`",
                STOPPED,
            ),
            Task::Dispatcher => (
                "dispatcher",
                "Sends queued messages",
                "Starts no further attempt, and finishes those in progress; a message whose answer comes too late becomes `unknown`",
            ),
            Task::Reconciler => (
                "reconciler",
                "Looks for `unknown` messages in Twilio's list every 500 ms",
                STOPPED,
            ),
        };
        Description { name, work, at_shutdown }
    }
}

/// Row of the reference table.
struct Description {
    name: &'static str,
    work: &'static str,
    at_shutdown: &'static str,
}

/// Shutdown of a task that can be interrupted at any time.
const STOPPED: &str = "Is interrupted; another sidecar, or the next start, continues";

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Renders all background tasks as the table of docs/ARCHITECTURE.md.
pub fn reference() -> String {
    let mut table = "| task | work | at shutdown |\n|---|---|---|\n".to_owned();
    for task in Task::ALL {
        let Description { name, work, at_shutdown } = task.description();
        let _ = writeln!(table, "| `{name}` | {work} | {at_shutdown} |");
    }
    table
}
