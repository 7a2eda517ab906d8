//! Requests to the sidecar and its replies, as far as HTTP is concerned.

use crate::config::Sidecar;

/// Largest reply of the sidecar that is read, in bytes.
pub const MAX_REPLY_BYTES: usize = 1 << 20;

/// Returns the headers of a request to the sidecar: those of the request, and those that all requests have.
pub fn sidecar_headers<'a>(
    sidecar: &'a Sidecar,
    own: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let common = [
        (":authority", sidecar.cluster.as_str()),
        ("authorization", sidecar.authorization.as_str()),
        // All requests are idempotent, so Envoy may retry at once on a broken connection.
        ("x-envoy-retry-on", "connect-failure,refused-stream,reset"),
        ("x-envoy-max-retries", "1"),
    ];
    own.iter().copied().chain(common).collect()
}

/// Reports whether a reply can be the sidecar's: 200 and of this content type. Envoy itself answers 502, 503 and 504.
pub fn is_reply_of(status: Option<&[u8]>, content_type: Option<&[u8]>, media_type: &str) -> bool {
    status == Some(b"200") && content_type.is_some_and(|it| it.starts_with(media_type.as_bytes()))
}
