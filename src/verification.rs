//! Verification of a complete request: whether it is a webhook of Twilio's, and which facts about it are proven.
//!
//! Decides in this order: route, signature, shape; and fails closed. The result is a [`Proof`] with the facts that a
//! backend may receive, or a [`Refusal`].
//!
//! Must not know: states, callouts, the host.

use twilio_edge_contract::{Class, Envelope, MESSAGE_PARAMETER, is_message_id};

use crate::config::{Config, Route};
use crate::form::{
    Field, Form, ShapeError, SignedParameters, SignedText, TooManyParameters, Webhook,
    is_account_sid,
};
use crate::keys::{Account, KeySlot, slot};
use crate::reply::{Answer, Reason};
use crate::signature::{self, BodyRule, Key, Mismatch, Payload, SignatureSettings};

/// Most signatures that are computed for a request that names no account.
const MAX_UNNAMED_SIGNATURES: usize = 256;
/// Most bytes that are hashed for them. Any client that can reach the route can cause this work.
const MAX_UNNAMED_BYTES: usize = 4 << 20;

/// Request headers that the filter uses. They are read once, because they cannot be read in every phase.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// `:method`
    pub method: Vec<u8>,
    /// `:path`, query included, as received.
    pub target: Vec<u8>,
    /// `content-type`
    pub content_type: Option<Vec<u8>>,
    /// `content-length`, if it is a number.
    pub content_length: Option<u64>,
    /// `x-twilio-signature`
    pub signature: Option<Vec<u8>>,
    /// `x-twilio-webhooks-signature-settings`
    pub signature_settings: Option<Vec<u8>>,
    /// `x-request-id`, to find the request in other logs.
    pub request_id: Option<Vec<u8>>,
    /// `traceparent`, to continue the trace of the request.
    pub traceparent: Option<Vec<u8>>,
    /// `i-twilio-idempotency-token`, stored with the signed parameters.
    pub idempotency_token: Option<Vec<u8>>,
    /// Names of headers a client may not send.
    pub forged: Vec<String>,
    /// Names and values of headers that would override the method, the path or the framing; removed on guarded routes.
    pub overrides: Vec<(String, Vec<u8>)>,
    /// `content-encoding`, its lines joined by commas.
    pub content_encoding: Option<Vec<u8>>,
    /// One of these headers came more than once.
    pub ambiguous: bool,
}

/// Facts about a request that are proven.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) webhook: Webhook,
    pub(crate) account_sid: String,
    /// Label of the key that signed.
    pub(crate) key: String,
    /// The slot of that key among the account's keys.
    pub(crate) slot: KeySlot,
    /// Scheme and host of the URL that was signed, as configured.
    pub(crate) origin: String,
}

impl Head {
    /// Adds a line of `content-encoding`.
    pub fn add_content_encoding(&mut self, line: &[u8]) {
        let lines = self.content_encoding.get_or_insert_default();
        if !lines.is_empty() {
            lines.push(b',');
        }
        lines.extend_from_slice(line);
    }

    /// Returns the id of the sidecar's own message that a proven status is about. An incomplete id names no message: the
    /// value was cut differently within the signed text.
    pub(crate) fn message_id(&self) -> Option<String> {
        let target = std::str::from_utf8(&self.target).ok()?;
        let (_, query) = target.split_once('?')?;
        let mut ids = query.split('&').filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            (name == MESSAGE_PARAMETER).then_some(value)
        });
        let id = ids.next().filter(|id| is_message_id(id))?;
        ids.next().is_none().then(|| id.to_owned())
    }

    /// Returns the envelope of the signed parameters, without the parts that may not be stored.
    pub(crate) fn envelope(&self, proof: &Proof) -> Envelope {
        Envelope {
            method: Some(loggable(&self.method)),
            url: self.path().map(|path| without_userinfo(&proof.origin) + path),
            content_type: self.content_type.as_deref().map(loggable),
            idempotency_token: self.idempotency_token.as_deref().map(loggable),
        }
    }

    /// Returns the path without query, if it is text.
    fn path(&self) -> Option<&str> {
        let path = self.target.split(|byte| *byte == b'?').next().unwrap_or_default();
        std::str::from_utf8(path).ok()
    }

    /// Returns the route of this request, if the filter guards one for its path.
    pub(crate) fn route<'c>(&self, config: &'c Config) -> Option<&'c Route> {
        config.route(self.path()?)
    }
}

/// Request that is Twilio's and has the shape that its route expects.
pub(crate) struct VerifiedRequest<'a> {
    pub(crate) route: &'a Route,
    pub(crate) proof: Proof,
    /// The signed parameters, undecoded.
    pub(crate) form: &'a str,
    /// True if the parameters are the body. Otherwise they are in the URL, or there are none.
    pub(crate) form_is_body: bool,
}

/// Reason of a refusal, and the field concerned: only its name, because the sender controls the value.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    field: Option<&'static str>,
    account_sid: Option<String>,
    /// Methods of the route, if it does not accept the method of the request.
    methods: Option<&'static str>,
}

impl Refusal {
    pub(crate) fn new(reason: Reason) -> Self {
        Self { reason, field: None, account_sid: None, methods: None }
    }

    /// Refuses a method that the route does not accept; `methods` are the accepted ones.
    pub(crate) fn with_methods(reason: Reason, methods: &'static str) -> Self {
        Self { methods: Some(methods), ..Self::new(reason) }
    }

    /// Refuses because of one field; `field` is the name of a header or parameter.
    pub(crate) fn with_field(reason: Reason, field: &'static str) -> Self {
        Self { field: Some(field), ..Self::new(reason) }
    }

    /// Adds the account to the log line; `sid` must be one of the configured accounts.
    pub(crate) fn with_account(self, sid: &str) -> Self {
        Self { account_sid: Some(sid.to_owned()), ..self }
    }

    /// Returns the answer for the client.
    pub(crate) fn answer(&self) -> Answer {
        let mut answer = Answer::refusal(self.reason, self.field);
        if let Some(methods) = self.methods {
            answer.headers.push(("allow", methods.to_owned()));
        }
        answer
    }

    /// Returns the log line for the operator.
    pub(crate) fn log_line(&self, route: &str, request_id: Option<&[u8]>) -> String {
        let mut line = format!("webhook rejected: reason={} route={route}", self.reason.slug());
        for (name, value) in [("field", self.field), ("account.sid", self.account_sid.as_deref())] {
            if let Some(value) = value {
                line.push_str(&format!(" {name}={value}"));
            }
        }
        if let Some(id) = request_id.map(loggable) {
            line.push_str(&format!(" request_id={id}"));
        }
        line.push_str(&format!(": {}", self.reason.advice()));
        line
    }
}

/// Returns an origin without user and password, which are secrets.
pub(crate) fn without_userinfo(origin: &str) -> String {
    match origin.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            format!("{scheme}://{host}")
        }
        None => origin.to_owned(),
    }
}

/// Returns the part of a client's value that may be logged and passed on: no line break, and a bounded length.
pub(crate) fn loggable(value: &[u8]) -> String {
    let graphic = value.iter().filter(|byte| byte.is_ascii_graphic());
    graphic.take(64).map(|byte| char::from(*byte)).collect()
}

/// Verifies a complete request: route, signature, shape. Fails closed.
pub(crate) fn verify<'a>(
    config: &'a Config,
    head: &'a Head,
    body: &'a [u8],
) -> Result<VerifiedRequest<'a>, Refusal> {
    let ambiguous = || Refusal::new(Reason::AmbiguousRequest);
    let target = std::str::from_utf8(&head.target).map_err(|_| ambiguous())?;
    let route = head.route(config).ok_or_else(ambiguous)?;
    if config.accounts.is_empty() {
        return Err(Refusal::new(Reason::NoKeys));
    }
    if head.method == b"GET" && !body.is_empty() {
        return Err(Refusal::new(Reason::UnexpectedBody));
    }
    let rule = BodyRule::for_request(&head.method, head.content_type.as_deref(), body);
    let raw = rule.parameters(target, body);
    let form =
        Form::parse(raw).map_err(|TooManyParameters| Refusal::new(Reason::TooManyParameters))?;
    let payload = rule.payload(&form, body);
    if head.signature.as_deref().unwrap_or_default().is_empty() {
        return Err(Refusal::new(Reason::MissingSignature));
    }
    let is_empty = if rule == BodyRule::Form { form.is_empty() } else { body.is_empty() };
    if !route.bodies.accept(rule, is_empty) {
        return Err(Refusal::new(Reason::BodyNotEnabled));
    }
    // Before the account lookup: a body without a hash does not name an account.
    if rule == BodyRule::Hash && !is_empty && !signature::has_body_hash(target) {
        return Err(Refusal::new(Reason::MissingBodyHash));
    }
    let text = payload.signed_text(target);
    let (account, key, slot, origin) = prove(config, route, target, payload, &form, &text, head)?;
    let refuse = |error: ShapeError| Refusal::from(error).with_account(&account.sid);
    check_target(config, route, target, rule).map_err(refuse)?;
    let signed = SignedParameters {
        form: &form,
        raw,
        target,
        in_query: rule != BodyRule::Form,
        accepts_get: route.methods.get,
        known: &config.parameters,
        text: Some(&text),
    };
    let webhook = Webhook::read(route.class, &signed).map_err(refuse)?;
    let form = form.text().ok_or_else(|| refuse(ShapeError::NotUtf8))?;
    let origin = origin.to_owned();
    let proof =
        Proof { webhook, account_sid: account.sid.clone(), key: key.to_owned(), slot, origin };
    Ok(VerifiedRequest { route, proof, form, form_is_body: rule == BodyRule::Form })
}

/// Refuses a target that may contain the text of a form.
fn check_target(
    config: &Config,
    route: &Route,
    target: &str,
    rule: BodyRule,
) -> Result<(), ShapeError> {
    // The author of a form of class other chose the names of its parameters. Its text directly after the path of its route
    // is a path below the prefix.
    let extends = |other: &&Route| {
        let rest = target.strip_prefix(other.path.as_str());
        let is_name = rest.and_then(|rest| rest.bytes().next());
        !other.is_prefix
            && other.class == Class::Other
            && is_name.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
    };
    if route.is_prefix && config.routes.iter().any(|other| extends(&other)) {
        return Err(ShapeError::Ambiguous("path"));
    }
    // Where forms are accepted too, the query must consist of the hash alone: text before it could be text of a form, and a
    // hash that the writer of the form chose would prove any body.
    if rule == BodyRule::Hash && route.bodies.form && signature::has_body_hash(target) {
        let (_, query) = target.split_once('?').unwrap_or_default();
        if !signature::is_body_hash_alone(query) {
            return Err(ShapeError::Ambiguous("bodySHA256"));
        }
    }
    Ok(())
}

/// Finds the account and the key that signed. Account and key named in the request only select the keys to try.
fn prove<'c>(
    config: &'c Config,
    route: &Route,
    target: &str,
    payload: Payload<'_>,
    form: &Form<'_>,
    text: &SignedText<'_>,
    head: &Head,
) -> Result<(&'c Account, &'c str, KeySlot, &'c str), Refusal> {
    // The author of a form of class other may name any parameter AccountSid.
    let named = form
        .field(Field::AccountSid)
        .filter(|sid| route.class != Class::Other || is_account_sid(sid));
    let is_accepted = |account: &&Account| {
        route.accounts.as_ref().is_none_or(|accounts| accounts.contains(&account.sid))
    };
    let accounts = match named {
        Some(sid) => config.account(sid).map_or(&[][..], std::slice::from_ref),
        None => &config.accounts,
    };
    let accounts = || accounts.iter().filter(is_accepted);
    if accounts().next().is_none() {
        return Err(Refusal::new(Reason::UnknownAccount));
    }
    let refusal = |reason| match named {
        Some(sid) => Refusal::new(reason).with_account(sid),
        None => Refusal::new(reason),
    };
    let settings = SignatureSettings::parse(head.signature_settings.as_deref());
    let keys = || accounts().map(|account| (account, account.keys_for(settings)));
    let count: usize = keys().map(|(_, keys)| keys.len()).sum();
    if count == 0 && settings != SignatureSettings::AuthToken {
        return Err(refusal(Reason::UnknownKey));
    }
    if named.is_none() {
        let signatures = count * 2 * config.origins.len();
        if signatures > MAX_UNNAMED_SIGNATURES
            || (count > 1 && signatures.saturating_mul(text.as_str().len()) > MAX_UNNAMED_BYTES)
        {
            return Err(Refusal::new(Reason::UnnamedAccount));
        }
    }
    if count > 0 {
        signature::check_body_hash(target, payload).map_err(|mismatch| refusal(mismatch.into()))?;
    }
    let signature = head.signature.as_deref().unwrap_or_default();
    for origin in &config.origins {
        for (account, keys) in keys() {
            if let Some(found) = signature::verify_at(origin, text, signature, keys) {
                let key = keys.get(found.key).map(Key::label).unwrap_or_default();
                return Ok((account, key, slot(settings, found.key), origin));
            }
        }
    }
    Err(refusal(Reason::InvalidSignature))
}

impl From<Mismatch> for Reason {
    fn from(mismatch: Mismatch) -> Self {
        match mismatch {
            Mismatch::NoSignature => Reason::MissingSignature,
            Mismatch::WrongSignature => Reason::InvalidSignature,
            Mismatch::NoBodyHash => Reason::MissingBodyHash,
            Mismatch::WrongBodyHash => Reason::InvalidBodyHash,
        }
    }
}

impl From<ShapeError> for Refusal {
    fn from(error: ShapeError) -> Self {
        let (reason, field) = error.reason();
        Self { field, ..Self::new(reason) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_id_is_read_only_if_it_is_complete_and_unique() {
        let id = "ms_00112233445566778899aabbccddeeff";
        let of =
            |target: String| Head { target: target.into_bytes(), ..Head::default() }.message_id();
        assert_eq!(of(format!("/status?a=b&twilio_edge_message={id}&c")).as_deref(), Some(id));
        let foreign = [
            format!("/status/twilio_edge_message={id}"),
            format!("/status?twilio_edge_messages={id}"),
            format!("/status?twilio_edge_message={id}AccountSidAC"),
            format!("/status?twilio_edge_message={}", id.to_uppercase()),
            format!("/status?twilio_edge_message={id}&twilio_edge_message={id}"),
            "/status?twilio_edge_message=".to_owned(),
        ];
        for target in foreign {
            assert_eq!(of(target.clone()), None, "{target}");
        }
    }
}
