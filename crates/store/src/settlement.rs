//! Settlement of a claim, as the stores take it.

use twilio_edge_contract::{Identity, Outcome};
use twilio_edge_domain::webhook::Webhook;

/// One settlement, as the stores see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettlementInput {
    /// What was claimed.
    pub identity: Identity,
    /// [`Identity::dedupe_key`].
    pub key: String,
    /// The claim to settle.
    pub claim_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What to answer duplicates with, as JSON.
    pub answer: Option<String>,
    /// Set when it was forwarded without a verdict: all of it.
    pub unclaimed: Option<Webhook>,
}
