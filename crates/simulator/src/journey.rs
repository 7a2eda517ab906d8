//! Statuses of a message with their times, decided when the message is accepted. Pure; the simulator's clock executes them.

use super::faults::Fault;

/// Status that a message reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// Time, in milliseconds since 1970.
    pub(super) at_ms: i64,
    pub(super) status: &'static str,
    pub(super) error: Option<u32>,
}

/// Inputs of the decision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Journey {
    /// Time at which the message leaves the sender's queue.
    pub(super) leaves_ms: i64,
    /// Milliseconds from one status to the next.
    pub(super) step_ms: i64,
    pub(super) is_whatsapp: bool,
    /// True if a Messaging Service sends the message; it reports `queued` too.
    pub(super) is_service: bool,
    /// Fault that the recipient's number or the content requests.
    pub(super) fault: Option<Fault>,
}

impl Journey {
    /// Returns the steps after the initial status, which has no callback.
    pub(super) fn steps(self) -> Vec<Step> {
        let mut statuses: Vec<(&'static str, Option<u32>)> = Vec::with_capacity(4);
        if self.is_service {
            statuses.push(("queued", None));
        }
        match self.fault {
            Some(Fault::Failed(code)) => statuses.push(("failed", Some(code))),
            Some(Fault::Undelivered(code)) => {
                statuses.extend([("sent", None), ("undelivered", Some(code))]);
            }
            _ => {
                statuses.extend([("sent", None), ("delivered", None)]);
                if self.is_whatsapp {
                    statuses.push(("read", None));
                }
            }
        }
        let mut at_ms = self.leaves_ms;
        let steps = statuses.into_iter().map(|(status, error)| {
            at_ms = at_ms.saturating_add(self.step_ms);
            Step { at_ms, status, error }
        });
        steps.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses(is_whatsapp: bool, is_service: bool, fault: Option<Fault>) -> Vec<&'static str> {
        let journey = Journey { leaves_ms: 100, step_ms: 10, is_whatsapp, is_service, fault };
        let steps = journey.steps();
        assert!(
            steps.iter().map(|step| step.at_ms).eq((0..steps.len()).map(|i| 110 + 10 * i as i64))
        );
        steps.iter().map(|step| step.status).collect()
    }

    #[test]
    fn read_status_is_whatsapp_only_and_queued_status_is_service_only() {
        assert_eq!(statuses(true, false, None), ["sent", "delivered", "read"]);
        assert_eq!(statuses(false, true, None), ["queued", "sent", "delivered"]);
    }

    #[test]
    fn failed_message_has_no_later_status() {
        assert_eq!(statuses(true, false, Some(Fault::Failed(63016))), ["failed"]);
        assert_eq!(
            statuses(false, false, Some(Fault::Undelivered(30003))),
            ["sent", "undelivered"]
        );
    }
}
