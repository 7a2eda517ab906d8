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
    static STEPS: RefCell<Vec<Step>>;
}

twilio_edge_contract::string_enum! {
    /// Store operation. A batch counts as one.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Operation {
        /// Redis, or the memory of a sidecar without it: claims leases.
        LeasesClaim = "leases_claim",
        /// Redis or memory: releases leases.
        LeasesRelease = "leases_release",
        /// Redis or memory: marks webhooks as settled.
        LeasesCommit = "leases_commit",
        /// SQL: looks up webhooks and contacts.
        LedgerLookUp = "ledger_look_up",
        /// SQL: decides claims that Redis or memory could not decide.
        LedgerClaim = "ledger_claim",
        /// SQL: decides releases.
        LedgerRelease = "ledger_release",
        /// SQL: records STOP and START.
        LedgerRecordOpts = "ledger_record_opts",
        /// SQL: writes events.
        LedgerWrite = "ledger_write",
        /// Spool: stores events until they are in SQL; SQL, if the spool has no room.
        JournalNote = "journal_note",
        /// SQL: writes the outcomes of webhooks, with their waiting events.
        JournalWrite = "journal_write",
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
pub async fn record<T>(work: impl Future<Output = T>) -> (T, Vec<Step>) {
    STEPS
        .scope(RefCell::default(), async {
            let done = work.await;
            (done, STEPS.with(RefCell::take))
        })
        .await
}

/// Records a step, if the current request is traced.
pub fn note(operation: Operation, since: Instant, done: bool) {
    let _ = STEPS.try_with(|steps| {
        let mut steps = steps.borrow_mut();
        if steps.len() < MOST {
            let took = since.elapsed();
            let began = SystemTime::now().checked_sub(took).unwrap_or(SystemTime::UNIX_EPOCH);
            steps.push(Step { operation, began, took, done });
        }
    });
}
