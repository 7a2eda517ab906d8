//! Readers of request and response headers. Names arrive in lower case, values as bytes.

use twilio_edge_contract::headers;

use crate::exchange::{Head, ResponseHead};
use crate::overrides::is_override;

/// Reads the headers of a request.
pub fn read_head<'h>(pairs: impl IntoIterator<Item = (&'h [u8], &'h [u8])>) -> Head {
    let mut head = Head::default();
    for (name, value) in pairs {
        if headers::is_reserved(name) {
            head.forged.push(String::from_utf8_lossy(name).into_owned());
            continue;
        }
        let field = match name {
            b":method" => {
                head.method = value.to_vec();
                continue;
            }
            b":path" => {
                head.target = value.to_vec();
                continue;
            }
            b"content-length" => {
                head.content_length =
                    std::str::from_utf8(value).ok().and_then(|length| length.parse().ok());
                continue;
            }
            b"content-type" => &mut head.content_type,
            b"content-encoding" => {
                head.add_content_encoding(value);
                continue;
            }
            b"x-twilio-signature" => &mut head.signature,
            b"x-twilio-webhooks-signature-settings" => &mut head.signature_settings,
            b"x-request-id" => {
                head.request_id = Some(value.to_vec());
                continue;
            }
            b"traceparent" => {
                head.traceparent = Some(value.to_vec());
                continue;
            }
            b"i-twilio-idempotency-token" => {
                head.idempotency_token = Some(value.to_vec());
                continue;
            }
            _ if is_override(name) => {
                head.overrides.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
                continue;
            }
            _ => continue,
        };
        // Envoy joins the lines of this header with a comma; a single content type holds none.
        let joined = name == b"content-type" && value.contains(&b',');
        head.ambiguous |= joined | field.replace(value.to_vec()).is_some();
    }
    head
}

/// Reads the headers of a response. `is_last` is true if it has no body. `is_from_backend` reports whether an upstream sent it;
/// it is called for a success only.
pub fn read_response<'h>(
    pairs: impl IntoIterator<Item = (&'h [u8], &'h [u8])>,
    is_last: bool,
    is_from_backend: impl FnOnce() -> bool,
) -> ResponseHead {
    let mut head = ResponseHead { is_last, ..ResponseHead::default() };
    let (mut content_type, mut encoded) = (None, false);
    for (name, value) in pairs {
        match name {
            b":status" => {
                let status = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                head.status = status.unwrap_or_default();
            }
            b"content-type" => content_type = Some(value),
            b"content-encoding" => encoded = true,
            _ => {}
        }
    }
    head.content_type = content_type.filter(|_| !encoded).map(<[u8]>::to_vec);
    // The origin of the response matters only for a success.
    head.from_backend = (200..300).contains(&head.status) && is_from_backend();
    head
}
