//! Body of `POST /edge/v1/exchange`: the claims and settlements of a batch, and the sidecar's answers to them.

use serde::{Deserialize, Serialize};

use crate::PROTOCOL_VERSION;
use crate::binary::{DecodeError, Reader, Record, Writer, read_list};
use crate::claim::{Claim, Verdict};
use crate::settlement::{Settlement, SettlementAck};
use crate::wire::whole;

/// First bytes of every binary body; the protocol version follows them as one byte.
const MAGIC: &[u8; 2] = b"TE";

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
        let (claims, settlements) = decode(body, "claims", "settlements")?;
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
        let (verdicts, results) = decode(body, "verdicts", "results")?;
        Ok(Self::new(verdicts, results))
    }
}

/// Returns the binary body of encoded claims and settlements.
pub fn encode_request(claims: &[impl AsRef<[u8]>], settlements: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let bytes = claims.iter().map(|item| item.as_ref().len()).sum::<usize>()
        + settlements.iter().map(|item| item.as_ref().len()).sum::<usize>();
    let mut body = Writer::with_capacity(bytes + (claims.len() + settlements.len()) * 3 + 16);
    body.bytes(MAGIC);
    body.byte(version_byte());
    body.list(claims);
    body.list(settlements);
    body.finish()
}

fn version_byte() -> u8 {
    const { assert!(PROTOCOL_VERSION < 256) };
    PROTOCOL_VERSION as u8
}

fn decode<A: Record, B: Record>(
    body: &[u8],
    first: &'static str,
    second: &'static str,
) -> Result<(Vec<A>, Vec<B>), DecodeError> {
    let Some(rest) = body.strip_prefix(MAGIC) else { return Err(DecodeError::NotAnExchange) };
    let mut reader = Reader::new(rest);
    let version = reader.byte().map_err(|problem| problem.at("version", 0))?;
    if version != version_byte() {
        return Err(DecodeError::OtherVersion(version.into()));
    }
    let firsts = read_list(&mut reader, first)?;
    let seconds = read_list(&mut reader, second)?;
    Ok((firsts, seconds))
}

#[cfg(test)]
mod tests;
