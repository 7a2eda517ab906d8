//! What the stores were asked on behalf of a request, and how long each took: for the histograms, and for the trace of who
//! asked, if there is one. Where nothing is traced, to take a step down costs a look at the task and makes nothing.

use std::{
    cell::RefCell,
    future::Future,
    time::{Duration, Instant, SystemTime},
};

/// Most steps of one request that are told.
const MOST: usize = 8;

tokio::task_local! {
    static TAKEN: RefCell<Vec<Step>>;
}

/// What a store is asked for. A batch is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Redis, or the memory of a sidecar without it: takes leases.
    LeasesClaim,
    /// The same: gives leases back.
    LeasesRelease,
    /// The same: notes that webhooks are done.
    LeasesCommit,
    /// SQL: what is known of some webhooks and people.
    LedgerLookUp,
    /// SQL: decides claims, because nothing quicker could.
    LedgerClaim,
    /// SQL: decides releases.
    LedgerRelease,
    /// SQL: records STOP and START.
    LedgerRecordOpts,
    /// SQL: writes events.
    LedgerWrite,
    /// The spool: keeps events until SQL has them; or SQL, where there is no room.
    JournalNote,
    /// SQL, with what waits of the same webhooks: writes how they ended.
    JournalWrite,
}

impl Operation {
    /// All of them.
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

    /// The word for it, in metrics and traces.
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

/// One thing a store was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// What.
    pub operation: Operation,
    /// When.
    pub began: SystemTime,
    /// For how long.
    pub took: Duration,
    /// Whether it was done.
    pub done: bool,
}

/// Takes down every step that `work` takes.
pub async fn taken_by<T>(work: impl Future<Output = T>) -> (T, Vec<Step>) {
    TAKEN
        .scope(RefCell::default(), async {
            let done = work.await;
            (done, TAKEN.with(RefCell::take))
        })
        .await
}

/// Takes down a step, if somebody wants to know.
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
