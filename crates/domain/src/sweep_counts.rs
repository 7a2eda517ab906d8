//! Counts of one step of retention or erasure.

use std::collections::BTreeMap;

use super::part::{Part, Parts};

/// Counts of one step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepCounts {
    /// Rows examined.
    pub found: usize,
    /// Redacted rows, by part.
    pub redacted: BTreeMap<Part, usize>,
    /// Redacted rows.
    pub rows: usize,
    /// Deleted rows.
    pub deleted: usize,
    /// True if more rows may be due now.
    pub more: bool,
}

impl SweepCounts {
    /// Counts a row and its redacted parts.
    pub fn count(&mut self, parts: Parts) {
        self.rows += 1;
        parts.iter().for_each(|part| *self.redacted.entry(part).or_default() += 1);
    }

    /// Adds the counts of a later step; `more` is the later step's.
    pub fn and(mut self, later: SweepCounts) -> SweepCounts {
        self.found += later.found;
        self.rows += later.rows;
        self.deleted += later.deleted;
        for (part, count) in later.redacted {
            *self.redacted.entry(part).or_default() += count;
        }
        SweepCounts { more: later.more, ..self }
    }
}
