//! Verification in the service, without its store: whether a check request is a webhook of Twilio's, and which one. It
//! parses and verifies with the filter's own functions, so that architectures are compared and not implementations of an
//! HMAC. Pure: no sockets, no Redis.

use anyhow::{Context, Result};
use hyper::http::{HeaderMap, Method, header};
use twilio_edge_contract::{Class, headers};
use twilio_edge_filter::form::{Form, SignedParameters, Webhook};
use twilio_edge_filter::signature::{BodyRule, Key, verify};

/// The routes of the shipped configuration.
const ROUTES: [(&str, Class); 3] = [
    ("/twilio/inbound", Class::Inbound),
    ("/twilio/status", Class::Status),
    ("/twilio/other", Class::Other),
];

/// One account behind one public origin.
pub(crate) struct Gate {
    origin: String,
    account_sid: String,
    keys: [Key; 1],
}

impl Gate {
    /// Creates a gate; `origin` is that of Twilio's calls, without path.
    pub(crate) fn new(origin: String, account_sid: String, auth_token: &str) -> Result<Self> {
        let key = Key::auth_token("current", auth_token).context("the auth token is no key")?;
        Ok(Self { origin, account_sid, keys: [key] })
    }

    /// Returns the webhook of a request for `target`, if it is a webhook and Twilio's.
    pub(crate) fn prove(
        &self,
        method: &Method,
        target: &str,
        head: &HeaderMap,
        body: &[u8],
    ) -> Option<Webhook> {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let (_, class) = ROUTES.iter().find(|(route, _)| *route == path)?;
        let value = |name| head.get(name).map(header::HeaderValue::as_bytes);
        let rule = BodyRule::for_request(
            method.as_str().as_bytes(),
            value(header::CONTENT_TYPE.as_str()),
            body,
        );
        let raw = rule.parameters(target, body);
        let form = Form::parse(raw).ok()?;
        if form.get("AccountSid") != Some(&self.account_sid) {
            return None;
        }
        let url = [self.origin.as_str(), target].concat();
        let payload = rule.payload(&form, body);
        verify(&url, payload, value("x-twilio-signature"), &self.keys).ok()?;
        let signed = SignedParameters {
            in_query: rule != BodyRule::Form,
            ..SignedParameters::posted(&form, raw, target)
        };
        Webhook::read(*class, &signed).ok()
    }

    /// Returns the headers that the backend may trust.
    pub(crate) fn trusted<'a>(
        &'a self,
        webhook: &'a Webhook,
        suppressed: bool,
    ) -> impl Iterator<Item = (&'static str, &'a str)> {
        let identity = webhook.identity.as_ref();
        let inbound = webhook.class == Class::Inbound;
        let known = [
            (headers::VERIFIED, Some(self.account_sid.as_str())),
            (headers::KEY, Some("current")),
            (headers::CLASS, Some(webhook.class.as_str())),
            (headers::MESSAGE_SID, identity.map(|identity| identity.message_sid.as_str())),
            (headers::STATUS, identity.and_then(|identity| identity.status.as_deref())),
            (headers::FROM, webhook.from.as_deref()),
            (headers::TO, webhook.to.as_deref()),
            (headers::CHANNEL, webhook.channel.as_deref()),
            (headers::SUPPRESSED, inbound.then_some(if suppressed { "true" } else { "false" })),
            (headers::DEDUPE, Some("first")),
        ];
        known.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

#[cfg(test)]
mod tests {
    use hyper::http::HeaderValue;
    use twilio_edge_filter::signature::{Payload, sign};

    use super::*;

    const ORIGIN: &str = "https://hooks.example.com";
    const ACCOUNT: &str = "AC00112233445566778899aabbccddeeff";
    const BODY: &str = "MessageSid=SM00112233445566778899aabbccddeeff&AccountSid=AC00112233445566778899aabbccddeeff&From=whatsapp%3A%2B14155550123&To=whatsapp%3A%2B15005550006&Body=hello";

    fn proven(target: &str, token: &str, body: &str) -> Option<Webhook> {
        let gate = Gate::new(ORIGIN.to_owned(), ACCOUNT.to_owned(), "hush").unwrap();
        let key = Key::auth_token("test", token).unwrap();
        let form = Form::parse(BODY.as_bytes()).unwrap();
        let signature = sign(&format!("{ORIGIN}{target}"), Payload::Form(&form), &key);
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        let head = HeaderMap::from_iter([
            (header::CONTENT_TYPE, form),
            ("x-twilio-signature".parse().unwrap(), signature.parse().unwrap()),
        ]);
        gate.prove(&Method::POST, target, &head, body.as_bytes())
    }

    #[test]
    fn gate_proves_only_signed_requests_on_known_routes() {
        let webhook = proven("/twilio/inbound", "hush", BODY).unwrap();
        assert_eq!(webhook.from.as_deref(), Some("+14155550123"));
        assert!(proven("/twilio/inbound?a=b", "hush", BODY).is_some());
        assert!(proven("/twilio/inbound", "another", BODY).is_none());
        assert!(proven("/twilio/inbound", "hush", &BODY.replace("hello", "hullo")).is_none());
        assert!(proven("/twilio/status", "hush", BODY).is_none(), "a message on the wrong route");
        assert!(proven("/elsewhere", "hush", BODY).is_none());
    }
}
