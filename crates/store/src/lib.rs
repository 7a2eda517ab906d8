//! Storage layer: the SQL ledger (the source of truth), the journal that writes to it, and the lease store for fast claims.
//! This crate decides which store answers a claim and what happens when a store is unavailable. The domain decides what a
//! claim means.
//!
//! ```text
//! claim    lease store: take the lease --in flight or completed--> answer
//!            |  taken                                  unavailable or absent: one SQL transaction decides
//!          ledger: is the key known? (one read)        known: decide again with it, correct the lease store
//!            v
//!          journal: record the claim; in the spool before the answer, in SQL after it
//! commit   journal, immediately, merged with the pending event of the same webhook; then the lease store
//! release  lease store, then the journal as for a claim
//! ```
//!
//! While one sidecar cannot reach Redis, other sidecars continue to grant claims through it. A sidecar that falls back to
//! SQL therefore first announces it (`peers.rs`); from then on SQL confirms every claim of every sidecar.
//!
//! Architecture invariant: the only crate with SQL text and with Redis commands for leases; decides nothing about webhooks
//! or messages.

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
mod group;
pub mod histories;
mod idempotency;
mod journal;
mod leases;
mod ledger;
mod media;
mod memory;
mod outbound_messages;
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
mod settlement;
mod settling;
mod spool;
mod sqlite;
mod statements;
mod stores;
mod suppressions;
mod templates;
mod tenants;

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
    ledger::ClaimResult,
    media::{MediaRows, Medium},
    outbound_messages::{
        AttemptOutcome, AttemptStart, OutboundMessage, OutboundMessages, OutboundMessagesPage,
        QueuePosition, QueuedMessagesPage,
    },
    outbox::{Ended, Lane, NewDelivery, Outbox, PendingDelivery, Round},
    replays::Replay,
    retention::Sweeper,
    settlement::SettlementInput,
    stores::{Health, Stores},
    suppressions::{Suppressions, SuppressionsPage},
    templates::{CatalogueStanding, Templates},
    tenants::Tenants,
};
pub use crate::api_keys::StoredKey;
pub use crate::{
    api_keys::{AuditEntry, Key, KeysPage, NewKey, Register},
    rate_limiter::{Asked, RateLimiter},
};
