//! Statements of the ledger by name; each database spells them.

/// Every statement of the ledger off the main path, as each database spells it. All take one JSON array of rows. The two of the main path, [`Database::look_up`] and [`Database::keep_events`], bind
/// their values one by one, because there JSON would cost more than the database.
pub(super) struct Statements {
    pub(super) begin: &'static str,
    pub(super) lock_keys: &'static str,
    pub(super) histories: &'static str,
    pub(super) find_endings: &'static str,
    pub(super) keep_endings: &'static str,
    pub(super) last_inbound: &'static str,
    pub(super) record_opts: &'static str,
    pub(super) register: RegisterStatements,
    pub(super) retention: RetentionStatements,
    pub(super) suppressions: SuppressionStatements,
    pub(super) siblings: SiblingStatements,
    pub(super) tenants: TenantStatements,
    pub(super) consents: ConsentStatements,
    pub(super) idempotency: IdempotencyStatements,
    pub(super) outbox: OutboxStatements,
}

/// The statements of the register of API keys and of the audit. Each takes one JSON array of rows too.
pub(super) struct RegisterStatements {
    pub(super) add_key: &'static str,
    pub(super) find_key: &'static str,
    pub(super) find_scope: &'static str,
    pub(super) list_keys: &'static str,
    pub(super) revoke_key: &'static str,
    pub(super) touch_key: &'static str,
    pub(super) add_entry: &'static str,
    pub(super) list_entries: &'static str,
}

/// The statements of suppressions. Each takes one JSON array of rows too.
pub(super) struct SuppressionStatements {
    pub(super) lock: &'static str,
    pub(super) keep: &'static str,
    pub(super) of_people: &'static str,
    pub(super) list: &'static str,
    pub(super) list_of_source: &'static str,
}

/// The statements about the sidecars themselves. Each takes one JSON array of rows too.
pub(super) struct SiblingStatements {
    pub(super) beat: &'static str,
    pub(super) part: &'static str,
    pub(super) leave: &'static str,
    pub(super) look: &'static str,
}

/// The statements about accounts. Each takes one JSON array of rows too.
pub(super) struct TenantStatements {
    pub(super) changes: &'static str,
    pub(super) list: &'static str,
    pub(super) keep: &'static str,
}

/// The statements of consents. Each takes one JSON array of rows too.
pub(super) struct ConsentStatements {
    pub(super) record: &'static str,
    pub(super) of_people: &'static str,
    pub(super) list: &'static str,
    pub(super) last_inbound: &'static str,
}
/// The statements of what sinks are owed. Each takes one JSON array of rows too.
pub(super) struct OutboxStatements {
    /// Adds deliveries that are not there yet.
    pub(super) owe: &'static str,
    /// Makes sure that their lanes are there, and keeps those from being dropped meanwhile.
    pub(super) open_lanes: &'static str,
    pub(super) take: &'static str,
    pub(super) due: &'static str,
    pub(super) end: &'static str,
    pub(super) lock_lanes: &'static str,
    pub(super) drop_lanes: &'static str,
    pub(super) free_lanes: &'static str,
    pub(super) dead: &'static str,
    pub(super) letter: &'static str,
    pub(super) oldest_dead: &'static str,
    pub(super) bring_back: &'static str,
    pub(super) discard: &'static str,
    /// Ends what is owed of events, whatever it waits for.
    pub(super) withdraw: &'static str,
    pub(super) standing: &'static str,
}

/// The statements about idempotency keys. Each takes one JSON array of rows.
pub(super) struct IdempotencyStatements {
    pub(super) find: &'static str,
    /// Makes a row, or hands the one there is to another owner.
    pub(super) take: &'static str,
    /// Answers what is still its owner's: one row, or none.
    pub(super) answer: &'static str,
    pub(super) give_up: &'static str,
    pub(super) let_go: &'static str,
}

/// The statements that each database spells in its own way. Each takes one JSON array of rows.
pub(super) struct RetentionStatements {
    /// Makes sure that there is something to lock.
    pub(super) begin_progress: &'static str,
    /// How far these parts are, locked; nothing of what somebody else has locked.
    pub(super) lock_progress: &'static str,
    pub(super) keep_progress: &'static str,
    /// So that what is written late is looked at again.
    pub(super) rewind: &'static str,
    pub(super) redact_events: &'static str,
    pub(super) delete_events: &'static str,
    /// Takes events out of what waits for the archive.
    pub(super) unqueue: &'static str,
}
