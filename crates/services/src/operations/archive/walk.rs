//! Iteration over the lines of an archive in their order, from any earlier position. Replays use it.

use std::collections::VecDeque;

use super::Archive;
use twilio_edge_domain::archive::{ArchivePage, ArchivedWebhook, IndexMark, ObjectName};

/// Filters of the iteration.
#[derive(Debug, Clone)]
pub struct ArchiveFilter {
    /// Only lines of this account.
    pub account_sid: Option<String>,
    /// Only lines of this message.
    pub message_sid: Option<String>,
    /// Only lines of this class.
    pub class: Option<String>,
    /// Only webhooks received at this time or later, in milliseconds since 1970.
    pub since_ms: i64,
    /// Only webhooks received before this time, in milliseconds since 1970.
    pub until_ms: i64,
}

/// One iteration. It holds one object in memory at a time.
#[derive(Debug)]
pub struct ArchiveWalk<'a> {
    archive: &'a Archive,
    filter: ArchiveFilter,
    names: VecDeque<ObjectName>,
    total: usize,
    /// Key of the current object, and its remaining lines with their numbers.
    open: Option<(String, VecDeque<(usize, ArchivedWebhook)>)>,
}

impl ArchiveFilter {
    fn matches(&self, line: &ArchivedWebhook) -> bool {
        let at_ms = line.received_at_ms();
        at_ms >= self.since_ms
            && at_ms < self.until_ms
            && self.account_sid.as_ref().is_none_or(|sid| *sid == line.account_sid)
            && self.message_sid.as_ref().is_none_or(|sid| *sid == line.message_sid)
            && self.class.as_ref().is_none_or(|class| *class == line.class)
    }
}

impl<'a> ArchiveWalk<'a> {
    /// Lists the objects after a position; an empty position means all of them.
    ///
    /// # Errors
    /// Returns the reason, for the operator, if the archive fails.
    pub async fn begin(
        archive: &'a Archive,
        filter: ArchiveFilter,
        position: &str,
    ) -> Result<ArchiveWalk<'a>, String> {
        let accounts = match &filter.account_sid {
            Some(account_sid) => [account_sid.clone()].into(),
            None => archive.accounts().await?,
        };
        let mut names = Vec::new();
        for account_sid in accounts {
            names.extend(archive.names(&account_sid, filter.since_ms, filter.until_ms).await?);
        }
        let total = names.len();
        let (object, done) = position.rsplit_once('#').unwrap_or((position, ""));
        let done: usize = done.parse().unwrap_or_default();
        names.retain(|name| name.key().as_str() >= object);
        if let Some(message_sid) = &filter.message_sid {
            names = archive.holding(names, IndexMark::of(message_sid)).await?;
        }
        let mut walk = ArchiveWalk { archive, filter, names: names.into(), total, open: None };
        if walk.names.front().is_some_and(|name| name.key() == object) {
            walk.read_next().await?;
            if let Some((_, rest)) = &mut walk.open {
                rest.retain(|(nth, _)| *nth > done);
            }
        }
        Ok(walk)
    }

    /// Returns the number of objects that were read, and their total.
    pub fn progress(&self) -> (usize, usize) {
        (self.total.saturating_sub(self.names.len()), self.total)
    }

    /// Returns up to `most` lines.
    ///
    /// # Errors
    /// Returns the reason, for the operator, if the archive fails.
    pub async fn next(&mut self, most: usize) -> Result<ArchivePage, String> {
        loop {
            let rest = self.open.as_mut().filter(|(_, rest)| !rest.is_empty());
            let Some((key, rest)) = rest else {
                if !self.read_next().await? {
                    return Ok(ArchivePage { is_last: true, ..ArchivePage::default() });
                }
                continue;
            };
            let (mut lines, mut last) = (Vec::new(), 0);
            while let Some((nth, line)) = rest.pop_front_if(|_| lines.len() < most) {
                last = nth;
                lines.push(line);
            }
            let is_last = rest.is_empty() && self.names.is_empty();
            return Ok(ArchivePage { lines, place: format!("{key}#{last}"), is_last });
        }
    }

    async fn read_next(&mut self) -> Result<bool, String> {
        let Some(name) = self.names.front() else { return Ok(false) };
        let lines = self.archive.read(name).await?;
        let numbered = lines.into_iter().enumerate().map(|(nth, line)| (nth + 1, line));
        let matching = numbered.filter(|(_, line)| self.filter.matches(line)).collect();
        self.open = Some((name.key(), matching));
        self.names.pop_front();
        Ok(true)
    }
}
