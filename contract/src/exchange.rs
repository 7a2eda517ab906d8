//! Body of `POST /edge/v1/exchange`: the claims and settlements of a batch, and the sidecar's answers to them.

use serde::{Deserialize, Serialize};

use crate::PROTOCOL_VERSION;
use crate::binary::{DecodeError, Record, decode_lists, encode_lists};
use crate::claim::{Claim, Verdict};
use crate::settlement::{Settlement, SettlementAck};
use crate::wire::whole;

/// Body of `POST /edge/v1/exchange`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExchangeRequest {
    /// [`PROTOCOL_VERSION`].
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1))]
    #[serde(deserialize_with = "whole")]
    pub v: u32,
    /// At most [`crate::MAX_BATCH`] claims.
    #[cfg_attr(feature = "openapi", schema(max_items = 256))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claim>,
    /// At most [`crate::MAX_BATCH`] settlements.
    #[cfg_attr(feature = "openapi", schema(max_items = 256))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settlements: Vec<Settlement>,
}

/// Body of the reply to `POST /edge/v1/exchange`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExchangeReply {
    /// [`PROTOCOL_VERSION`].
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1))]
    #[serde(deserialize_with = "whole")]
    pub v: u32,
    /// One verdict for each claim, in the order of the request.
    #[serde(default)]
    pub verdicts: Vec<Verdict>,
    /// One acknowledgement for each settlement, in the order of the request.
    #[serde(default)]
    pub results: Vec<SettlementAck>,
}

impl ExchangeRequest {
    /// Creates a request of this protocol version.
    pub fn new(claims: Vec<Claim>, settlements: Vec<Settlement>) -> Self {
        Self { v: PROTOCOL_VERSION, claims, settlements }
    }

    /// Returns the binary body.
    pub fn encode(&self) -> Vec<u8> {
        let claims: Vec<Vec<u8>> = self.claims.iter().map(Claim::encode).collect();
        let settlements: Vec<Vec<u8>> = self.settlements.iter().map(Settlement::encode).collect();
        encode_request(&claims, &settlements)
    }

    /// Reads the binary body.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] with the version if it is another one, or with the field that is malformed.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (claims, settlements) = decode_lists(body, "claims", "settlements")?;
        Ok(Self::new(claims, settlements))
    }
}

impl ExchangeReply {
    /// Creates a reply of this protocol version.
    pub fn new(verdicts: Vec<Verdict>, results: Vec<SettlementAck>) -> Self {
        Self { v: PROTOCOL_VERSION, verdicts, results }
    }

    /// Returns the binary body.
    pub fn encode(&self) -> Vec<u8> {
        let verdicts: Vec<Vec<u8>> = self.verdicts.iter().map(Record::encode).collect();
        let results: Vec<Vec<u8>> = self.results.iter().map(Record::encode).collect();
        encode_request(&verdicts, &results)
    }

    /// Reads the binary body.
    ///
    /// # Errors
    ///
    /// As [`ExchangeRequest::decode`].
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (verdicts, results) = decode_lists(body, "verdicts", "results")?;
        Ok(Self::new(verdicts, results))
    }
}

/// Returns the binary body of encoded claims and settlements.
pub fn encode_request(claims: &[impl AsRef<[u8]>], settlements: &[impl AsRef<[u8]>]) -> Vec<u8> {
    encode_lists(claims, settlements)
}

#[cfg(test)]
mod tests;
