//! Statistics of outbound messages over a period, from the hourly counters of the store.

use std::collections::BTreeMap;

use twilio_edge_domain::sending::statistics::{MessageTotals, whole_hours};
use twilio_edge_store::{CountQuery, MessageCount, OutboundMessages, StoreError};

/// Largest number of counters in one statistic. Counters of one group with different events count separately.
const MAX_COUNTERS: usize = 20_000;

/// Statistics of a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistics {
    /// Start of the period, inclusive, at a whole hour, in milliseconds since 1970.
    pub since_ms: i64,
    /// End of the period, exclusive, at a whole hour, in milliseconds since 1970.
    pub until_ms: i64,
    /// Sums over all groups.
    pub totals: MessageTotals,
    /// Groups, in the order of their values.
    pub groups: Vec<StatisticsGroup>,
    /// True if there are more groups than a statistic can have: the sums are too low.
    pub is_truncated: bool,
}

/// Messages that have the values of the requested dimensions in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatisticsGroup {
    /// Values of the requested dimensions; those of the others are empty.
    pub of: MessageCount,
    /// Counts of the group.
    pub totals: MessageTotals,
}

/// Returns the statistics of an account. The period is extended to whole hours.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn statistics(
    messages: &OutboundMessages,
    query: CountQuery,
) -> Result<Statistics, StoreError> {
    let (since_ms, until_ms) = whole_hours(query.since_ms, query.until_ms);
    let query = CountQuery { since_ms, until_ms, ..query };
    let mut counters = messages.counts(&query, MAX_COUNTERS + 1).await?;
    let is_truncated = counters.len() > MAX_COUNTERS;
    counters.truncate(MAX_COUNTERS);
    let mut totals = MessageTotals::default();
    let mut groups: BTreeMap<Vec<String>, StatisticsGroup> = BTreeMap::new();
    for (counter, count) in counters {
        totals.add(counter.event, count);
        let MessageCount { hour_ms, channel, sender, template, country, code, .. } =
            counter.clone();
        let key = vec![format!("{hour_ms:020}"), channel, sender, template, country, code];
        let event = counter.event;
        let group = groups
            .entry(key)
            .or_insert_with(|| StatisticsGroup { of: counter, totals: MessageTotals::default() });
        group.totals.add(event, count);
    }
    let groups = if query.by.is_empty() { Vec::new() } else { groups.into_values().collect() };
    Ok(Statistics { since_ms, until_ms, totals, groups, is_truncated })
}
