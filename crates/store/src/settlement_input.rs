//! Input of a settlement.

use twilio_edge_contract::{Identity, Outcome};
use twilio_edge_domain::webhook::Webhook;

/// One settlement, as input of the stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettlementInput {
    /// Identity of the claimed webhook.
    pub identity: Identity,
    /// [`Identity::dedupe_key`].
    pub key: String,
    /// Id of the claim to settle.
    pub claim_id: String,
    /// Outcome of the claim.
    pub outcome: Outcome,
    /// Response to duplicates, as JSON.
    pub answer: Option<String>,
    /// The whole webhook, if it was forwarded without a verdict.
    pub unclaimed: Option<Webhook>,
}
