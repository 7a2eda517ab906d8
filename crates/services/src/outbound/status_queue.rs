//! Statuses that wait to be applied in the background. Their callback URLs have no id of ours, because they were configured
//! at Twilio or by the caller, so each must be looked up by the SID of its message; no webhook waits for that. A status
//! that is lost here is found by the reconciler, which asks Twilio.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use super::deliveries::StatusReport;

/// Largest number of waiting statuses.
const CAPACITY: usize = 16_384;

/// One waiting status; the fields are those of [`StatusReport`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedStatus {
    account_sid: String,
    message_sid: String,
    status: String,
    code: String,
    recipient: String,
}

impl QueuedStatus {
    /// Returns the report.
    pub fn report(&self) -> StatusReport<'_> {
        StatusReport {
            id: None,
            account_sid: &self.account_sid,
            message_sid: &self.message_sid,
            status: &self.status,
            code: &self.code,
            recipient: &self.recipient,
        }
    }
}

/// Queue of statuses, in the order of their arrival; clones share it.
#[derive(Debug, Clone, Default)]
pub struct StatusQueue(Arc<Mutex<VecDeque<QueuedStatus>>>);

impl StatusQueue {
    /// Adds a status. Returns false if the queue is full.
    pub fn push(&self, report: &StatusReport<'_>) -> bool {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = queue.len() < CAPACITY;
        if has_room {
            queue.push_back(QueuedStatus {
                account_sid: report.account_sid.to_owned(),
                message_sid: report.message_sid.to_owned(),
                status: report.status.to_owned(),
                code: report.code.to_owned(),
                recipient: report.recipient.to_owned(),
            });
        }
        has_room
    }

    /// Removes and returns the oldest statuses, at most `count`.
    pub fn take(&self, count: usize) -> Vec<QueuedStatus> {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = count.min(queue.len());
        queue.drain(..count).collect()
    }

    /// Returns statuses that could not be applied to their place before all others.
    pub fn put_back(&self, statuses: Vec<QueuedStatus>) {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for status in statuses.into_iter().rev() {
            queue.push_front(status);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_is_bounded_and_keeps_the_order() {
        let queue = StatusQueue::default();
        let push = |sid: &str| {
            queue.push(&StatusReport {
                id: None,
                account_sid: "AC",
                message_sid: sid,
                status: "sent",
                code: "",
                recipient: "",
            })
        };
        assert!((0..CAPACITY).all(|number| push(&number.to_string())));
        assert!(!push("last"), "a full queue takes no more");
        let taken = queue.take(2);
        let sids: Vec<&str> = taken.iter().map(|status| status.report().message_sid).collect();
        assert_eq!(sids, ["0", "1"]);
        queue.put_back(taken);
        assert_eq!(queue.take(2)[1].report().message_sid, "1");
        assert!(push("last"));
    }
}
