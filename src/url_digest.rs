//! Short digest of the URL of an inbound message, which distinguishes the steps of one message. Twilio requests another URL
//! for the same `MessageSid` after a TwiML `<Redirect>` (docs: messaging/twiml/redirect) and as a fallback, which names in
//! `ErrorUrl` the URL that failed. A digest keeps secrets of the query out of storage.
//!
//! Must not know: routes, claims, the host.

use sha2::{Digest, Sha256};

use crate::form::Form;

/// Bytes of the digest: enough that two URLs of one message do not share it by chance.
const DIGEST_BYTES: usize = 8;

/// Returns the digest of the URL whose answer Twilio wants: the URL of the request, or the URL that failed if the request is
/// a fallback; `None` if the fallback does not name one of the configured origins.
pub(crate) fn digest(target: &[u8], form: &str, origins: &[String]) -> Option<String> {
    let target = std::str::from_utf8(target).ok()?;
    // Nearly every webhook: no name can be one of the two, in any spelling.
    if !form.split('&').any(|pair| pair.starts_with(['E', '%'])) {
        return Some(hex(&plain(target)));
    }
    let fields = Form::parse(form.as_bytes()).ok()?;
    let has = |name: &str| fields.get(name).is_some_and(|value| !value.is_empty());
    if !has("ErrorCode") && !has("ErrorUrl") {
        return Some(hex(&plain(target)));
    }
    let failed = fields.get("ErrorUrl").unwrap_or_default();
    let failed = failed.split('#').next().unwrap_or_default();
    let authority = failed.find("://")?.saturating_add(3);
    let is_end = |(place, letter): &(usize, char)| *place >= authority && "/?".contains(*letter);
    let end = failed.char_indices().find(is_end).map_or(failed.len(), |(place, _)| place);
    let (origin, path) = failed.split_at_checked(end)?;
    let failed_origin = plain_origin(origin);
    if !origins.iter().any(|own| plain_origin(own) == failed_origin) {
        return None;
    }
    Some(hex(&match path.starts_with('/') {
        true => plain(path),
        false => plain(&format!("/{path}")),
    }))
}

/// Removes a user and the default port of the scheme.
fn plain_origin(origin: &str) -> String {
    let origin = origin.to_ascii_lowercase();
    let Some((scheme, authority)) = origin.split_once("://") else { return origin };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = if scheme == "https" { ":443" } else { ":80" };
    format!("{scheme}://{}", host.strip_suffix(port).unwrap_or(host))
}

/// Removes the fragment, and the parameters of the message that a GET has in its query: Twilio's names begin with a capital.
fn plain(target: &str) -> String {
    let target = target.split('#').next().unwrap_or_default();
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let is_webhook = query.split('&').any(|pair| pair.starts_with("MessageSid="));
    let is_own = |pair: &&str| !is_webhook || !pair.starts_with(|c: char| c.is_ascii_uppercase());
    let own: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).filter(is_own).collect();
    match own.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", own.join("&")),
    }
}

fn hex(text: &str) -> String {
    let mut digest = String::with_capacity(DIGEST_BYTES * 2);
    for byte in Sha256::digest(text.as_bytes()).iter().take(DIGEST_BYTES) {
        for digit in [byte >> 4, byte & 15] {
            digest.extend(char::from_digit(digit.into(), 16));
        }
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(target: &str, form: &str) -> Option<String> {
        digest(target.as_bytes(), form, &["https://a.example".to_owned()])
    }

    #[test]
    fn url_is_distinguished_by_path_and_query() {
        let first = of("/in", "Body=hi").unwrap();
        assert_eq!(first.len(), 16);
        assert_eq!(of("/in", "Body=other"), Some(first.clone()));
        assert_eq!(of("/in?", ""), Some(first.clone()));
        for other in ["/in?step=2", "/in/2", "/In"] {
            assert_ne!(of(other, ""), Some(first.clone()), "{other}");
        }
    }

    #[test]
    fn fallback_is_about_the_url_that_failed() {
        let failed = of("/in?step=2", "").unwrap();
        for url in [
            "https://a.example/in?step=2",
            "https://a.example:443/in?step=2#rc=3",
            "https://user:secret@a.example/in?step=2",
        ] {
            let mut form = form_of("ErrorUrl", url);
            form.push_str("&ErrorCode=11200");
            assert_eq!(of("/fallback", &form), Some(failed.clone()), "{url}");
        }
        assert_eq!(of("/fallback", "ErrorCode=11200"), None);
        assert_eq!(of("/fallback", "ErrorCode=11200&ErrorUrl=x"), None);
        assert_eq!(of("/fallback", &form_of("ErrorUrl", "https://b.example/in?step=2")), None);
        let root = of("/", "").unwrap();
        assert_eq!(of("/f", &form_of("ErrorUrl", "https://a.example")), Some(root));
    }

    #[test]
    fn message_in_the_query_of_a_get_is_no_part_of_its_url() {
        let url = of("/in?step=2", "");
        assert_eq!(of("/in?step=2&MessageSid=SM1&Body=a", "MessageSid=SM1&Body=a"), url);
        assert_eq!(of("/in?MessageSid=SM1&Body=b&step=2", "MessageSid=SM1&Body=b"), url);
        assert_ne!(of("/in?Tenant=1", ""), of("/in?Tenant=2", ""));
    }

    fn form_of(name: &str, value: &str) -> String {
        let escaped: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        format!("{name}={escaped}")
    }
}
