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
//! commit   journal, as for a claim, merged with the pending event of the same webhook; then the lease store
//!            |  no spool, no lease store, Redis unavailable to any sidecar: in SQL before the answer
//! release  lease store, then the journal as for a claim
//! ```
//!
//! The journal answers for the events that SQL does not have yet: every read of the ledger on the paths above reads the journal
//! first.
//!
//! While one sidecar cannot reach Redis, other sidecars continue to grant claims through it. A sidecar that falls back to
//! SQL therefore first announces it (`peers.rs`); from then on SQL confirms every claim of every sidecar.
//!
//! Architecture invariant: the only crate with SQL text and with Redis commands for leases; decides nothing about webhooks
//! or messages.

mod acceptance;
mod api_keys;
mod archive_queue;
mod audit_log;
mod claims;
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
mod idempotency;
mod inbound_media;
mod journal;
mod known_keys;
mod leases;
mod ledger;
mod media;
mod memory;
pub mod message_history;
mod operational_events;
mod opt_events;
mod outbound_messages;
mod outbox;
mod peers;
mod postgres;
mod rate_limiter;
mod reader;
mod recovery;
mod redis;
mod refused_requests;
mod replays;
mod retention;
mod rows;
mod scripts;
mod sessions;
mod settlement_input;
mod settlements;
mod spool;
mod sqlite;
mod statements;
mod stores;
mod suppressions;
mod templates;
mod tenants;
mod verification_starts;

pub use self::{
    acceptance::Acceptance,
    api_keys::{ApiKeyStore, Key, KeysPage, NewKey, StoredKey},
    archive_queue::{ArchiveErasure, ArchiveQueue, Batch as ArchiveBatch, Limits as ArchiveLimits},
    audit_log::{AuditEntry, AuditLog, AuditPage},
    consents::{Consents, ConsentsPage},
    contacts::Contacts,
    dead_letters::{
        DeadLetter, DeadLetterAction, DeadLetterDetail, DeadLetterSelection, DeadLetters,
        DeliveryCount, DeliveryState, OldestDeadLetter, ResolvedDeadLetter,
    },
    erasure::{Erasure, ErasurePosition},
    error::StoreError,
    idempotency::{Admission, CompletedRequest, Idempotency, IdempotencyClaim, IdempotentRequest},
    inbound_media::{InboundMedia, InboundMediaJob, InboundMedium, TwilioDeletion},
    ledger::ClaimResult,
    media::{MediaIndex, Medium},
    opt_events::{OptEffect, ReceivedOpt},
    outbound_messages::{
        AttemptOutcome, CountQuery, MessageCount, OutboundMessage, OutboundMessages,
        pages::QueuedMessagesPage,
        queues::{AttemptStart, QueuePosition},
    },
    outbox::{
        AttemptResult, DeliveryRound, NewDelivery, OrderedDeliveries, Outbox, PendingDelivery,
        SinkBacklog,
    },
    rate_limiter::{RateLimiter, TokenRequest},
    refused_requests::{RefusedGroup, RefusedRequests, RefusedRequestsPage, StoredRefusedRequest},
    replays::Replay,
    retention::Sweeper,
    sessions::{Session, Sessions},
    settlement_input::SettlementInput,
    stores::{Health, Stores},
    suppressions::{Suppressions, SuppressionsPage},
    templates::{CatalogueState, Templates},
    tenants::Tenants,
    verification_starts::{StartLimit, VerificationStarts},
};
