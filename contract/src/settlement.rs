//! Settlement of a claim, and its acknowledgement.

use serde::{Deserialize, Serialize};

use crate::claim::{Envelope, SavedAnswer};
use crate::identity::{Class, Identity};
use crate::wire::read_with_identity;

crate::string_enum! {
    /// Outcome of a forwarded webhook.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
    pub enum Outcome: serde {
        /// The backend accepted it: from now on it is a duplicate.
        Commit = "commit",
        /// The backend did not accept it: the next attempt counts as a first one.
        Release = "release",
    }
}

/// The end of one claim.
///
/// A filter that got no verdict but forwarded the webhook (policy `forward`) also settles, with the form. So the sidecar
/// records an opt-out as soon as it is available again, and does not deliver again what the backend accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Settlement {
    /// The claim to settle.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[^:\\x00-\\x1f\\x7f-\\x9f]{1,255}$"))]
    pub claim_id: String,
    /// Identity of the claimed webhook.
    #[serde(flatten)]
    pub identity: Identity,
    /// Outcome of the webhook.
    pub outcome: Outcome,
    /// Route and form of a webhook for which no verdict arrived; none when the sidecar has them already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unclaimed: Option<UnclaimedWebhook>,
    /// Only with `commit`: the backend's answer, if it is small and useful for duplicates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<SavedAnswer>,
    /// [`crate::Claim::url_digest`] of the settled claim.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[0-9a-f]{16}$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_digest: Option<String>,
    /// [`crate::Verdict::step`] of its claim.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[0-9a-f]{16}$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

read_with_identity!(Settlement {
    claim_id: String, outcome: Outcome;
    unclaimed: Option<UnclaimedWebhook>, answer: Option<SavedAnswer>, url_digest: Option<String>, step: Option<String>
});

/// The contents of a [`crate::Claim`] beyond its identity, for a webhook that was forwarded without a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UnclaimedWebhook {
    /// Path of the route, without query.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"))]
    pub route: String,
    /// The signed parameters as received.
    pub form: String,
    /// Envelope of the signed parameters.
    #[serde(default, skip_serializing_if = "Envelope::is_empty")]
    pub envelope: Envelope,
}

crate::string_enum! {
    /// Result of one settlement.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
    pub enum SettlementResult: serde {
        /// Applied as requested, now or by an earlier copy of the same settlement.
        Settled = "settled",
        /// A release of an unknown claim: it is stored, and applied to the claim when it arrives.
        Tombstoned = "tombstoned",
        /// The lease has expired and belongs to another claim by now: nothing was changed.
        Superseded = "superseded",
        /// The stores could not record it: send it again.
        Unavailable = "unavailable",
    }
}

/// Acknowledgement of one [`Settlement`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SettlementAck {
    /// The claim this answers.
    pub claim_id: String,
    /// Result of the settlement.
    pub result: SettlementResult,
}
