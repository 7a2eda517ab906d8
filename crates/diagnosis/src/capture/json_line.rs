//! Line of a vector file, or of a request for `explain`: a JSON object.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::parts::{Capture, Format, text};
use crate::captured::Captured;

/// Line of a vector file; most of its fields are optional.
#[derive(Debug, Deserialize)]
pub struct JsonLine {
    method: String,
    url: String,
    headers: BTreeMap<String, String>,
    content_type: Option<String>,
    body: Option<String>,
    body_b64: Option<String>,
    /// Key of the signature; a request captured for `explain` should not have it in the file.
    auth_token: Option<String>,
}

/// Reads one object. Its URL is the public one.
pub(super) fn parse(raw: &[u8]) -> Result<Capture, String> {
    let line: JsonLine = serde_json::from_str(text(raw)?).map_err(|error| error.to_string())?;
    let secret = line.auth_token.clone();
    let Captured { method, url, headers, body } = line.into_captured()?;
    Ok(Capture { headers, body, secret, ..Capture::new(Format::Json, method, url) })
}

impl JsonLine {
    /// Returns the key of the signature.
    pub fn auth_token(&self) -> Option<&str> {
        self.auth_token.as_deref()
    }

    /// Returns the request.
    ///
    /// # Errors
    ///
    /// Two bodies, or a body that is not base64.
    pub fn into_captured(self) -> Result<Captured, String> {
        let body = match (self.body, self.body_b64) {
            (Some(body), None) => body.into_bytes(),
            (None, Some(encoded)) => STANDARD
                .decode(encoded)
                .map_err(|error| format!("`body_b64` is not base64: {error}"))?,
            (None, None) => Vec::new(),
            (Some(_), Some(_)) => return Err("both `body` and `body_b64`: give one".to_owned()),
        };
        let headers = self.headers.into_iter().collect();
        let mut captured = Captured { method: self.method, url: self.url, headers, body };
        if let Some(content_type) = self.content_type
            && captured.header("Content-Type").is_none()
        {
            captured.headers.push(("Content-Type".to_owned(), content_type));
        }
        Ok(captured)
    }
}
