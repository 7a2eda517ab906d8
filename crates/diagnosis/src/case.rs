//! Diagnosis of a request with the given tokens.
//!
//! Decides: what a badly copied token or signature may have been, what a body's hash proves, what is worth a note. Pure: it
//! depends on its arguments alone.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use twilio_edge_contract::Class;
use twilio_edge_filter::form::{Form, SignedParameters, Webhook};
use twilio_edge_filter::reply::Reason;
use twilio_edge_filter::signature::{BodyRule, Candidate, Key, candidate_urls, hash_body, sign};

use crate::body_changes;
use crate::captured::{Captured, Rejection, SIGNATURE_HEADER};
use crate::change::{Change, What};
use crate::report::{Computed, Report, SCHEMA, Shape, Signed};
use crate::route::{RouteVerdict, Routes, Sent};
use crate::search::{Claim, Fit, Found, Outcome, Search, SearchLimits, Suspect};
use crate::url::{Clues, Url};

/// Auth token, or secret of a SharedKey, and its name.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Printable label.
    pub label: String,
    /// Secret value; must not be printed.
    pub secret: String,
}

/// Request with all known facts about it.
pub struct Case {
    /// Request as it arrived.
    pub request: Captured,
    /// Public URLs that the filter accepts, one per origin.
    pub urls: Vec<String>,
    /// Tokens that may have signed.
    pub tokens: Vec<Token>,
    /// Account of the tokens.
    pub account: Option<String>,
    /// Class of the route; derived from the parameters if it is unknown.
    pub class: Option<Class>,
    /// Routes of the filter, if its configuration is given.
    pub routes: Option<Routes>,
    /// Evidence about the signed URL.
    pub clues: Clues,
    /// Notes about the capture.
    pub notes: Vec<String>,
    /// True if the report contains the signatures that would match.
    pub show_signatures: bool,
    /// Limits of the search.
    pub limits: SearchLimits,
}

impl Case {
    /// Verifies the request, and searches for the signed one if the verdict is negative.
    ///
    /// # Errors
    ///
    /// A token that cannot be a key, by its label.
    pub fn report(mut self) -> Result<Report, String> {
        let suspects = suspects(&self.request, &self.tokens)?;
        let given: Vec<Key> = suspects
            .iter()
            .filter(|suspect| suspect.change.is_none())
            .map(|suspect| suspect.key.clone())
            .collect();
        let verdict = self.judge(&given);
        let (reason, signed, outcome) = match verdict {
            Ok(signed) => (None, Some(signed), None),
            Err(rejection) => {
                let outcome = self.search(&suspects);
                let signed = outcome.found.as_ref().map(|found| self.signed(found, rejection));
                (Some(rejection.reason().slug()), signed, Some(outcome))
            }
        };
        self.take_notes(reason.is_none(), signed.as_ref());
        let rule = self.request.body_rule();
        let raw = rule.parameters(self.urls.first().map_or("", String::as_str), &self.request.body);
        let form = Form::parse(raw);
        let (shape, route) = self.shape_and_route();
        Ok(Report {
            schema: SCHEMA,
            matches: reason.is_none(),
            reason,
            method: self.request.method.clone(),
            candidates: self
                .urls
                .iter()
                .flat_map(|url| candidate_urls(url))
                .map(|url| redacted(&url))
                .collect(),
            body_rule: match rule {
                BodyRule::None => "none",
                BodyRule::Form => "form",
                BodyRule::Hash => "hash",
            },
            body_bytes: self.request.body.len(),
            parameters: if rule == BodyRule::Form { form.as_ref().map_or(0, Form::len) } else { 0 },
            keys: self.tokens.iter().map(|token| token.label.clone()).collect(),
            signed,
            tried: outcome.as_ref().map_or(0, |outcome| outcome.tried),
            complete: outcome.as_ref().is_none_or(|outcome| outcome.complete),
            shape,
            route,
            signatures: if self.show_signatures { self.signatures(&given) } else { Vec::new() },
            notes: self.notes,
        })
    }

    /// Returns the verdicts on the parameters and of the route, which do not depend on the signature.
    pub(crate) fn shape_and_route(&self) -> (Shape, RouteVerdict) {
        let rule = self.request.body_rule();
        let target = self.urls.first().map_or("", String::as_str);
        let raw = rule.parameters(target, &self.request.body);
        let form = Form::parse(raw);
        let shape = form.as_ref().map_or_else(
            |_| too_many(self.class),
            |form| shape(self.class, form, raw, target, rule),
        );
        let route = self.route(&shape, rule);
        (shape, route)
    }

    /// Returns the verdict of the request's route on its method and body.
    fn route(&self, shape: &Shape, rule: BodyRule) -> RouteVerdict {
        let url = self.urls.first().and_then(|url| Url::parse(url));
        let path = url.map(|url| url.path).unwrap_or_default();
        let known = [Class::Inbound, Class::Status, Class::Other];
        let class = known.into_iter().find(|class| class.as_str() == shape.class);
        let sent = Sent {
            method: &self.request.method,
            path: &path,
            class: class.unwrap_or(Class::Other),
            rule,
            is_empty: self.request.body.is_empty(),
        };
        RouteVerdict::of(self.routes.as_ref(), sent)
    }

    /// Returns the filter's verdict, origin by origin.
    fn judge(&self, keys: &[Key]) -> Result<Signed, Rejection> {
        let mut why = Rejection::TooManyParameters;
        for url in &self.urls {
            let request = Captured { url: url.clone(), ..self.request.clone() };
            match request.judge(keys) {
                Ok(found) => {
                    let key =
                        keys.get(found.key).map(|key| key.label().to_owned()).unwrap_or_default();
                    let [without, with] = candidate_urls(url);
                    let url = match found.candidate {
                        Candidate::WithoutPort => without,
                        Candidate::WithPort => with,
                    };
                    return Ok(Signed { key, url: redacted(&url), changes: Vec::new() });
                }
                Err(rejection) => why = rejection,
            }
        }
        Err(why)
    }

    fn search(&self, suspects: &[Suspect]) -> Outcome {
        let claims = claims(self.request.header(SIGNATURE_HEADER).unwrap_or_default());
        if claims.is_empty() {
            return Outcome { found: None, tried: 0, complete: true };
        }
        Search::new(suspects, &claims, self.limits).run(&self.request, &self.urls, &self.clues)
    }

    /// Combines the found request with the result of the hash in the URL, since the search checks the signature only.
    fn signed(&self, found: &Found, rejection: Rejection) -> Signed {
        let mut changes = found.changes.clone();
        let about_hash =
            matches!(rejection.reason(), Reason::MissingBodyHash | Reason::InvalidBodyHash);
        if about_hash
            && !changes.iter().any(|change| matches!(change.what, What::ContentType | What::Method))
        {
            changes.extend(body_change(&self.request.body, &found.url));
        }
        Signed { key: found.key.clone(), url: redacted(&found.url), changes }
    }

    fn take_notes(&mut self, matches: bool, signed: Option<&Signed>) {
        if !matches!(&*self.request.method, "GET" | "POST") {
            self.notes.push(format!(
                "The filter answers 405 to {}: Twilio uses GET and POST.",
                self.request.method
            ));
        }
        let signature = self.request.header(SIGNATURE_HEADER).unwrap_or_default();
        if signature.is_empty() {
            self.notes.push(
                "Without X-Twilio-Signature it is not Twilio's, or a proxy before the edge dropped the header.".to_owned(),
            );
        } else if self.request.names_shared_key() {
            self.notes.push(
                "The request names a SharedKey: what was given was tried as its secret. The filter needs it among the account's shared_keys, under that id."
                    .to_owned(),
            );
        } else if signature.len() == 44 {
            self.notes.push(
                "The signature is as long as an HMAC-SHA256, which a Webhook Rule with a SharedKey makes, but X-Twilio-Webhooks-Signature-Settings is missing: a proxy dropped it."
                    .to_owned(),
            );
        }
        if matches {
            return;
        }
        let rule = self.request.body_rule();
        let raw = rule.parameters(self.urls.first().map_or("", String::as_str), &self.request.body);
        let named =
            Form::parse(raw).ok().and_then(|form| form.get("AccountSid").map(str::to_owned));
        // The sender controls the value.
        let named = named.map(|named| named.chars().take(64).collect::<String>());
        match (named, &self.account) {
            (Some(named), Some(ours)) if named != *ours => self.notes.push(format!(
                "The request is of account {named}, the tokens are of {ours}: each account and subaccount signs with its own."
            )),
            (Some(named), None) if signed.is_none() => {
                self.notes.push(format!("The request is of account {named}: are these its tokens?"));
            }
            _ => {}
        }
        for Token { label, secret } in &self.tokens {
            let secret = secret.trim();
            if secret.len() != 32 || !secret.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                self.notes.push(format!(
                    "{label} does not look like an auth token, which has 32 hexadecimal digits."
                ));
            }
        }
    }

    fn signatures(&self, keys: &[Key]) -> Vec<Computed> {
        let rule = self.request.body_rule();
        let mut all = Vec::new();
        for url in self.urls.iter().flat_map(|url| candidate_urls(url)) {
            let Ok(form) = Form::parse(rule.parameters(&url, &self.request.body)) else { continue };
            for key in keys {
                let signature = sign(&url, rule.payload(&form, &self.request.body), key);
                all.push(Computed { key: key.label().to_owned(), url: redacted(&url), signature });
            }
        }
        all
    }
}

/// Returns the given tokens, and what they may have been before they were copied badly.
fn suspects(request: &Captured, tokens: &[Token]) -> Result<Vec<Suspect>, String> {
    const FIX: &str = "Give the filter the token exactly as the Twilio console shows it.";
    let mut all: Vec<Suspect> = Vec::new();
    for Token { label, secret } in tokens {
        let stripped = secret.trim().trim_matches(['"', '\'']);
        let lower = stripped.to_ascii_lowercase();
        let mut texts = vec![(secret.as_str(), None)];
        if stripped != secret {
            texts.push((stripped, Some(format!("{label} has white space or quotes around it."))));
        }
        if lower != stripped {
            texts.push((&lower, Some(format!("{label} is in upper case."))));
        }
        for (text, finding) in texts {
            let key = request.key(label, text).ok_or_else(|| format!("{label} cannot be a key"))?;
            let change = finding.map(|finding| Change::new(What::Token, finding, FIX));
            all.push(Suspect { label: label.clone(), key, change });
        }
    }
    Ok(all)
}

/// Returns the header's value, and what it may have been; empty if the header is missing.
fn claims(value: &str) -> Vec<Claim> {
    const FIX: &str =
        "Find the proxy that changes X-Twilio-Signature; Twilio sends 28 characters of base64.";
    if value.is_empty() {
        return Vec::new();
    }
    let from_hex = || {
        let digits = value.as_bytes().chunks(2).map(|pair| {
            std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())
        });
        (value.len() == 40)
            .then(|| digits.collect::<Option<Vec<u8>>>())
            .flatten()
            .map(|bytes| STANDARD.encode(bytes))
    };
    let first = value.split(',').next().unwrap_or_default();
    let last = value.rsplit(',').next().unwrap_or_default();
    let repaired = [
        (
            Some(value.trim().trim_matches('"').to_owned()),
            "The signature came with quotes or white space around it.",
        ),
        (Some(first.trim().to_owned()), "The signature came more than once; the first is right."),
        (Some(last.trim().to_owned()), "The signature came more than once; the last is right."),
        (Some(value.replace('-', "+").replace('_', "/")), "The signature was made url-safe."),
        (Some(value.replace(' ', "+")), "A + in the signature became a space."),
        (
            Some(value.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=")),
            "The signature was percent-encoded.",
        ),
        (Some(format!("{}=", value.trim_end_matches('='))), "The signature lost its =."),
        (from_hex(), "The signature was made hexadecimal."),
    ];
    let mut all = vec![Claim { text: value.to_owned(), fit: Fit::Exact, change: None }];
    let mut push = |text: String, fit, finding| {
        if fit != Fit::Exact || text != value {
            let change = Some(Change::new(What::Signature, finding, FIX));
            all.push(Claim { text, fit, change });
        }
    };
    for (text, finding) in repaired {
        if let Some(text) = text {
            push(text, Fit::Exact, finding);
        }
    }
    push(value.to_owned(), Fit::AnyCase, "The letters of the signature lost their case.");
    // The last digit before the `=` holds bits that a lenient decoder ignores.
    let sure: String = value.chars().take(26).collect();
    let finding = if value.len() < 28 {
        "The end of the signature was cut off."
    } else {
        "The end of the signature is not what Twilio sent."
    };
    push(sure, Fit::Beginning, finding);
    all
}

/// Returns the change of a body that is no form, given the URL that was signed.
fn body_change(body: &[u8], url: &str) -> Option<Change> {
    const FIX: &str = "Find what reads and writes the body before the edge, or changes its content type, and make it pass the bytes.";
    let query = Url::parse(url)?.query.unwrap_or_default();
    let form = Form::parse(query.as_bytes()).ok()?;
    let finding = match form.get("bodySHA256") {
        None => "Twilio signed no body: there is no bodySHA256 in the URL, so a body was added or its content type changed.".to_owned(),
        Some(hash) if hash == hash_body(body) => return None,
        Some(_) if body.is_empty() => "The body is gone: the URL has the hash of one.".to_owned(),
        Some(hash) => match body_changes::body_with_hash(body, hash) {
            Some(finding) => format!("The body was changed. {finding}"),
            None => format!("The body was changed: the {} bytes that arrived have another hash.", body.len()),
        },
    };
    Some(Change::new(What::Body, finding, FIX))
}

/// Returns the class that fits the parameters, and the filter's verdict on them.
fn shape(class: Option<Class>, form: &Form<'_>, raw: &[u8], target: &str, rule: BodyRule) -> Shape {
    let class = class.unwrap_or(match (form.get("MessageStatus"), form.get("MessageSid")) {
        (Some(_), _) => Class::Status,
        (None, Some(_)) => Class::Inbound,
        (None, None) => Class::Other,
    });
    let signed = SignedParameters {
        in_query: rule != BodyRule::Form,
        ..SignedParameters::posted(form, raw, target)
    };
    let misshape = Webhook::read(class, &signed).err();
    let (reason, field) = misshape.map_or((None, None), |misshape| {
        let (reason, field) = misshape.reason();
        (Some(reason), field)
    });
    Shape {
        class: class.as_str(),
        accepted: reason.is_none(),
        reason: reason.map(Reason::slug),
        field,
    }
}

fn too_many(class: Option<Class>) -> Shape {
    let class = class.unwrap_or(Class::Other).as_str();
    Shape { class, accepted: false, reason: Some(Reason::TooManyParameters.slug()), field: None }
}

/// Returns the URL without its password.
pub(crate) fn redacted(url: &str) -> String {
    match Url::parse(url) {
        Some(parsed) if !parsed.userinfo.is_empty() => {
            Url { userinfo: "***@".to_owned(), ..parsed }.to_string()
        }
        _ => url.to_owned(),
    }
}
