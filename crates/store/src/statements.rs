//! Names of the ledger's statements; each database supplies their text.

/// Statements of the ledger off the main path, as each database spells them. Each takes one JSON array of rows. The two
/// statements of the main path, `Database::look_up` and `Database::write_events`, bind their values one by one, because
/// there JSON would cost more than the database.
pub(super) struct Statements {
    pub(super) begin: &'static str,
    pub(super) lock_keys: &'static str,
    pub(super) histories: &'static str,
    /// Returns the position before which every commit is complete. It takes no rows.
    pub(super) end_of_recording: &'static str,
    pub(super) find_claim_ends: &'static str,
    pub(super) keep_claim_ends: &'static str,
    pub(super) last_inbound: &'static str,
    /// Returns the messages that follow another message of the same pair within the time of a window.
    pub(super) following_inbound: &'static str,
    pub(super) record_opts: &'static str,
    /// Inserts media of inbound messages that do not exist yet.
    pub(super) inbound_media: &'static str,
    pub(super) api_keys: ApiKeyStatements,
    pub(super) sessions: SessionStatements,
    pub(super) audit: AuditStatements,
    pub(super) retention: RetentionStatements,
    pub(super) suppressions: SuppressionStatements,
    pub(super) peers: PeerStatements,
    pub(super) tenants: TenantStatements,
    pub(super) consents: ConsentStatements,
    pub(super) idempotency: IdempotencyStatements,
    pub(super) outbox: OutboxStatements,
}

/// Statements of the API keys. Each takes one JSON array of rows.
pub(super) struct ApiKeyStatements {
    pub(super) add_key: &'static str,
    pub(super) find_key: &'static str,
    pub(super) find_scope: &'static str,
    pub(super) list_keys: &'static str,
    pub(super) revoke_key: &'static str,
    pub(super) touch_key: &'static str,
}

/// Statements of sessions. Each takes one JSON array of rows.
pub(super) struct SessionStatements {
    pub(super) add: &'static str,
    pub(super) find: &'static str,
    pub(super) end: &'static str,
    /// Deletes expired sessions, and the oldest ones of a key beyond its bound.
    pub(super) prune: &'static str,
}

/// Statements of the audit log. Each takes one JSON array of rows.
pub(super) struct AuditStatements {
    pub(super) add: &'static str,
}

/// Statements of suppressions. Each takes one JSON array of rows.
pub(super) struct SuppressionStatements {
    pub(super) lock: &'static str,
    pub(super) keep: &'static str,
    pub(super) of_contacts: &'static str,
    pub(super) list: &'static str,
    pub(super) list_of_source: &'static str,
    pub(super) lock_expired: &'static str,
}

/// Statements of the heartbeats and partitions of sidecars. Each takes one JSON array of rows.
pub(super) struct PeerStatements {
    pub(super) heartbeat: &'static str,
    pub(super) enter_partition: &'static str,
    pub(super) leave: &'static str,
    pub(super) state: &'static str,
}

/// Statements of tenant profiles. Each takes one JSON array of rows.
pub(super) struct TenantStatements {
    pub(super) changes: &'static str,
    pub(super) list: &'static str,
    pub(super) keep: &'static str,
}

/// Statements of consents. Each takes one JSON array of rows.
pub(super) struct ConsentStatements {
    pub(super) record: &'static str,
    pub(super) of_contacts: &'static str,
    pub(super) list: &'static str,
    pub(super) last_inbound: &'static str,
}
/// Statements of the outbox. Each takes one JSON array of rows.
pub(super) struct OutboxStatements {
    /// Inserts operational events that do not exist yet.
    pub(super) insert_events: &'static str,
    /// Inserts deliveries that do not exist yet.
    pub(super) insert: &'static str,
    /// Inserts their lanes where missing, and locks the lanes so that none is dropped meanwhile.
    pub(super) open_lanes: &'static str,
    pub(super) take: &'static str,
    pub(super) due: &'static str,
    /// Records the results of attempts, and returns the deliveries that were given up.
    pub(super) end: &'static str,
    pub(super) lock_lanes: &'static str,
    pub(super) drop_lanes: &'static str,
    pub(super) free_lanes: &'static str,
    pub(super) dead: &'static str,
    pub(super) letter: &'static str,
    /// All deliveries of one event.
    pub(super) of_event: &'static str,
    pub(super) oldest_dead: &'static str,
    /// Waiting deliveries and dead letters of sinks, each counted up to a limit.
    pub(super) backlog: &'static str,
    pub(super) bring_back: &'static str,
    pub(super) discard: &'static str,
    /// Ends the open deliveries of events.
    pub(super) withdraw: &'static str,
    /// Removes the recorded attempts of events, because an answer may repeat what a webhook contained.
    pub(super) forget_attempts: &'static str,
    pub(super) standing: &'static str,
}

/// Statements of idempotency keys. Each takes one JSON array of rows.
pub(super) struct IdempotencyStatements {
    pub(super) find: &'static str,
    /// Inserts a row, or transfers an existing one to another owner.
    pub(super) take: &'static str,
    /// Stores the response if the row still has its owner: one row, or none.
    pub(super) answer: &'static str,
    pub(super) give_up: &'static str,
    pub(super) let_go: &'static str,
}

/// Statements of retention that each database spells in its own way. Each takes one JSON array of rows.
pub(super) struct RetentionStatements {
    /// Inserts the progress rows where missing, so that they can be locked.
    pub(super) begin_progress: &'static str,
    /// Returns and locks the progress of these parts; skips rows that another transaction has locked.
    pub(super) lock_progress: &'static str,
    pub(super) keep_progress: &'static str,
    /// Moves the progress back, so that events which are written late are examined.
    pub(super) rewind: &'static str,
    pub(super) redact_events: &'static str,
    pub(super) delete_events: &'static str,
    /// Removes events from the queue of the archive.
    pub(super) unqueue: &'static str,
}
