//! Latest webhooks of the feed in memory, so that streams that keep up read nothing themselves.

use std::{collections::VecDeque, sync::Arc};

use super::{FeedPage, PositionedWebhook};
use twilio_edge_domain::live_stream::StreamPosition;

/// Largest number of webhooks in memory.
const MAX_WEBHOOKS: usize = 1000;

/// Largest size of their forms together, in bytes.
const MAX_BYTES: usize = 4 << 20;

/// The webhooks between two positions.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// All webhooks after this position are in `webhooks`; `None` before the first read.
    start: Option<StreamPosition>,
    webhooks: VecDeque<Arc<PositionedWebhook>>,
    bytes: usize,
    /// Position up to which the ledger was read.
    end: Option<StreamPosition>,
    /// Commit before which all webhooks were read; `None` if the last page was full.
    complete_before: Option<i64>,
}

impl Recent {
    /// Returns the position after which the next read continues. The first call starts at `end`, and returns `None`.
    pub(super) fn continue_at(&mut self, end: i64) -> Option<StreamPosition> {
        let known = self.end.clone();
        if known.is_none() {
            let start = StreamPosition::before(end);
            *self = Recent {
                start: Some(start.clone()),
                end: Some(start),
                complete_before: Some(end),
                ..Recent::default()
            };
        }
        known
    }

    /// Adds the page that follows the last one. The oldest webhooks make room.
    pub(super) fn add(&mut self, page: FeedPage) {
        let last = page.webhooks.last().map(|last| last.position.clone());
        self.end = page.end.map(StreamPosition::before).or(last).or_else(|| self.end.take());
        self.complete_before = page.end;
        for webhook in page.webhooks {
            self.bytes = self.bytes.saturating_add(size(&webhook));
            self.webhooks.push_back(webhook);
        }
        while self.webhooks.len() > MAX_WEBHOOKS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.webhooks.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(size(&oldest));
            self.start = Some(oldest.position.clone());
        }
    }

    /// Returns the webhooks after a position, at most `limit`; `None` if some of them are not in memory.
    pub(super) fn after(&self, position: &StreamPosition, limit: usize) -> Option<FeedPage> {
        self.start.as_ref().filter(|start| *start <= position)?;
        let first = self.webhooks.partition_point(|webhook| webhook.position <= *position);
        let webhooks: Vec<_> = self.webhooks.range(first..).take(limit).cloned().collect();
        let is_all = first.saturating_add(webhooks.len()) == self.webhooks.len();
        Some(FeedPage { webhooks, end: self.complete_before.filter(|_| is_all) })
    }
}

fn size(webhook: &PositionedWebhook) -> usize {
    webhook.webhook.form.as_ref().map_or(0, String::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use twilio_edge_domain::message::{Direction, RecordedWebhook};

    fn webhook(commit: i64, form: usize) -> Arc<PositionedWebhook> {
        let key = format!("status:AC1:SM{commit}:sent:");
        let webhook = RecordedWebhook {
            key: key.clone(),
            direction: Direction::Outbound,
            is_status: true,
            account_sid: "AC1".into(),
            message_sid: format!("SM{commit}"),
            status: "sent".into(),
            error_code: None,
            route: None,
            form: Some("x".repeat(form)),
            theirs: None,
            ours: None,
            received_ms: 1,
            attempts: 1,
            outcome: None,
            settled_ms: None,
            redacted_ms: None,
        };
        let position = StreamPosition { commit, received_ms: 1, key };
        Arc::new(PositionedWebhook { position, webhook })
    }

    fn page(commits: impl Iterator<Item = i64>, end: Option<i64>) -> FeedPage {
        FeedPage { webhooks: commits.map(|commit| webhook(commit, 1)).collect(), end }
    }

    #[test]
    fn webhooks_after_a_position_are_read_from_memory_once() {
        let mut recent = Recent::default();
        assert_eq!(recent.after(&StreamPosition::before(9), 10), None);
        assert_eq!(recent.continue_at(5), None);
        assert_eq!(recent.continue_at(7), Some(StreamPosition::before(5)));
        recent.add(page(5..7, Some(7)));
        assert_eq!(recent.continue_at(7), Some(StreamPosition::before(7)));
        assert_eq!(recent.after(&StreamPosition::before(4), 10), None);
        assert_eq!(recent.after(&StreamPosition::before(5), 10), Some(page(5..7, Some(7))));
        assert_eq!(recent.after(&StreamPosition::before(5), 1), Some(page(5..6, None)));
        assert_eq!(recent.after(&webhook(5, 1).position, 10), Some(page(6..7, Some(7))));
        assert_eq!(recent.after(&StreamPosition::before(7), 10), Some(page(0..0, Some(7))));
        recent.add(page(7..9, None));
        assert_eq!(recent.after(&webhook(7, 1).position, 10), Some(page(8..9, None)));
        assert_eq!(recent.continue_at(20), Some(webhook(8, 1).position.clone()));
    }

    #[test]
    fn memory_of_webhooks_is_bounded() {
        let mut recent = Recent::default();
        recent.continue_at(0);
        let many = i64::try_from(MAX_WEBHOOKS).unwrap() + 10;
        recent.add(page(0..many, Some(many)));
        assert_eq!((recent.webhooks.len(), recent.bytes), (MAX_WEBHOOKS, MAX_WEBHOOKS));
        assert_eq!(
            recent.after(&webhook(8, 1).position, 1),
            None,
            "its successor is not in memory"
        );
        assert_eq!(recent.after(&webhook(9, 1).position, 1), Some(page(10..11, None)));
        recent.add(FeedPage { webhooks: vec![webhook(many, MAX_BYTES)], end: Some(many + 1) });
        assert_eq!((recent.webhooks.len(), recent.bytes), (1, MAX_BYTES));
        recent.add(FeedPage { webhooks: vec![webhook(many + 1, MAX_BYTES + 1)], end: None });
        assert_eq!((recent.webhooks.len(), recent.bytes), (0, 0));
        assert_eq!(recent.after(&webhook(many, 1).position, 1), None);
    }
}
