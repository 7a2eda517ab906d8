//! View of the statistics of outbound messages.

use std::collections::BTreeSet;

use serde::Serialize;
use utoipa::ToSchema;

use twilio_edge_domain::{
    sending::statistics::{Dimension, MessageTotals},
    window::rfc3339,
};
use twilio_edge_services::outbound::statistics::{Statistics, StatisticsGroup};

/// Statistics of the outbound messages of an account.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StatisticsView {
    /// Start of the period, inclusive, at a whole hour.
    #[schema(format = DateTime)]
    pub since: Option<String>,
    /// End of the period, exclusive, at a whole hour.
    #[schema(format = DateTime)]
    pub until: Option<String>,
    /// Sums over all groups.
    pub totals: MessageTotals,
    /// Groups by the requested dimensions; empty without `by`.
    pub groups: Vec<StatisticsGroupView>,
    /// True if there are more groups than an answer can have: the sums are then too low, and a shorter period or fewer
    /// dimensions help.
    pub truncated: bool,
}

/// Counts of the messages that have these values in common.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StatisticsGroupView {
    /// Start of the hour; `null` unless `by` contains `hour`.
    #[schema(format = DateTime)]
    pub hour: Option<String>,
    /// Channel; `null` unless `by` contains `channel`.
    pub channel: Option<String>,
    /// Sender; `null` unless `by` contains `sender`. Empty if a rule refused the request because of its sender.
    pub sender: Option<String>,
    /// Template; `null` unless `by` contains `template`. Empty for messages without one.
    pub template: Option<String>,
    /// Country of the recipients; `null` unless `by` contains `country`. Empty if it is unknown.
    pub country: Option<String>,
    /// Error code; `null` unless `by` contains `code`. Empty for events without one.
    pub code: Option<String>,
    /// Counts of the group.
    #[serde(flatten)]
    pub totals: MessageTotals,
}

impl StatisticsView {
    /// Renders statistics by these dimensions.
    pub fn of(statistics: &Statistics, by: &BTreeSet<Dimension>) -> StatisticsView {
        let group = |group: &StatisticsGroup| {
            let value = |dimension, value: &String| by.contains(&dimension).then(|| value.clone());
            StatisticsGroupView {
                hour: rfc3339(group.of.hour_ms).filter(|_| by.contains(&Dimension::Hour)),
                channel: value(Dimension::Channel, &group.of.channel),
                sender: value(Dimension::Sender, &group.of.sender),
                template: value(Dimension::Template, &group.of.template),
                country: value(Dimension::Country, &group.of.country),
                code: value(Dimension::Code, &group.of.code),
                totals: group.totals,
            }
        };
        StatisticsView {
            since: rfc3339(statistics.since_ms),
            until: rfc3339(statistics.until_ms),
            totals: statistics.totals,
            groups: statistics.groups.iter().map(group).collect(),
            truncated: statistics.is_truncated,
        }
    }
}
