//! Merge of lists that are in the same order, newest first, into one list that is read page by page. The merge never passes
//! the position down to which each list was read, so no entry is hidden or repeated, however the reads end. Pure.

/// Position in the order of the lists: a time in milliseconds since 1970, and a key among the entries of that time.
pub type Position = (i64, String);

/// Result of one read of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<T> {
    /// Entries with their positions, in any order.
    pub entries: Vec<(Position, T)>,
    /// Position of the last row that was examined; `None` if the read reached the end of the list.
    pub read_to: Option<Position>,
}

impl<T> Part<T> {
    /// Returns the result of a read that found nothing and reached the end.
    pub fn empty() -> Part<T> {
        Part { entries: Vec::new(), read_to: None }
    }
}

/// Merges reads that all began at the same position. Returns at most `limit` entries, newest first, and the position at
/// which the next page continues; `None` at the end of all lists.
pub fn merge<T>(
    parts: impl IntoIterator<Item = Part<T>>,
    limit: usize,
) -> (Vec<T>, Option<Position>) {
    let mut entries = Vec::new();
    let mut horizon: Option<Position> = None;
    for part in parts {
        entries.extend(part.entries);
        // `None` is smaller than every position.
        horizon = horizon.max(part.read_to);
    }
    if let Some(horizon) = &horizon {
        entries.retain(|(position, _)| position >= horizon);
    }
    entries.sort_by(|(one, _), (other, _)| other.cmp(one));
    let is_cut = entries.len() > limit;
    entries.truncate(limit);
    let last = entries.last().map(|(position, _)| position.clone());
    let next = if is_cut { last } else { horizon };
    (entries.into_iter().map(|(_, entry)| entry).collect(), next)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a list from a position on: at most `step` rows, of which every third is no entry.
    fn read(list: &[Position], before: &Position, step: usize) -> Part<Position> {
        let mut rows: Vec<&Position> = list.iter().filter(|row| *row < before).collect();
        rows.sort_by(|one, other| other.cmp(one));
        let is_last = rows.len() <= step;
        rows.truncate(step);
        let read_to = rows.last().filter(|_| !is_last).map(|row| (*row).clone());
        let entries = rows.into_iter().filter(|row| is_entry(row));
        Part { entries: entries.map(|row| (row.clone(), row.clone())).collect(), read_to }
    }

    fn is_entry(row: &Position) -> bool {
        row.1.len() % 3 != 2
    }

    proptest! {
        /// However long the pages and the reads are, the pages together are both lists in their order.
        #[test]
        fn pages_of_two_lists_have_each_entry_once(
            one in prop::collection::btree_set((0i64..20, "m[a-c]{0,3}"), 0..40),
            other in prop::collection::btree_set((0i64..20, "i[a-c]{0,3}"), 0..40),
            limit in 1usize..7,
            steps in (1usize..9, 1usize..9),
        ) {
            let (one, other): (Vec<_>, Vec<_>) = (one.into_iter().collect(), other.into_iter().collect());
            let mut expected: Vec<Position> = one.iter().chain(&other).filter(|row| is_entry(row)).cloned().collect();
            expected.sort_by(|one, other| other.cmp(one));
            let (mut found, mut before, mut pages) = (Vec::new(), (i64::MAX, String::new()), 0);
            loop {
                let parts = [read(&one, &before, steps.0), read(&other, &before, steps.1)];
                let (page, next) = merge(parts, limit);
                prop_assert!(page.len() <= limit);
                found.extend(page);
                pages += 1;
                prop_assert!(pages <= 200, "the pages do not end");
                match next {
                    Some(next) => {
                        prop_assert!(next < before, "each page continues below the last one");
                        before = next;
                    }
                    None => break,
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
