//! The stores as one thing: the ledger (SQL, the truth), the journal that writes it, and where leases are kept for speed.
//! What a claim costs and what happens when one of them is away is decided here; what a claim means is not.
//!
//! ```text
//! claim    leases: take it --somebody has it, it is done--> answer
//!            |  taken                                  away, or none: one transaction in SQL decides
//!          ledger: anything known of it? (one read)    known: decide again with that, put the lease right
//!            v
//!          journal: who has it; in the spool before the answer, in SQL behind it
//! commit   journal, at once, with what waits of the same webhook; then tell the leases
//! release  leases, then the journal as for a claim
//! ```
//!
//! While Redis is away from one sidecar only, others go on handing out by it. So who falls through to SQL says so first
//! (`siblings.rs`), and from then on SQL has the last word on every claim of every sidecar.
//!
//! Architecture invariant: the only crate with SQL text and with Redis commands for leases; decides nothing about webhooks or messages.

mod accepting;
mod api_keys;
mod archiving;
mod claiming;
mod columns;
mod connection_cache;
mod consents;
mod contacts;
mod database;
mod dead_letters;
mod erasure;
mod error;
mod event;
mod fallbacks;
mod group;
pub mod histories;
mod idempotency;
mod journal;
mod lanes;
mod leases;
mod ledger;
mod media;
mod memory;
mod outbox;
mod peers;
mod postgres;
mod rate_limiter;
mod reader;
mod recovery;
mod redis;
mod replays;
mod retention;
mod rows;
mod scripts;
mod sends;
mod settlement;
mod settling;
mod spool;
mod sqlite;
mod statements;
mod stores;
mod suppressions;
mod taken;
mod templates;
mod tenants;
mod unknowns;
mod waiting;
mod writes;

pub use self::{
    accepting::Acceptance,
    archiving::{ArchiveErasure, ArchiveQueue, Batch as ArchiveBatch, Limits as ArchiveLimits},
    consents::{Consents, ConsentsPage},
    contacts::Contacts,
    dead_letters::{
        Chosen, DeadLetter, DeadLetterDetail, DeadLetters, Fate, OldestDead, Resolved, Standing,
    },
    erasure::{Erasure, Reached},
    error::StoreError,
    idempotency::{Admission, Done, Idempotency, Once, Turn},
    lanes::{Attempts, Behind},
    ledger::ClaimResult,
    media::{MediaRows, Medium},
    outbox::{Ended, Lane, NewDelivery, Outbox, PendingDelivery, Round},
    replays::Replay,
    retention::Sweeper,
    sends::{OutboundMessage, OutboundMessages, Outcome},
    settlement::SettlementInput,
    stores::{Health, Stores},
    suppressions::{Suppressions, SuppressionsPage},
    taken::SendsPage,
    templates::{CatalogueStanding, Templates},
    tenants::Tenants,
    waiting::WaitingPage,
};
pub use crate::api_keys::StoredKey;
pub use crate::{
    api_keys::{AuditEntry, Key, KeysPage, NewKey, Register},
    rate_limiter::{Asked, RateLimiter},
};
