//! Validation of Twilio's request signatures, <https://www.twilio.com/docs/usage/security#validating-requests>.
//!
//! Decides: which URLs Twilio may have signed, which string they form together with the parameters, and whether one of
//! an account's keys signed that string. All of it works on the bytes as received: a URL that is parsed and printed again
//! is a different URL (twilio-node issues 1059 and 1183 are the consequences).
//!
//! Must not know: routes, accounts, HTTP phases, the host.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
pub use twilio_edge_contract::KeyAlgorithm as Algorithm;

use crate::form::{Form, SignedText};

/// Query parameter with which Twilio binds a body that is no form to the signed URL.
const BODY_HASH: &str = "bodySHA256";

/// Length of the longest signature: 32 bytes in base64.
const MAX_SIGNATURE_BYTES: usize = 44;

/// The one media type whose parameters are signed.
const FORM_MEDIA_TYPE: &[u8] = b"application/x-www-form-urlencoded";

/// The content type of Twilio's forms.
pub(crate) const TWILIO_MEDIA_TYPE: &[u8] = b"application/x-www-form-urlencoded; charset=UTF-8";

/// Key that may have signed, with both HMAC pads hashed already. The algorithm belongs to the key: a request may name a key,
/// but never choose its algorithm.
#[derive(Clone)]
pub struct Key {
    label: String,
    hmac: KeyedHash,
}

#[derive(Clone)]
enum KeyedHash {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
}

impl Key {
    /// Creates the key of an auth token. `label` is its name in logs, headers and metrics; the token itself is never shown.
    pub fn auth_token(label: impl Into<String>, token: &str) -> Option<Self> {
        Self::shared(label, token, Algorithm::HmacSha1)
    }

    /// Creates a SharedKey (twilio.com/docs/usage/webhooks/webhook-shared-keys).
    pub fn shared(label: impl Into<String>, secret: &str, algorithm: Algorithm) -> Option<Self> {
        let secret = secret.as_bytes();
        let hmac = match algorithm {
            Algorithm::HmacSha1 => KeyedHash::Sha1(Hmac::new_from_slice(secret).ok()?),
            Algorithm::HmacSha256 => KeyedHash::Sha256(Hmac::new_from_slice(secret).ok()?),
        };
        Some(Self { label: label.into(), hmac })
    }

    /// Returns the name to show.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Returns the algorithm of the key.
    pub fn algorithm(&self) -> Algorithm {
        match self.hmac {
            KeyedHash::Sha1(_) => Algorithm::HmacSha1,
            KeyedHash::Sha256(_) => Algorithm::HmacSha256,
        }
    }

    /// Returns the length of a signature in characters: 20 or 32 bytes in base64.
    fn signature_characters(&self) -> usize {
        match self.hmac {
            KeyedHash::Sha1(_) => 28,
            KeyedHash::Sha256(_) => 44,
        }
    }

    fn sign(&self, parts: [&str; 3]) -> Signature {
        match &self.hmac {
            KeyedHash::Sha1(hmac) => finish(hmac.clone(), parts),
            KeyedHash::Sha256(hmac) => finish(hmac.clone(), parts),
        }
    }
}

/// Signature in base64.
struct Signature {
    text: [u8; MAX_SIGNATURE_BYTES],
    bytes: usize,
}

impl Signature {
    fn as_bytes(&self) -> &[u8] {
        self.text.get(..self.bytes).unwrap_or_default()
    }
}

fn finish(mut hmac: impl Mac, parts: [&str; 3]) -> Signature {
    parts.into_iter().for_each(|part| hmac.update(part.as_bytes()));
    let mut text = [0; MAX_SIGNATURE_BYTES];
    let bytes = STANDARD.encode_slice(hmac.finalize().into_bytes(), &mut text).unwrap_or_default();
    Signature { text, bytes }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Key").field("label", &self.label).finish_non_exhaustive()
    }
}

/// Key with which a request claims to be signed: the header `X-Twilio-Webhooks-Signature-Settings`, as
/// `key=webhooks_sharedkey_..,algorithm=HMAC_SHA256`. The header is not signed itself, so it may select a key by name and
/// nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureSettings<'a> {
    /// The account's auth token: no header, or one that names no algorithm.
    AuthToken,
    /// A SharedKey.
    Shared {
        /// Its id.
        id: &'a str,
        /// Algorithm that the header names.
        algorithm: Algorithm,
    },
    /// An unknown algorithm, or one that auth tokens do not use, without a key.
    Unsupported,
}

impl<'a> SignatureSettings<'a> {
    /// Parses the header's value.
    pub fn parse(header: Option<&'a [u8]>) -> Self {
        let Ok(header) = std::str::from_utf8(header.unwrap_or_default()) else {
            return Self::Unsupported;
        };
        let value = |expected: &str| {
            header
                .split(',')
                .filter_map(|part| part.split_once('='))
                .find(|(name, value)| name.trim() == expected && !value.trim().is_empty())
                .map(|(_, value)| value.trim())
        };
        let Some(algorithm) = value("algorithm") else { return Self::AuthToken };
        match (Algorithm::named(algorithm), value("key")) {
            (Some(algorithm), Some(id)) => Self::Shared { id, algorithm },
            (Some(Algorithm::HmacSha1), None) => Self::AuthToken,
            (Some(Algorithm::HmacSha256) | None, _) => Self::Unsupported,
        }
    }
}

/// Signed content besides the URL.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    /// Nothing: a GET, whose parameters are in the URL.
    Empty,
    /// The parameters of an `application/x-www-form-urlencoded` body.
    Form(&'a Form<'a>),
    /// Any other body, bound to the URL by its hash.
    Opaque(&'a [u8]),
}

impl<'a> Payload<'a> {
    /// Returns the text that is signed after the origin of the URL.
    pub(crate) fn signed_text(self, target: &str) -> SignedText<'a> {
        let form = match self {
            Payload::Form(form) => Some(form),
            Payload::Empty | Payload::Opaque(_) => None,
        };
        SignedText::new(target, form)
    }
}

/// Rule by which the body of a request takes part in its signature. Only the method, the content type and the presence of a
/// body decide, never the URL, so that a client cannot choose the weaker rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyRule {
    /// The body takes no part, because there is none: a GET, whose parameters are in the URL.
    None,
    /// By its parameters.
    Form,
    /// By its hash in the URL.
    Hash,
}

impl BodyRule {
    /// Returns the rule for a request. Methods are case-sensitive, media types are not. Parameters of the media type
    /// (`charset`) have no effect, and a missing content type is not a form. A GET or HEAD with a body needs the hash too:
    /// otherwise a backend would receive bytes that have no signature.
    pub fn for_request(method: &[u8], content_type: Option<&[u8]>, body: &[u8]) -> Self {
        if matches!(method, b"GET" | b"HEAD") {
            return if body.is_empty() { Self::None } else { Self::Hash };
        }
        // Nearly every webhook.
        if content_type == Some(TWILIO_MEDIA_TYPE) {
            return Self::Form;
        }
        let media_type = content_type
            .and_then(|value| value.split(|byte| *byte == b';').next())
            .map(<[u8]>::trim_ascii);
        match media_type {
            Some(media_type) if media_type.eq_ignore_ascii_case(FORM_MEDIA_TYPE) => Self::Form,
            _ => Self::Hash,
        }
    }

    /// Returns the undecoded parameters of the webhook; they are empty if the body is no form.
    pub fn parameters<'a>(self, url: &'a str, body: &'a [u8]) -> &'a [u8] {
        match self {
            Self::None => query(url).unwrap_or_default().as_bytes(),
            Self::Form => body,
            Self::Hash => b"",
        }
    }

    /// Returns the signed content besides the URL; `form` is [`Self::parameters`], parsed.
    pub fn payload<'a>(self, form: &'a Form<'a>, body: &'a [u8]) -> Payload<'a> {
        match self {
            Self::None => Payload::Empty,
            Self::Form => Payload::Form(form),
            Self::Hash => Payload::Opaque(body),
        }
    }
}

/// Form of the URL that was signed. Twilio's back end is inconsistent about the port, so every official SDK tries both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Candidate {
    /// `https://host/path`
    WithoutPort,
    /// `https://host:443/path`
    WithPort,
}

/// Proof that a key signed the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyMatch {
    /// Index into the keys given.
    pub key: usize,
    /// The form of the URL.
    pub candidate: Candidate,
}

/// Reason for a missing proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// No `X-Twilio-Signature`, or an empty one.
    NoSignature,
    /// No key signed this URL and these parameters.
    WrongSignature,
    /// The body is no form and the URL has no `bodySHA256`: nothing binds the body to the signature.
    NoBodyHash,
    /// The hash in the URL is not that of the body.
    WrongBodyHash,
}

/// Checks `signature`, the header's value, against every key and both forms of `url`.
///
/// Comparison is of the base64 text in constant time: decoding first would accept encodings Twilio never
/// sends. The hash of an opaque body is compared as text too; Twilio sends lower-case hex.
pub fn verify(
    url: &str,
    payload: Payload<'_>,
    signature: Option<&[u8]>,
    keys: &[Key],
) -> Result<KeyMatch, Mismatch> {
    let signature = signature.filter(|text| !text.is_empty()).ok_or(Mismatch::NoSignature)?;
    check_body_hash(url, payload)?;
    let candidates = Candidates::new(url);
    let text = payload.signed_text(candidates.tail);
    candidates.find_key(text.as_str(), signature, keys).ok_or(Mismatch::WrongSignature)
}

/// Finds the key that signed a request to `origin`, as [`verify`] does. `text` is its signed text, which begins with a slash.
pub(crate) fn verify_at(
    origin: &str,
    text: &SignedText<'_>,
    signature: &[u8],
    keys: &[Key],
) -> Option<KeyMatch> {
    Candidates::new(origin).find_key(text.as_str(), signature, keys)
}

/// Returns the signature that Twilio would send for `url`, exactly as written, and `payload`.
pub fn sign(url: &str, payload: Payload<'_>, key: &Key) -> String {
    let signature = key.sign(["", "", payload.signed_text(url).as_str()]);
    String::from_utf8_lossy(signature.as_bytes()).into_owned()
}

/// Returns the URLs that Twilio may have signed when it requested `url`: without port, and with it.
pub fn candidate_urls(url: &str) -> [String; 2] {
    let candidates = Candidates::new(url);
    [Candidate::WithoutPort, Candidate::WithPort]
        .map(|candidate| candidates.origin(candidate).concat() + candidates.tail)
}

/// Returns the value of `bodySHA256` for a body, in lower-case hex.
pub fn hash_body(body: &[u8]) -> String {
    hex(&Sha256::digest(body))
}

/// A URL split around its port, so that both candidates are concatenations of its parts.
struct Candidates<'u> {
    /// Scheme, userinfo and host.
    head: &'u str,
    /// Port with its colon; the default port of the scheme if the URL names none.
    port: &'u str,
    /// Path, query and the rest, unchanged: a bare `?` stays.
    tail: &'u str,
}

impl<'u> Candidates<'u> {
    fn new(url: &'u str) -> Self {
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None => ("", url),
        };
        let authority_bytes = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at_checked(authority_bytes).unwrap_or((rest, ""));
        // A colon belongs to the port only after userinfo (which may contain one) and outside of an IPv6 literal.
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let port_colon = host.rfind(':').filter(|colon| {
            !host.get(*colon..).is_some_and(|after| after.contains(']'))
                && host.get(colon + 1..).is_some_and(is_port)
        });
        let port_bytes = port_colon.map_or(0, |colon| host.len() - colon);
        let head_bytes = url.len() - tail.len() - port_bytes;
        let (head, port) = match url.split_at_checked(head_bytes) {
            Some((head, after)) => (head, after.get(..port_bytes).unwrap_or_default()),
            None => (url, ""),
        };
        let default_port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
        Self { head, port: if port.is_empty() { default_port } else { port }, tail }
    }

    fn origin(&self, candidate: Candidate) -> [&'u str; 2] {
        match candidate {
            Candidate::WithoutPort => [self.head, ""],
            Candidate::WithPort => [self.head, self.port],
        }
    }

    /// Finds the key that signed one of the candidates, followed by `text`.
    fn find_key(&self, text: &str, signature: &[u8], keys: &[Key]) -> Option<KeyMatch> {
        for (index, key) in keys.iter().enumerate() {
            if signature.len() != key.signature_characters() {
                continue;
            }
            for candidate in [Candidate::WithoutPort, Candidate::WithPort] {
                let [head, port] = self.origin(candidate);
                if same(key.sign([head, port, text]).as_bytes(), signature) {
                    return Some(KeyMatch { key: index, candidate });
                }
            }
        }
        None
    }
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Checks that the body is the one for which the URL was signed. The parameters of a form are signed themselves. For any
/// other body, a hash in the URL must be the body's, even when there is no body: it may have been cut off. Without a hash
/// there may be no body: then there is nothing to bind.
pub(crate) fn check_body_hash(url: &str, payload: Payload<'_>) -> Result<(), Mismatch> {
    let body = match payload {
        Payload::Form(form) if !form.is_empty() => return Ok(()),
        Payload::Form(_) | Payload::Empty => b"",
        Payload::Opaque(body) => body,
    };
    match body_hash(url) {
        Some(claimed) if same(claimed.as_bytes(), hash_body(body).as_bytes()) => Ok(()),
        Some(_) => Err(Mismatch::WrongBodyHash),
        None if body.is_empty() => Ok(()),
        None => Err(Mismatch::NoBodyHash),
    }
}

/// Reports whether a URL can prove a body that is no form.
pub fn has_body_hash(url: &str) -> bool {
    body_hash(url).is_some()
}

/// Reports whether a query consists of the hash alone, as Twilio appends it to a URL without a query.
pub(crate) fn is_body_hash_alone(query: &str) -> bool {
    let hash = query.strip_prefix(BODY_HASH).and_then(|rest| rest.strip_prefix('='));
    hash.is_some_and(|hash| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Returns the first `bodySHA256` of the query that has a value.
fn body_hash(url: &str) -> Option<String> {
    query(url)?.split('&').find_map(|pair| {
        let form = Form::parse(pair.as_bytes()).ok()?;
        form.get(BODY_HASH).filter(|value| !value.is_empty()).map(str::to_owned)
    })
}

/// Returns the text between the first `?` and the fragment.
fn query(url: &str) -> Option<&str> {
    let url = url.split_once('#').map_or(url, |(url, _)| url);
    url.split_once('?').map(|(_, query)| query)
}

/// Compares in constant time with respect to the contents; lengths are not secret.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
