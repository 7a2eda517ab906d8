//! Bodies of requests and responses.

use axum::{
    body::Bytes,
    extract::rejection::{BytesRejection, FailedToBufferBody},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use twilio_edge_domain::refusal::RefusalCode;

use super::problem::Problem;

/// Returns the whole body, or the refusal: too large or not readable.
pub(crate) fn whole(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Problem> {
    body.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            Problem::of(RefusalCode::BodyTooLarge)
        }
        other => Problem::malformed(&other.body_text()),
    })
}

/// Parses the body as a JSON object. A JSON array is refused: serde would read it as the fields in the order of the
/// struct.
pub(crate) fn object<T: serde::de::DeserializeOwned>(
    body: Result<Bytes, BytesRejection>,
) -> Result<T, Problem> {
    let body = whole(body)?;
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::malformed("the body must be a JSON object, not a list"));
    }
    serde_json::from_slice(&body).map_err(|error| Problem::malformed(&error.to_string()))
}

/// Reads an optional integer. JSON Schema counts `60.0` as an integer, and some clients write numbers that way.
pub(crate) fn integer<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u32>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let text = number.to_string();
    let integer = text.strip_suffix(".0").unwrap_or(&text).parse();
    let expected =
        || serde::de::Error::custom(format!("{text} is not an integer from 0 to 4294967295"));
    integer.map(Some).map_err(|_| expected())
}

/// Parses the body of a filter's request as `T`; `version` returns the protocol version of the parsed value.
pub(crate) fn read<T: serde::de::DeserializeOwned>(
    body: Result<Bytes, BytesRejection>,
    version: impl Fn(&T) -> u32,
) -> Result<T, Problem> {
    let body = whole(body)?;
    let malformed = |error: serde_json::Error| Problem::malformed(&error.to_string());
    let version = match serde_json::from_slice::<T>(&body) {
        Ok(request) if version(&request) == twilio_edge_contract::PROTOCOL_VERSION => {
            return Ok(request);
        }
        Ok(request) => f64::from(version(&request)),
        // Another protocol version may differ in every other respect, so the version is reported before any other error.
        Err(error) => match serde_json::from_slice(&body).map_err(malformed)? {
            Versioned { v } if v == f64::from(twilio_edge_contract::PROTOCOL_VERSION) => {
                return Err(malformed(error));
            }
            Versioned { v } => v,
        },
    };
    Err(Problem::unknown_version(version))
}

#[derive(serde::Deserialize)]
struct Versioned {
    v: f64,
}

/// Refuses a batch of more than [`twilio_edge_contract::MAX_BATCH`] entries.
pub(crate) fn check_batch(size: usize) -> Result<(), Problem> {
    if size > twilio_edge_contract::MAX_BATCH {
        return Err(Problem::batch_too_large(size));
    }
    Ok(())
}

/// Renders a reply as JSON with status 200.
pub(crate) fn json(reply: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(reply) {
        Ok(body) => {
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(error) => Problem::internal(&error.to_string()).into_response(),
    }
}
