//! Body of `POST /edge/v1/refusals`: requests that the filter refused, so that the sidecar can find out why.
//!
//! A report never changes the answer to its request. The filter sends a sample, and a lost report is only counted.

use serde::{Deserialize, Serialize};

use crate::PROTOCOL_VERSION;
use crate::binary::{
    DecodeError, FieldProblem, Reader, Record, Writer, decode_lists, encode_lists,
};
use crate::wire::whole;

/// Most requests of one report; a sidecar answers 413 to more.
pub const MAX_REPORTED: usize = 16;
/// Most origins of a report, as of a filter's configuration.
const MAX_ORIGINS: usize = 16;
/// Most headers of a reported request.
const MAX_HEADERS: usize = 32;
/// Most characters of a reported method, of the id of a request, and of a reason.
const MAX_WORD: usize = 64;
/// Most characters of a reported target, and of the route that it belongs to.
const MAX_TARGET: usize = 8192;

/// Body of `POST /edge/v1/refusals`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RefusalReport {
    /// [`PROTOCOL_VERSION`].
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1))]
    #[serde(deserialize_with = "whole")]
    pub v: u32,
    /// Public origins of the filter's configuration, at which it tried the signatures.
    #[cfg_attr(feature = "openapi", schema(max_items = 16))]
    #[serde(default)]
    pub origins: Vec<PublicOrigin>,
    /// At most [`MAX_REPORTED`] requests, oldest first.
    #[cfg_attr(feature = "openapi", schema(max_items = 16))]
    pub requests: Vec<RefusedRequest>,
}

/// Body of the reply to `POST /edge/v1/refusals`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RefusalReportReply {
    /// [`PROTOCOL_VERSION`].
    pub v: u32,
    /// Requests of the report that the sidecar examines. It drops the rest if too many wait.
    pub accepted: u32,
}

/// Public origin, for instance `https://hooks.example.com`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublicOrigin(pub String);

/// Header of a refused request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeaderLine {
    /// Name in lower case.
    pub name: String,
    /// Value, up to its bound.
    pub value: String,
}

crate::string_enum! {
    /// Content of `body` in a [`RefusedRequest`].
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
    pub enum BodyContent: serde {
        /// The whole body.
        #[default]
        Full = "full",
        /// The names of the parameters, as a form without values.
        Names = "names",
        /// Nothing: by the filter's configuration, or because the body is too long, no text, or was never received.
        None = "none",
    }
}

/// Request that the filter refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RefusedRequest {
    /// Reason of the filter: a word as in its metric `twilio_edge_rejected`.
    #[cfg_attr(feature = "openapi", schema(max_length = 64))]
    pub reason: String,
    /// Path of the route in the filter's configuration.
    #[cfg_attr(feature = "openapi", schema(max_length = 8192))]
    pub route: String,
    /// True if the route is in shadow mode: the request was forwarded all the same.
    #[serde(default)]
    pub is_shadow: bool,
    /// Method.
    #[cfg_attr(feature = "openapi", schema(max_length = 64))]
    pub method: String,
    /// Path and query as received.
    #[cfg_attr(feature = "openapi", schema(max_length = 8192))]
    pub target: String,
    /// Headers that the explanation needs: the signature, the content type, the authority and those of proxies.
    #[cfg_attr(feature = "openapi", schema(max_items = 32))]
    #[serde(default)]
    pub headers: Vec<HeaderLine>,
    /// Body, as far as the filter's configuration permits.
    #[serde(default)]
    pub body: String,
    /// Content of `body`.
    #[serde(default)]
    pub body_content: BodyContent,
    /// Length of the received body, in bytes.
    #[cfg_attr(feature = "openapi", schema(value_type = u64, maximum = 4294967295u32))]
    #[serde(default, deserialize_with = "whole")]
    pub body_bytes: u32,
    /// Time from the refusal to the report, in milliseconds.
    #[cfg_attr(feature = "openapi", schema(value_type = u64, maximum = 4294967295u32))]
    #[serde(default, deserialize_with = "whole")]
    pub age_ms: u32,
    /// Refused requests of this reason and route that were not reported since the last one that was.
    #[cfg_attr(feature = "openapi", schema(value_type = u64, maximum = 4294967295u32))]
    #[serde(default, deserialize_with = "whole")]
    pub skipped: u32,
    /// `x-request-id`, to find the request in other logs.
    #[cfg_attr(feature = "openapi", schema(max_length = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl RefusalReport {
    /// Creates a report of this protocol version.
    pub fn new(origins: Vec<PublicOrigin>, requests: Vec<RefusedRequest>) -> Self {
        Self { v: PROTOCOL_VERSION, origins, requests }
    }

    /// Returns the binary body.
    pub fn encode(&self) -> Vec<u8> {
        let origins: Vec<Vec<u8>> = self.origins.iter().map(Record::encode).collect();
        let requests: Vec<Vec<u8>> = self.requests.iter().map(Record::encode).collect();
        encode_lists(&origins, &requests)
    }

    /// Reads the binary body.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] with the version if it is another one, or with the field that is malformed.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (origins, requests) = decode_lists(body, "origins", "requests")?;
        Ok(Self::new(origins, requests))
    }

    /// Returns the field that is longer than this protocol permits, with its bound, if there is one.
    pub fn excess(&self) -> Option<String> {
        let too_many = (self.origins.len() > MAX_ORIGINS)
            .then(|| format!("origins: more than {MAX_ORIGINS} entries"));
        too_many.or_else(|| self.requests.iter().find_map(RefusedRequest::excess))
    }
}

impl RefusedRequest {
    fn excess(&self) -> Option<String> {
        if self.headers.len() > MAX_HEADERS {
            return Some(format!("requests.headers: more than {MAX_HEADERS} entries"));
        }
        let request_id = self.request_id.as_deref().unwrap_or_default();
        [
            ("reason", self.reason.as_str(), MAX_WORD),
            ("route", &self.route, MAX_TARGET),
            ("method", &self.method, MAX_WORD),
            ("target", &self.target, MAX_TARGET),
            ("request_id", request_id, MAX_WORD),
        ]
        .into_iter()
        .find(|(_, value, most)| value.len() > *most && value.chars().count() > *most)
        .map(|(name, _, most)| format!("requests.{name}: more than {most} characters"))
    }

    /// Returns the approximate size of the request in a report, in bytes.
    pub fn bytes(&self) -> usize {
        let lines = self.headers.iter().map(|line| line.name.len() + line.value.len() + 4);
        self.route.len() + self.target.len() + self.body.len() + lines.sum::<usize>() + 128
    }
}

impl Record for PublicOrigin {
    fn write(&self, writer: &mut Writer) {
        writer.text(&self.0);
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FieldProblem> {
        fields.text("origin").map(Self)
    }
}

impl Record for HeaderLine {
    fn write(&self, writer: &mut Writer) {
        writer.text(&self.name);
        writer.text(&self.value);
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FieldProblem> {
        Ok(Self { name: fields.text("headers.name")?, value: fields.text("headers.value")? })
    }
}

impl Record for RefusedRequest {
    fn write(&self, writer: &mut Writer) {
        writer.text(&self.reason);
        writer.text(&self.route);
        writer.flag(self.is_shadow);
        writer.text(&self.method);
        writer.text(&self.target);
        let headers: Vec<Vec<u8>> = self.headers.iter().map(Record::encode).collect();
        writer.list(&headers);
        writer.text(&self.body);
        writer.value(&self.body_content, &BodyContent::ALL);
        writer.optional_number(Some(self.body_bytes));
        writer.optional_number(Some(self.age_ms));
        writer.optional_number(Some(self.skipped));
        writer.optional_text(self.request_id.as_deref());
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, FieldProblem> {
        Ok(Self {
            reason: fields.text("reason")?,
            route: fields.text("route")?,
            is_shadow: fields.flag()?,
            method: fields.text("method")?,
            target: fields.text("target")?,
            headers: fields.list()?,
            body: fields.text("body")?,
            body_content: fields.value("body_content", &BodyContent::ALL)?,
            body_bytes: fields.optional_number()?.unwrap_or_default(),
            age_ms: fields.optional_number()?.unwrap_or_default(),
            skipped: fields.optional_number()?.unwrap_or_default(),
            request_id: fields.optional_text("request_id")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option::of;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn request() -> impl Strategy<Value = RefusedRequest> {
        let text = || ".{0,12}";
        let line = (text(), text()).prop_map(|(name, value)| HeaderLine { name, value });
        let texts = (text(), text(), text(), text(), "[a-z=&%0-9]{0,300}", of(text()));
        let numbers = (0..u32::MAX, 0..u32::MAX, 0..u32::MAX);
        (texts, any::<bool>(), vec(line, 0..4), select(&BodyContent::ALL), numbers).prop_map(
            |(texts, is_shadow, headers, body_content, (body_bytes, age_ms, skipped))| {
                let (reason, route, method, target, body, request_id) = texts;
                RefusedRequest {
                    reason,
                    route,
                    is_shadow,
                    method,
                    target,
                    headers,
                    body,
                    body_content,
                    body_bytes,
                    age_ms,
                    skipped,
                    request_id,
                }
            },
        )
    }

    fn report() -> impl Strategy<Value = RefusalReport> {
        let origin = ".{0,12}".prop_map(PublicOrigin);
        (vec(origin, 0..3), vec(request(), 0..4))
            .prop_map(|(origins, requests)| RefusalReport::new(origins, requests))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn report_is_equal_after_encoding_and_decoding(report in report()) {
            prop_assert_eq!(RefusalReport::decode(&report.encode()), Ok(report.clone()));
            let json = serde_json::to_string(&report).unwrap();
            prop_assert_eq!(serde_json::from_str::<RefusalReport>(&json).unwrap(), report);
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(rest in vec(any::<u8>(), 0..200)) {
            let _ = RefusalReport::decode(&[b"TE\x01".as_slice(), &rest].concat());
        }

        #[test]
        fn truncated_report_is_an_error(report in report(), cut in any::<prop::sample::Index>()) {
            let body = report.encode();
            let shorter = &body[..cut.index(body.len())];
            prop_assert!(RefusalReport::decode(shorter).is_err());
        }
    }
}
