//! Store operations of a request and their durations, for the histograms and for the trace of the request. If the request
//! is not traced, recording a step only reads a task-local variable and allocates nothing.

use std::{
    cell::RefCell,
    future::Future,
    time::{Duration, Instant, SystemTime},
};

/// Largest number of recorded steps per request.
const MOST: usize = 8;

tokio::task_local! {
    static TAKEN: RefCell<Vec<Step>>;
}

/// Store operation. A batch counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Redis, or the memory of a sidecar without it: claims leases.
    LeasesClaim,
    /// Redis or memory: releases leases.
    LeasesRelease,
    /// Redis or memory: marks webhooks as settled.
    LeasesCommit,
    /// SQL: looks up webhooks and contacts.
    LedgerLookUp,
    /// SQL: decides claims that Redis or memory could not decide.
    LedgerClaim,
    /// SQL: decides releases.
    LedgerRelease,
    /// SQL: records STOP and START.
    LedgerRecordOpts,
    /// SQL: writes events.
    LedgerWrite,
    /// Spool: stores events until they are in SQL; SQL, if the spool has no room.
    JournalNote,
    /// SQL: writes the outcomes of webhooks, with their waiting events.
    JournalWrite,
}

impl Operation {
    /// All operations.
    pub const ALL: [Operation; 10] = [
        Operation::LeasesClaim,
        Operation::LeasesRelease,
        Operation::LeasesCommit,
        Operation::LedgerLookUp,
        Operation::LedgerClaim,
        Operation::LedgerRelease,
        Operation::LedgerRecordOpts,
        Operation::LedgerWrite,
        Operation::JournalNote,
        Operation::JournalWrite,
    ];

    /// Returns the name of the operation in metrics and traces.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::LeasesClaim => "leases_claim",
            Operation::LeasesRelease => "leases_release",
            Operation::LeasesCommit => "leases_commit",
            Operation::LedgerLookUp => "ledger_look_up",
            Operation::LedgerClaim => "ledger_claim",
            Operation::LedgerRelease => "ledger_release",
            Operation::LedgerRecordOpts => "ledger_record_opts",
            Operation::LedgerWrite => "ledger_write",
            Operation::JournalNote => "journal_note",
            Operation::JournalWrite => "journal_write",
        }
    }
}

/// One store operation of a request.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Operation.
    pub operation: Operation,
    /// Start time.
    pub began: SystemTime,
    /// Duration.
    pub took: Duration,
    /// True if the operation succeeded.
    pub done: bool,
}

/// Records every step of `work`, and returns the steps with its result.
pub async fn taken_by<T>(work: impl Future<Output = T>) -> (T, Vec<Step>) {
    TAKEN
        .scope(RefCell::default(), async {
            let done = work.await;
            (done, TAKEN.with(RefCell::take))
        })
        .await
}

/// Records a step, if the current request is traced.
pub fn note(operation: Operation, since: Instant, done: bool) {
    let _ = TAKEN.try_with(|taken| {
        let mut taken = taken.borrow_mut();
        if taken.len() < MOST {
            let took = since.elapsed();
            let began = SystemTime::now().checked_sub(took).unwrap_or(SystemTime::UNIX_EPOCH);
            taken.push(Step { operation, began, took, done });
        }
    });
}
