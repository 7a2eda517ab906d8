//! Parties that must act on a refusal or an error.

use serde::{Deserialize, Serialize};

twilio_edge_contract::string_enum! {
    /// Party that must act.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
    pub enum Actor: serde {
        /// The filter or application that calls, or the person who configures it.
        Caller = "caller",
        /// The person who runs this sidecar or the Twilio account.
        Operator = "operator",
        /// A person with an admin key.
        Administrator = "administrator",
        /// The contact that the message is for.
        Recipient = "recipient",
        /// No party: the error is temporary.
        None = "none",
    }
}
