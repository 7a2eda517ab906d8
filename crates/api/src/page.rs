//! Pages of lists: the size and the cursor that a request names, and the rows and the next cursor of the answer.

use super::problem::Problem;
use twilio_edge_domain::{cursor::Cursor, refusal::RefusalCode};
use twilio_edge_store::message_history::Page;

/// Page size of a request that names none.
const DEFAULT_SIZE: u32 = 50;

/// Largest page size.
const MAX_SIZE: u32 = 200;

/// Validates the page size.
pub(super) fn size(limit: Option<u32>) -> Result<usize, Problem> {
    match limit.unwrap_or(DEFAULT_SIZE) {
        size @ 1..=MAX_SIZE => Ok(size as usize),
        _ => Err(Problem::malformed(&format!("limit: must be 1 to {MAX_SIZE}"))),
    }
}

/// Returns the number of rows to read: one more than the page size, which shows whether a next page exists.
pub(super) fn one_more(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX).saturating_add(1)
}

/// Page that a request asks for: its size, and the position after which it begins.
pub(super) struct PageRequest<P> {
    pub(super) size: usize,
    /// Position of the last row of the previous page; `None` for the first page.
    pub(super) after: Option<P>,
}

impl<P> PageRequest<P> {
    /// Validates `limit` and `cursor`. `position` returns the position of a cursor, or `None` for a cursor of another list.
    pub(super) fn read(
        limit: Option<u32>,
        cursor: Option<String>,
        position: impl FnOnce(Cursor) -> Option<P>,
    ) -> Result<PageRequest<P>, Problem> {
        let invalid = || Problem::of(RefusalCode::InvalidCursor);
        let read = |text: String| text.parse().ok().and_then(position).ok_or_else(invalid);
        Ok(PageRequest { size: size(limit)?, after: cursor.map(read).transpose()? })
    }

    /// Returns the number of rows to read.
    pub(super) fn rows(&self) -> i64 {
        one_more(self.size)
    }

    /// Renders the rows of the page, and the cursor of the next page if more rows follow.
    pub(super) fn page<T, V>(
        &self,
        mut rows: Vec<T>,
        cursor: impl FnOnce(&T) -> Cursor,
        view: impl FnMut(T) -> V,
    ) -> (Vec<V>, Option<String>) {
        let has_more = rows.len() > self.size;
        rows.truncate(self.size);
        let next_cursor = rows.last().filter(|_| has_more).map(|last| cursor(last).to_string());
        (rows.into_iter().map(view).collect(), next_cursor)
    }
}

impl PageRequest<Cursor> {
    /// Validates `limit` and `cursor` of a list whose store reads the whole cursor.
    pub(super) fn by_cursor(
        limit: Option<u32>,
        cursor: Option<String>,
        is_of_list: impl FnOnce(&Cursor) -> bool,
    ) -> Result<PageRequest<Cursor>, Problem> {
        PageRequest::read(limit, cursor, |cursor| is_of_list(&cursor).then_some(cursor))
    }
}

/// Renders the rows of a page that the store has cut, and the cursor of the next page.
pub(super) fn render<T, V>(page: &Page<T>, view: impl Fn(&T) -> V) -> (Vec<V>, Option<String>) {
    (page.found.iter().map(view).collect(), page.next.as_ref().map(Cursor::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead_letter(cursor: Cursor) -> Option<i64> {
        match cursor {
            Cursor::DeadLetter { seq, .. } => Some(seq),
            _ => None,
        }
    }

    #[test]
    fn page_has_a_next_cursor_if_more_rows_follow() {
        let page = PageRequest::read(Some(2), None, dead_letter).unwrap();
        assert_eq!((page.rows(), page.after), (3, None));
        let cursor = |seq: &i64| Cursor::DeadLetter { ended_ms: 0, seq: *seq };
        let (rows, next) = page.page(vec![9, 8, 7], cursor, |id| id * 10);
        assert_eq!(rows, [90, 80]);
        assert_eq!(page.page(vec![9, 8], cursor, |id| id).1, None);
        let next = PageRequest::read(None, next, dead_letter).unwrap();
        assert_eq!((next.size, next.after), (50, Some(8)));
    }

    #[test]
    fn page_of_a_wrong_size_or_of_another_list_is_refused() {
        for limit in [0, 201] {
            assert!(PageRequest::read(Some(limit), None, dead_letter).is_err(), "{limit}");
        }
        let other = Cursor::Tenant { account_sid: "AC".into() }.to_string();
        for cursor in [other, String::new(), "x".to_owned()] {
            assert!(PageRequest::read(None, Some(cursor), dead_letter).is_err());
        }
    }
}
