//! Line of a vector file, or of a request for `explain`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use twilio_edge_diagnosis::Captured;

/// Line of a vector file; most of its fields are optional.
#[derive(Debug, Deserialize)]
pub(super) struct JsonLine {
    method: String,
    url: String,
    headers: BTreeMap<String, String>,
    content_type: Option<String>,
    body: Option<String>,
    body_b64: Option<String>,
    /// Key of the signature; a request captured for `explain` should not have it in the file.
    pub(super) auth_token: Option<String>,
}

impl JsonLine {
    /// Returns the request.
    pub(super) fn into_captured(self) -> Result<Captured, String> {
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
