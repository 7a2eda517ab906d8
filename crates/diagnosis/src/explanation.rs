//! Explanation of a request that a filter reported: the cause, and the one change that would make the request pass.
//!
//! Decides which findings of the report are one cause, and whether Twilio signed the request at all. A signature that matches
//! is proof; everything else is a stranger's request, or could not be examined. The explanation has no value of a parameter.

use twilio_edge_contract::{BodyContent, PublicOrigin, RefusedRequest};
use twilio_edge_domain::refused_request::Cause;
use twilio_edge_filter::form::{Form, is_account_sid};
use twilio_edge_filter::reply::Reason;
use twilio_edge_filter::signature::BodyRule;

use crate::captured::{Captured, SIGNATURE_HEADER};
use crate::case::{Case, Token};
use crate::change::{Change, What};
use crate::report::{Report, Signed};
use crate::search::SearchLimits;
use crate::url::{Clues, Url};

/// Most keys that are tried for one request.
const MAX_KEYS: usize = 32;
/// Longest URL in a stored report, in characters.
const MAX_URL_CHARS: usize = 512;

/// Length from which a reported target may have been cut by the filter, in bytes.
const CUT_TARGET_BYTES: usize = 4_096;

/// Key that the sidecar has.
#[derive(Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// Account of the key.
    pub account_sid: String,
    /// Printable name, different for each key.
    pub label: String,
    /// Secret value; must not be printed.
    pub secret: String,
    /// Id of a SharedKey; `None` for an auth token.
    pub shared_key_id: Option<String>,
}

/// Result of a diagnosis.
#[derive(Debug)]
pub struct Explanation {
    /// Cause.
    pub cause: Cause,
    /// Account whose key signed, if that is proven.
    pub account_sid: Option<String>,
    /// SID of the message, if the signature is proven.
    pub message_sid: Option<String>,
    /// Value that distinguishes groups of one cause.
    pub subject: String,
    /// Predicate of a sentence about requests of this cause: `were signed for https://old.example.com`.
    pub finding: String,
    /// The one change that would make the request pass.
    pub remedy: String,
    /// Complete report without the values of parameters; `None` if there was no diagnosis.
    pub report: Option<Report>,
    /// Names of the parameters.
    pub parameters: Vec<String>,
}

/// Verdict without the parts that every explanation has.
#[derive(Debug)]
struct Verdict {
    cause: Cause,
    subject: String,
    finding: String,
    remedy: String,
}

impl Verdict {
    fn new(cause: Cause, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { cause, subject: String::new(), finding: finding.into(), remedy: remedy.into() }
    }

    fn about(self, subject: &str) -> Self {
        Self { subject: subject.to_owned(), ..self }
    }

    fn unexamined(finding: &str, remedy: &str) -> Self {
        Self::new(Cause::Unexamined, finding, remedy).about(finding)
    }
}

/// Explains why a filter with these origins refused a request. `keys` are the keys that may have signed.
pub fn explain(
    request: &RefusedRequest,
    origins: &[PublicOrigin],
    keys: &[KnownKey],
) -> Explanation {
    let captured = captured(request, origins);
    let rule = captured.body_rule();
    let form = Form::parse(rule.parameters(&captured.url, &captured.body)).ok();
    let names = form.iter().flat_map(|form| form.iter().map(|(name, _)| name.to_owned()));
    let parameters = names.collect();
    let without_report = |verdict: Verdict| Explanation::of(verdict, None, None, Vec::new());
    if let Some(verdict) = unexaminable(request, origins, keys, rule) {
        return Explanation { parameters, ..without_report(verdict) };
    }
    if captured.header(SIGNATURE_HEADER).unwrap_or_default().is_empty() {
        let verdict = Verdict::new(
            Cause::Stranger,
            "had no X-Twilio-Signature, because Twilio was not the sender or a proxy removed the header",
            "Nothing, unless webhooks are missing; then find the proxy that removes the header.",
        );
        return Explanation { parameters, ..without_report(verdict) };
    }
    let named = form.as_ref().and_then(|form| form.get("AccountSid"));
    let candidates = candidates(&captured, named, keys);
    let message_sid =
        form.as_ref().and_then(|form| form.get("MessageSid")).filter(|sid| is_sid(sid));
    let message_sid = message_sid.map(str::to_owned);
    let tokens =
        candidates.iter().map(|key| Token { label: key.label.clone(), secret: key.secret.clone() });
    let mut clues = Clues::of(&captured.headers);
    if rule == BodyRule::Hash && !captured.body.is_empty() {
        clues.body_hash = Some(twilio_edge_filter::signature::hash_body(&captured.body));
    }
    let case = Case {
        urls: origins.iter().map(|origin| format!("{}{}", origin.0, request.target)).collect(),
        tokens: tokens.collect(),
        account: None,
        class: None,
        routes: None,
        clues,
        notes: Vec::new(),
        show_signatures: false,
        limits: SearchLimits::BACKGROUND,
        request: captured,
    };
    let Ok(mut report) = case.report() else {
        let verdict = Verdict::unexamined(
            "could not be examined: a key of the accounts file cannot be a key",
            "Correct the accounts file of the sidecar.",
        );
        return Explanation { parameters, ..without_report(verdict) };
    };
    let owner = report.signed.as_ref().and_then(|signed| {
        let key = candidates.iter().find(|key| key.label == signed.key)?;
        Some(key.account_sid.clone())
    });
    let verdict = match (&report.signed, &owner) {
        (Some(_), Some(sid)) if report.matches => genuine(request, sid),
        (Some(signed), Some(_)) => changed(signed),
        _ => Verdict::new(
            Cause::Stranger,
            "have a signature of no key that the sidecar has, in none of the variants that were tried",
            "Nothing, unless webhooks are missing; then check the auth tokens of the account (docs/SIGNATURES.md).",
        ),
    };
    remove_values(&mut report);
    let is_proven = owner.is_some();
    let message_sid = message_sid.filter(|_| is_proven);
    Explanation {
        parameters,
        message_sid,
        ..Explanation::of(verdict, owner, Some(report), Vec::new())
    }
}

impl Explanation {
    fn of(
        verdict: Verdict,
        account_sid: Option<String>,
        report: Option<Report>,
        parameters: Vec<String>,
    ) -> Self {
        let Verdict { cause, subject, finding, remedy } = verdict;
        Self { cause, account_sid, message_sid: None, subject, finding, remedy, report, parameters }
    }
}

/// Returns the request as the public sees it, at the first origin.
fn captured(request: &RefusedRequest, origins: &[PublicOrigin]) -> Captured {
    let origin = origins.first().map_or("", |origin| origin.0.as_str());
    let headers = request.headers.iter().map(|line| (line.name.clone(), line.value.clone()));
    Captured {
        method: request.method.clone(),
        url: format!("{origin}{}", request.target),
        headers: headers.collect(),
        body: request.body.clone().into_bytes(),
    }
}

/// Returns the reason why there is nothing to examine.
fn unexaminable(
    request: &RefusedRequest,
    origins: &[PublicOrigin],
    keys: &[KnownKey],
    rule: BodyRule,
) -> Option<Verdict> {
    let is_url = |origin: &PublicOrigin| Url::parse(&origin.0).is_some();
    if origins.is_empty() || !origins.iter().all(is_url) || !request.target.starts_with('/') {
        let finding = "could not be examined: the URL is not valid";
        return Some(Verdict::unexamined(finding, "Check what sends them."));
    }
    if keys.is_empty() {
        return Some(Verdict::unexamined(
            "could not be examined: the sidecar has no keys",
            "Set `accounts.file` of the sidecar (TWILIO_EDGE_ACCOUNTS_FILE).",
        ));
    }
    if request.target.len() >= CUT_TARGET_BYTES {
        let finding = "could not be examined: the URL is too long for a report";
        return Some(Verdict::unexamined(finding, "Check what sends them."));
    }
    let needs_body = rule == BodyRule::Form || request.method == "POST";
    if needs_body && request.body_content != BodyContent::Full {
        return Some(Verdict::unexamined(
            "could not be examined: the filter did not report the body",
            "Set `refused_requests.body` of the filter to `full`, or raise `refused_requests.max_body_bytes`.",
        ));
    }
    None
}

/// Returns the keys that may have signed: those of the account and the SharedKey that the request names, if they are known.
fn candidates<'k>(
    captured: &Captured,
    named: Option<&str>,
    keys: &'k [KnownKey],
) -> Vec<&'k KnownKey> {
    let shared = captured.shared_key_id();
    let of_kind = |key: &&KnownKey| key.shared_key_id.is_some() == shared.is_some();
    let is_named = |key: &&KnownKey| key.shared_key_id.as_deref() == shared;
    let is_of_account = |key: &&KnownKey| Some(key.account_sid.as_str()) == named;
    let mut all: Vec<&KnownKey> = keys.iter().filter(of_kind).collect();
    for narrows in [&is_named as &dyn Fn(&&KnownKey) -> bool, &is_of_account] {
        if all.iter().any(narrows) {
            all.retain(narrows);
        }
    }
    all.truncate(MAX_KEYS);
    all
}

/// Returns the verdict on a request whose signature is right.
fn genuine(request: &RefusedRequest, account_sid: &str) -> Verdict {
    let RefusedRequest { reason, route, .. } = request;
    let known = Reason::ALL.into_iter().find(|known| known.slug() == reason);
    let advice = known.map_or("See docs/FAILURE-MODES.md.", Reason::advice);
    match known {
        Some(Reason::UnknownAccount | Reason::UnnamedAccount) => Verdict::new(
            Cause::Account,
            format!("are of account {account_sid}, which the filter does not accept on {route}"),
            format!(
                "Add {account_sid} to `accounts` of the filter, and to `accounts` of the route if it has the field."
            ),
        ),
        Some(Reason::UnknownKey) => Verdict::new(
            Cause::Key,
            format!("were signed by a SharedKey of account {account_sid} that the filter lacks"),
            "Add the SharedKey to `shared_keys` of the account, with its algorithm.",
        ),
        Some(
            Reason::NoKeys
            | Reason::InvalidSignature
            | Reason::MissingSignature
            | Reason::InvalidBodyHash,
        ) => Verdict::new(
            Cause::FilterKeys,
            format!("were signed by a key of account {account_sid} that the filter lacks"),
            "Set `sidecar.accounts_refresh_ms` of the filter, so that it gets the keys of the sidecar, or add the key to `accounts`.",
        ),
        Some(Reason::MethodNotAllowed | Reason::MethodNotEnabled) => Verdict::new(
            Cause::Method,
            format!("were signed, but {route} does not accept {}", request.method),
            advice,
        ),
        Some(
            Reason::RepeatedField
            | Reason::ContradictoryFields
            | Reason::AmbiguousFields
            | Reason::MalformedName
            | Reason::InvalidUtf8,
        ) => Verdict::new(
            Cause::Recut,
            format!("have a right signature, but the parameters were cut differently ({reason})"),
            "Nothing: a sender moved text between the parameters of a genuine webhook (docs/SIGNATURES.md).",
        ),
        _ => Verdict::new(
            Cause::Route,
            format!("were signed, but {route} does not accept such requests ({reason})"),
            advice,
        ),
    }
}

/// Returns the verdict on a request that differs from the signed one.
fn changed(signed: &Signed) -> Verdict {
    let is_origin = |change: &Change| {
        matches!(change.what, What::Scheme | What::Host | What::Port | What::Userinfo)
    };
    let url = Url::parse(&signed.url);
    if signed.changes.iter().all(is_origin)
        && let Some(origin) = url.as_ref().map(origin)
    {
        return Verdict::new(
            Cause::Origin,
            format!("were signed for {origin}"),
            format!(
                "Add {origin} to `origins` of the filter, or correct the URL in the Twilio console."
            ),
        )
        .about(&origin);
    }
    if signed.changes.iter().any(is_origin)
        && let Some(url) = url
    {
        let place = format!("{}{}", origin(&url), url.path);
        return Verdict::new(
            Cause::Url,
            format!("were signed for another URL, {place}"),
            "Give Twilio the URL as it arrives at the filter, or make the proxies before the edge leave it alone.",
        )
        .about(&place);
    }
    let Some(change) = signed.changes.first() else {
        let finding = "were signed by a key of the sidecar, for the same URL";
        return Verdict::new(
            Cause::FilterKeys,
            finding,
            "Give the filter the keys of the sidecar.",
        );
    };
    let cause = match change.what {
        What::Url | What::Scheme | What::Host | What::Port | What::Userinfo => Cause::Url,
        What::Path => Cause::Path,
        What::Query | What::Fragment => Cause::Query,
        What::Method => Cause::Method,
        What::ContentType => Cause::ContentType,
        What::Parameter | What::Encoding => Cause::Parameters,
        What::Body => Cause::Body,
        What::Signature => Cause::SignatureHeader,
        What::Token => Cause::Key,
    };
    let finding =
        format!("were changed on the way to the filter: {}", change.finding.trim_end_matches('.'));
    Verdict::new(cause, finding, change.fix).about(&change.finding)
}

/// Returns the origin of a URL, without user and password and without the default port.
fn origin(url: &Url) -> String {
    let is_default =
        matches!((url.scheme.as_str(), url.port.as_str()), ("https", ":443") | ("http", ":80"));
    let port = if is_default { "" } else { &url.port };
    format!("{}://{}{port}", url.scheme, url.host)
}

/// Removes the values of queries from a report, and limits its size.
fn remove_values(report: &mut Report) {
    report.candidates.truncate(4);
    let signed = report.signed.iter_mut().map(|signed| &mut signed.url);
    for url in report.candidates.iter_mut().chain(signed) {
        *url = without_values(url).chars().take(MAX_URL_CHARS).collect();
    }
}

/// Returns a URL with the names of its query's parameters alone.
fn without_values(url: &str) -> String {
    let Some((place, query)) = url.split_once('?') else { return url.to_owned() };
    let names = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) => format!("{name}=.."),
        None => pair.to_owned(),
    });
    format!("{place}?{}", names.collect::<Vec<_>>().join("&"))
}

fn is_sid(text: &str) -> bool {
    let (kind, digits) = text.split_at_checked(2).unwrap_or_default();
    kind.bytes().all(|byte| byte.is_ascii_uppercase())
        && digits.len() == 32
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !is_account_sid(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use twilio_edge_contract::HeaderLine;
    use twilio_edge_domain::refused_request::RefusalKind;
    use twilio_edge_filter::signature::{Key, Payload, sign};

    use super::*;

    const ACCOUNT: &str = "AC00112233445566778899aabbccddeeff";
    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    const FORM: &str = "AccountSid=AC00112233445566778899aabbccddeeff&MessageSid=SM00112233445566778899aabbccddeeff&From=%2B14155550123&To=%2B14155238886&Body=zebra";

    fn keys() -> Vec<KnownKey> {
        let token = |sid: &str, secret: &str| KnownKey {
            account_sid: sid.to_owned(),
            label: format!("auth token of {sid}"),
            secret: secret.to_owned(),
            shared_key_id: None,
        };
        vec![token("AC99999999999999999999999999999999", "another"), token(ACCOUNT, TOKEN)]
    }

    fn signed_for(url: &str) -> RefusedRequest {
        let form = Form::parse(FORM.as_bytes()).unwrap();
        let key = Key::auth_token("", TOKEN).unwrap();
        let signature = sign(url, Payload::Form(&form), &key);
        let line = |name: &str, value: String| HeaderLine { name: name.to_owned(), value };
        RefusedRequest {
            reason: "invalid-signature".to_owned(),
            route: "/in".to_owned(),
            is_shadow: false,
            method: "POST".to_owned(),
            target: "/in?tenant=acme".to_owned(),
            headers: vec![
                line("x-twilio-signature", signature),
                line("content-type", "application/x-www-form-urlencoded".to_owned()),
                line(":authority", "old.example.com".to_owned()),
            ],
            body: FORM.to_owned(),
            body_content: BodyContent::Full,
            body_bytes: FORM.len() as u32,
            age_ms: 0,
            skipped: 0,
            request_id: None,
        }
    }

    fn explained(request: &RefusedRequest) -> Explanation {
        let origins = [PublicOrigin("https://hooks.example.com".to_owned())];
        explain(request, &origins, &keys())
    }

    #[test]
    fn request_for_another_origin_names_it_and_the_setting() {
        let found = explained(&signed_for("https://old.example.com/in?tenant=acme"));
        assert_eq!(
            (found.cause, found.subject.as_str()),
            (Cause::Origin, "https://old.example.com")
        );
        assert_eq!(found.finding, "were signed for https://old.example.com");
        assert!(
            found.remedy.contains("Add https://old.example.com to `origins`"),
            "{}",
            found.remedy
        );
        assert_eq!(found.account_sid.as_deref(), Some(ACCOUNT));
        assert_eq!(found.message_sid.as_deref(), Some("SM00112233445566778899aabbccddeeff"));
        assert_eq!(found.cause.kind(), RefusalKind::Misconfiguration);
    }

    #[test]
    fn explanation_contains_no_value_of_a_parameter_and_no_secret() {
        for url in ["https://old.example.com/in?tenant=acme", "https://unknown.example/elsewhere"] {
            let found = explained(&signed_for(url));
            let text = format!("{found:?}{}", serde_json::to_string(&found.report).unwrap());
            for private in ["zebra", "14155550123", "acme", TOKEN, "another"] {
                assert!(!text.contains(private), "{private} in {text}");
            }
            assert!(found.parameters.contains(&"Body".to_owned()));
        }
    }

    #[test]
    fn each_cause_is_distinguished() {
        type Change = fn(&mut RefusedRequest);
        let here = "https://hooks.example.com/in?tenant=acme";
        let cases: [(&str, Change, Cause); 9] = [
            (here, |_| (), Cause::FilterKeys),
            (here, |it| it.reason = "unknown-account".to_owned(), Cause::Account),
            (here, |it| it.reason = "wrong-class".to_owned(), Cause::Route),
            (here, |it| it.reason = "repeated-field".to_owned(), Cause::Recut),
            (here, |it| it.target = "/gateway/in?tenant=acme".to_owned(), Cause::Path),
            (here, |it| it.target = "/in?tenant=acme&utm=1".to_owned(), Cause::Query),
            (here, |it| it.body.push_str("&Admin=1"), Cause::Parameters),
            (here, |it| it.body = it.body.replace("zebra", "horse"), Cause::Stranger),
            ("https://unknown.example/elsewhere", |_| (), Cause::Stranger),
        ];
        for (url, change, cause) in cases {
            let mut request = signed_for(url);
            change(&mut request);
            let found = explained(&request);
            assert_eq!(found.cause, cause, "{found:?}");
            assert_eq!(found.account_sid.is_some(), cause != Cause::Stranger, "{found:?}");
        }
    }

    #[test]
    fn request_that_cannot_be_examined_says_what_is_missing() {
        let origins = [PublicOrigin("https://hooks.example.com".to_owned())];
        let request = signed_for("https://old.example.com/in?tenant=acme");
        let without_body = RefusedRequest { body_content: BodyContent::Names, ..request.clone() };
        for (request, origins, keys, missing) in [
            (&request, &origins[..], &[][..], "accounts.file"),
            (&without_body, &origins[..], &keys()[..], "refused_requests.body"),
            (&request, &[][..], &keys()[..], "Check what sends them"),
        ] {
            let found = explain(request, origins, keys);
            assert_eq!(found.cause, Cause::Unexamined, "{found:?}");
            assert!(found.remedy.contains(missing), "{found:?}");
        }
    }

    #[test]
    fn request_without_a_signature_is_a_strangers() {
        let mut request = signed_for("https://hooks.example.com/in?tenant=acme");
        request.headers.remove(0);
        let found = explained(&request);
        assert_eq!((found.cause, found.message_sid), (Cause::Stranger, None));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn any_report_is_explained_within_its_limits(
            target in "/\\PC{0,40}",
            body in "\\PC{0,200}",
            signature in "[A-Za-z0-9+/=]{0,44}",
            host in "\\PC{0,40}",
            reason in "[a-z-]{0,20}",
        ) {
            let line = |name: &str, value: String| HeaderLine { name: name.to_owned(), value };
            let request = RefusedRequest {
                reason,
                target,
                body,
                headers: vec![line("x-twilio-signature", signature), line("x-forwarded-host", host)],
                ..signed_for("https://hooks.example.com/in")
            };
            let found = explained(&request);
            prop_assert!(found.report.is_none_or(|report| report.tried <= SearchLimits::BACKGROUND.signatures));
        }
    }
}
