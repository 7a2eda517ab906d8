//! Counts of one step of retention or erasure.

use std::collections::BTreeMap;

use super::part::{Part, Parts};

/// What one step did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Rows looked at.
    pub found: usize,
    /// Rows something was taken out of, by part.
    pub redacted: BTreeMap<Part, usize>,
    /// Rows something was taken out of.
    pub rows: usize,
    /// Rows that are gone.
    pub deleted: usize,
    /// Whether there may be more to do now.
    pub more: bool,
}

impl Swept {
    /// Counts a row that these parts were removed from.
    pub fn count(&mut self, parts: Parts) {
        self.rows += 1;
        parts.iter().for_each(|part| *self.redacted.entry(part).or_default() += 1);
    }

    /// Both together; more, if the later one said so.
    pub fn and(mut self, later: Swept) -> Swept {
        self.found += later.found;
        self.rows += later.rows;
        self.deleted += later.deleted;
        for (part, count) in later.redacted {
            *self.redacted.entry(part).or_default() += count;
        }
        Swept { more: later.more, ..self }
    }
}
