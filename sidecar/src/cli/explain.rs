//! `twilio-edge explain`: a request the filter refused, and the reason. Which URL and key match, or what would.
//!
//! Decides: what is read from where, and what is worth a note. The verdict is the filter's own (`captured.rs`);
//! what may have happened to a request is in `explain/url.rs` and `explain/body.rs`, the search for it in
//! `explain/search.rs`, the words in `explain/report.rs`.

mod body;
mod capture;
mod change;
mod report;
mod search;
mod url;

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use twilio_edge_contract::Class;
use twilio_edge_filter::form::{Form, Misshape, Webhook};
use twilio_edge_filter::reply::Reason;
use twilio_edge_filter::signature::{BodyRule, Candidate, Key, candidate_urls, hash_body, sign};

use self::capture::Capture;
use self::change::{Change, What};
use self::report::{Computed, Report, SCHEMA, Shape, Signed};
use self::search::{Claim, Fit, Found, Outcome, Search, Suspect};
use self::url::{Clues, Url};
use super::captured::{Captured, JsonLine, Rejection, SIGNATURE_HEADER};
use super::credentials::{self, TOKEN_VARIABLES, Token, variable};

/// Longest capture read, in bytes.
const MAX_CAPTURE_BYTES: u64 = 8 << 20;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Auth tokens are read from TWILIO_AUTH_TOKEN, TWILIO_AUTH_TOKEN_NEXT and --token-file.\n\
Exit code: 0 the signature matches, 1 it does not, 2 the input cannot be read."
)]
pub(super) struct Args {
    /// The request: raw HTTP (request line, headers, blank line, body) or a JSON line; `-` reads standard input
    #[arg(long, value_name = "FILE", required_unless_present = "url", conflicts_with_all = ["url", "method", "headers", "data", "data_file"])]
    request: Option<PathBuf>,
    /// The request's public URL, instead of --request
    #[arg(long)]
    url: Option<String>,
    /// Its method [default: POST]
    #[arg(long, requires = "url")]
    method: Option<String>,
    /// One of its headers; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", requires = "url")]
    headers: Vec<String>,
    /// Its body
    #[arg(long, requires = "url", conflicts_with = "data_file")]
    data: Option<String>,
    /// A file with exactly its body
    #[arg(long, value_name = "FILE", requires = "url")]
    data_file: Option<PathBuf>,
    /// The filter's origin, for a raw request; may be repeated [env: PUBLIC_ORIGIN] [default: https and its Host]
    #[arg(long, value_name = "URL")]
    origin: Vec<String>,
    /// A URL Twilio may have called instead; may be repeated
    #[arg(long, value_name = "URL")]
    try_url: Vec<String>,
    /// A file with auth tokens, one a line; may be repeated
    #[arg(long, value_name = "FILE")]
    token_file: Vec<PathBuf>,
    /// The account whose tokens these are [env: TWILIO_ACCOUNT_SID]
    #[arg(long, value_name = "AC..")]
    account: Option<String>,
    /// Class of the route it came on [default: what its parameters look like]
    #[arg(long, value_name = "CLASS", value_parser = parse_class)]
    class: Option<Class>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print the signatures that would match, too
    #[arg(long)]
    show_signatures: bool,
}

fn parse_class(text: &str) -> Result<Class, String> {
    [Class::Inbound, Class::Status, Class::Other]
        .into_iter()
        .find(|class| class.as_str() == text)
        .ok_or_else(|| "inbound, status or other".to_owned())
}

pub(super) fn run(args: Args) -> ExitCode {
    let report = Case::read(&args).and_then(|case| case.report());
    let printed = report.and_then(|report| {
        let text = if args.json {
            serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?
        } else {
            report.to_string()
        };
        // What fails to be printed has no reader.
        let _ = writeln!(io::stdout(), "{}", text.trim_end());
        Ok(report.matches)
    });
    match printed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(problem) => {
            eprintln!("twilio-edge explain: {problem}");
            ExitCode::from(2)
        }
    }
}

/// A request and all that is known about it.
struct Case {
    request: Captured,
    /// What the filter may take for its public URL, one per origin.
    urls: Vec<String>,
    tokens: Vec<Token>,
    account: Option<String>,
    class: Option<Class>,
    clues: Clues,
    notes: Vec<String>,
    show_signatures: bool,
}

impl Case {
    fn read(args: &Args) -> Result<Self, String> {
        let mut notes = Vec::new();
        let mut tokens = credentials::tokens_in(&args.token_file)?;
        tokens.extend(credentials::tokens_in_environment());
        let (request, urls) = match (&args.request, &args.url) {
            (Some(file), _) => {
                let raw = read_all(file)?;
                let problem = |problem: String| format!("{}: {problem}", file.display());
                if raw.trim_ascii_start().first() == Some(&b'{') {
                    let line: JsonLine =
                        serde_json::from_slice(&raw).map_err(|error| problem(error.to_string()))?;
                    if let Some(secret) = line.auth_token.clone() {
                        tokens
                            .push(Token { label: "auth_token of the request".to_owned(), secret });
                    }
                    let request = line.into_captured().map_err(problem)?;
                    let url = request.url.clone();
                    (request, vec![url])
                } else {
                    let capture = capture::parse(&raw).map_err(problem)?;
                    place(capture, &args.origin, &mut notes)?
                }
            }
            (None, Some(url)) => (Captured::of_flags(url, args)?, vec![url.clone()]),
            (None, None) => return Err("give --request FILE or --url URL".to_owned()),
        };
        if tokens.is_empty() {
            return Err(format!(
                "there is no auth token: set {} or name a --token-file",
                TOKEN_VARIABLES.join(", ")
            ));
        }
        let mut clues = Clues::of(&request.headers);
        if request.body_rule() == BodyRule::Hash && !request.body.is_empty() {
            clues.body_hash = Some(hash_body(&request.body));
        }
        if let Some(url) = urls.iter().find(|url| Url::parse(url).is_none()) {
            return Err(format!("{url} is no URL: scheme://host/path"));
        }
        for url in &args.try_url {
            let problem = || format!("--try-url {url} is no URL: scheme://host/path");
            clues.guess(Url::parse(url).ok_or_else(problem)?);
        }
        let account = args.account.clone().or_else(|| variable("TWILIO_ACCOUNT_SID"));
        Ok(Self {
            request,
            urls,
            tokens,
            account,
            class: args.class,
            clues,
            notes,
            show_signatures: args.show_signatures,
        })
    }

    fn report(mut self) -> Result<Report, String> {
        let suspects = suspects(&self.tokens)?;
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
            shape: form.map_or_else(|_| too_many(self.class), |form| shape(self.class, &form, raw)),
            signatures: if self.show_signatures { self.signatures(&given) } else { Vec::new() },
            notes: self.notes,
        })
    }

    /// The filter's verdict, origin by origin.
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
        Search::new(suspects, &claims).run(&self.request, &self.urls, &self.clues)
    }

    /// The search looks at the signature only; what a hash in the URL says about the body comes on top.
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
        } else if signature.len() == 44 {
            self.notes.push(
                "The signature is as long as an HMAC-SHA256: a Webhook Rule with a SharedKey makes those. The filter checks auth tokens."
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

impl Captured {
    fn of_flags(url: &str, args: &Args) -> Result<Self, String> {
        let body = match (&args.data, &args.data_file) {
            (Some(data), _) => data.clone().into_bytes(),
            (None, Some(file)) => read_all(file)?,
            (None, None) => Vec::new(),
        };
        let headers =
            args.headers.iter().map(|line| capture::header(line)).collect::<Result<_, _>>()?;
        let method = args.method.clone().unwrap_or_else(|| "POST".to_owned());
        Ok(Self { method, url: url.to_owned(), headers, body })
    }
}

/// Public URLs of a raw request: its target at each origin, as the filter does it.
fn place(
    capture: Capture,
    origins: &[String],
    notes: &mut Vec<String>,
) -> Result<(Captured, Vec<String>), String> {
    let Capture { method, target, headers, body, notes: about_capture } = capture;
    notes.extend(about_capture);
    let mut request = Captured { method, url: String::new(), headers, body };
    let mut origins = origins.to_vec();
    if origins.is_empty() {
        origins.extend(variable("PUBLIC_ORIGIN"));
    }
    let path = match Url::parse(&target) {
        Some(url) if target.starts_with("http") => {
            let origin_bytes = target.len() - url.path_and_query().len();
            if origins.is_empty() {
                origins.extend(target.get(..origin_bytes).map(str::to_owned));
            }
            url.path_and_query()
        }
        _ => target,
    };
    if origins.is_empty() {
        let host = request.header("Host").ok_or("there is neither --origin nor a Host header")?;
        let origin = format!("https://{host}");
        notes.push(format!("There was no --origin: {origin} was taken from the Host header."));
        origins.push(origin);
    }
    let urls: Vec<String> =
        origins.iter().map(|origin| format!("{}{path}", origin.trim_end_matches('/'))).collect();
    request.url = urls.first().cloned().unwrap_or_default();
    Ok((request, urls))
}

fn read_all(file: &Path) -> Result<Vec<u8>, String> {
    let problem = |error: io::Error| format!("{}: {error}", file.display());
    let input: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file).map_err(problem)?)
    };
    let mut raw = Vec::new();
    let read = input.take(MAX_CAPTURE_BYTES + 1).read_to_end(&mut raw).map_err(problem)?;
    if read as u64 > MAX_CAPTURE_BYTES {
        return Err(format!("{}: longer than {MAX_CAPTURE_BYTES} bytes", file.display()));
    }
    Ok(raw)
}

/// The tokens given, and what they may have been before they were copied badly.
fn suspects(tokens: &[Token]) -> Result<Vec<Suspect>, String> {
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
            let key =
                Key::auth_token(label, text).ok_or_else(|| format!("{label} cannot be a key"))?;
            let change = finding.map(|finding| Change::new(What::Token, finding, FIX));
            all.push(Suspect { label: label.clone(), key, change });
        }
    }
    Ok(all)
}

/// The header's value, and what it may have been; empty if there is none.
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

/// What is wrong with a body that is no form, given the URL that was signed.
fn body_change(body: &[u8], url: &str) -> Option<Change> {
    const FIX: &str = "Find what reads and writes the body before the edge, or changes its content type, and make it pass the bytes.";
    let query = Url::parse(url)?.query.unwrap_or_default();
    let form = Form::parse(query.as_bytes()).ok()?;
    let finding = match form.get("bodySHA256") {
        None => "Twilio signed no body: there is no bodySHA256 in the URL, so a body was added or its content type changed.".to_owned(),
        Some(hash) if hash == hash_body(body) => return None,
        Some(_) if body.is_empty() => "The body is gone: the URL has the hash of one.".to_owned(),
        Some(hash) => match body::body_with_hash(body, hash) {
            Some(finding) => format!("The body was changed. {finding}"),
            None => format!("The body was changed: the {} bytes that arrived have another hash.", body.len()),
        },
    };
    Some(Change::new(What::Body, finding, FIX))
}

/// The class its parameters look like, and what the filter says of them.
fn shape(class: Option<Class>, form: &Form<'_>, raw: &[u8]) -> Shape {
    let class = class.unwrap_or(match (form.get("MessageStatus"), form.get("MessageSid")) {
        (Some(_), _) => Class::Status,
        (None, Some(_)) => Class::Inbound,
        (None, None) => Class::Other,
    });
    let (reason, field) = match Webhook::read(class, form, raw) {
        Ok(_) => (None, None),
        Err(Misshape::Missing(field)) => (Some(Reason::MissingField), Some(field)),
        Err(Misshape::Malformed(field)) => (Some(Reason::MalformedField), Some(field)),
        Err(Misshape::Repeated(field)) => (Some(Reason::RepeatedField), Some(field)),
        Err(Misshape::NotUtf8) => (Some(Reason::InvalidUtf8), None),
        Err(Misshape::WrongClass) => (Some(Reason::WrongClass), Some("MessageStatus")),
    };
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

/// A URL without the password in it.
fn redacted(url: &str) -> String {
    match Url::parse(url) {
        Some(parsed) if !parsed.userinfo.is_empty() => {
            Url { userinfo: "***@".to_owned(), ..parsed }.to_string()
        }
        _ => url.to_owned(),
    }
}
