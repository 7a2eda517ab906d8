//! `twilio-edge explain`: the reason why the filter refused a request, and the URL and key that match or would match.
//!
//! Decides: what is read from where, and the words. The forms of captured requests and the diagnosis are those of
//! `crates/diagnosis`; the sidecar diagnoses the requests that filters report in the same way.

mod filter_config;
mod report_text;
mod url_report_text;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use twilio_edge_platform::terminal;

use twilio_edge_contract::Class;
use twilio_edge_filter::signature::{BodyRule, hash_body};

use twilio_edge_diagnosis::{
    Capture, Captured, Case, Clues, Format, MAX_BYTES, Part, SearchLimits, Token, Url, UrlReport,
    header,
};

use self::report_text::ReportText;
use self::url_report_text::UrlReportText;
use super::credentials::{self, TOKEN_VARIABLES, variable};
use super::globals::Globals;

/// Exit code if the capture has no signature, so that only its URL was checked.
const NOT_DECIDED: u8 = 3;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Auth tokens are read from TWILIO_AUTH_TOKEN, TWILIO_AUTH_TOKEN_NEXT and --token-file.\n\
The form of --request is recognized by its content: raw HTTP (request line, headers, blank line, body), a JSON line, a\n\
curl command, a HAR file, a line of an access log, an alert of Twilio's debugger, or what an Express application prints.\n\
Exit code: 0 the signature matches, 1 it does not, 2 the input cannot be read, 3 the input has no signature to check."
)]
pub(super) struct Args {
    /// Captured request in one of the forms below; `-` reads standard input
    #[arg(long, value_name = "FILE", required_unless_present = "url", conflicts_with_all = ["url", "method", "headers", "data", "data_file"])]
    request: Option<PathBuf>,
    /// Form of --request: http, json, curl, har, access-log, alert or express [default: recognized]
    #[arg(long, value_name = "FORM", value_parser = parse_format, requires = "request")]
    format: Option<Format>,
    /// Number of the request in a file with several of them, from 1
    #[arg(long, value_name = "N", requires = "request")]
    entry: Option<usize>,
    /// Public URL of the request, instead of --request
    #[arg(long)]
    url: Option<String>,
    /// Method [default: POST]
    #[arg(long, requires = "url")]
    method: Option<String>,
    /// Header; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", requires = "url")]
    headers: Vec<String>,
    /// Body
    #[arg(long, requires = "url", conflicts_with = "data_file")]
    data: Option<String>,
    /// File with the exact body
    #[arg(long, value_name = "FILE", requires = "url")]
    data_file: Option<PathBuf>,
    /// Origin of the filter; may be repeated [env: PUBLIC_ORIGIN] [default: that of the captured URL, or https and its Host]
    #[arg(long, value_name = "URL")]
    origin: Vec<String>,
    /// Another URL that Twilio may have called, for instance the one in the Twilio console; may be repeated
    #[arg(long, value_name = "URL")]
    try_url: Vec<String>,
    /// File with auth tokens, one per line; may be repeated
    #[arg(long, value_name = "FILE")]
    token_file: Vec<PathBuf>,
    /// Account of these tokens [env: TWILIO_ACCOUNT_SID]
    #[arg(long, value_name = "AC..")]
    account: Option<String>,
    /// Configuration of the filter (JSON, or the Envoy configuration that contains it), to examine the request's route too
    #[arg(long, value_name = "FILE")]
    filter_config: Option<PathBuf>,
    /// Class of the request's route [default: derived from its parameters]
    #[arg(long, value_name = "CLASS", value_parser = parse_class)]
    class: Option<Class>,
    /// Also print the signatures that would match
    #[arg(long)]
    show_signatures: bool,
}

fn parse_class(text: &str) -> Result<Class, String> {
    [Class::Inbound, Class::Status, Class::Other]
        .into_iter()
        .find(|class| class.as_str() == text)
        .ok_or_else(|| "must be inbound, status or other".to_owned())
}

fn parse_format(text: &str) -> Result<Format, String> {
    Format::parse(text).ok_or_else(|| {
        let names: Vec<&str> = Format::ALL.into_iter().map(Format::as_str).collect();
        format!("must be one of {}", names.join(", "))
    })
}

pub(super) fn run(args: Args, globals: &Globals) -> ExitCode {
    match explain(&args, globals) {
        Ok(code) => code,
        Err(problem) => {
            terminal::print_error(&format!("twilio-edge explain: {problem}"));
            ExitCode::from(2)
        }
    }
}

/// Prints the report, and returns the exit code for it.
fn explain(args: &Args, globals: &Globals) -> Result<ExitCode, String> {
    let json = |report: serde_json::Result<String>| report.map_err(|error| error.to_string());
    let (case, absent) = read_case(args)?;
    let (text, code) = if absent.contains(&Part::Signature) {
        let report = UrlReport::new(&case, &absent);
        let text = match globals.is_json() {
            true => json(serde_json::to_string_pretty(&report))?,
            false => UrlReportText(&report).to_string(),
        };
        (text, ExitCode::from(NOT_DECIDED))
    } else {
        let report = case.report()?;
        let text = match globals.is_json() {
            true => json(serde_json::to_string_pretty(&report))?,
            false => ReportText(&report).to_string(),
        };
        (text, if report.matches { ExitCode::SUCCESS } else { ExitCode::from(1) })
    };
    terminal::print_line(text.trim_end());
    Ok(code)
}

/// Returns the request with all known facts, and the parts of it that the capture lacks.
fn read_case(args: &Args) -> Result<(Case, Vec<Part>), String> {
    let routes = args.filter_config.as_deref().map(filter_config::routes).transpose()?;
    let mut notes = Vec::new();
    let mut tokens = credentials::tokens_in(&args.token_file)?;
    tokens.extend(credentials::tokens_in_environment());
    let (mut absent, mut called) = (Vec::new(), args.try_url.clone());
    let (request, urls) = match (&args.request, &args.url) {
        (Some(file), _) => {
            let problem = |problem: String| format!("{}: {problem}", file.display());
            let mut capture =
                Capture::read(&read_all(file)?, args.format, args.entry).map_err(problem)?;
            if let Some(secret) = capture.secret.take() {
                tokens.push(Token { label: "auth_token of the request".to_owned(), secret });
            }
            absent.clone_from(&capture.absent);
            called.append(&mut capture.called);
            notes.append(&mut capture.notes);
            place(capture, args, &mut notes)?
        }
        (None, Some(url)) => (captured_of_flags(url, args)?, vec![url.clone()]),
        (None, None) => return Err("--request or --url is required".to_owned()),
    };
    if tokens.is_empty() && !absent.contains(&Part::Signature) {
        return Err(format!(
            "there is no auth token: set {}, or use --token-file",
            TOKEN_VARIABLES.join(", ")
        ));
    }
    let mut clues = Clues::of(&request.headers);
    if request.body_rule() == BodyRule::Hash && !request.body.is_empty() {
        clues.body_hash = Some(hash_body(&request.body));
    }
    if let Some(url) = urls.iter().find(|url| Url::parse(url).is_none()) {
        return Err(format!("{url}: must be a URL, scheme://host/path"));
    }
    for url in &called {
        let problem = || format!("--try-url: {url}: must be a URL, scheme://host/path");
        clues.guesses.push(Url::parse(url).ok_or_else(problem)?);
    }
    let account = args.account.clone().or_else(|| variable("TWILIO_ACCOUNT_SID"));
    let case = Case {
        request,
        urls,
        tokens,
        account,
        class: args.class,
        routes,
        clues,
        notes,
        show_signatures: args.show_signatures,
        limits: SearchLimits::INTERACTIVE,
    };
    Ok((case, absent))
}

fn captured_of_flags(url: &str, args: &Args) -> Result<Captured, String> {
    let body = match (&args.data, &args.data_file) {
        (Some(data), _) => data.clone().into_bytes(),
        (None, Some(file)) => read_all(file)?,
        (None, None) => Vec::new(),
    };
    let headers = args.headers.iter().map(|line| header(line)).collect::<Result<_, _>>()?;
    let method = args.method.clone().unwrap_or_else(|| "POST".to_owned());
    Ok(Captured { method, url: url.to_owned(), headers, body })
}

/// Returns the public URLs of a captured request: its target at each origin, as the filter builds them.
fn place(
    capture: Capture,
    args: &Args,
    notes: &mut Vec<String>,
) -> Result<(Captured, Vec<String>), String> {
    let Capture { format, method, target, headers, body, .. } = capture;
    if format == Format::Json {
        return Ok((Captured { method, url: target.clone(), headers, body }, vec![target]));
    }
    let mut request = Captured { method, url: String::new(), headers, body };
    let mut origins = args.origin.clone();
    if origins.is_empty() {
        origins.extend(variable("PUBLIC_ORIGIN"));
    }
    let path = match Url::parse(&target) {
        Some(url) if target.starts_with("http") => {
            let origin_bytes = target.len() - url.path_and_query().len();
            if origins.is_empty() {
                origins.extend(target.get(..origin_bytes).map(str::to_owned));
                if format == Format::Alert {
                    notes.push("The filter's origin is not known here: that of the alert was assumed. Give it with --origin.".to_owned());
                }
            }
            url.path_and_query()
        }
        _ => target,
    };
    if origins.is_empty() {
        let host = request.header("Host").ok_or_else(|| match format {
            Format::AccessLog => "this is a line of an access log, and it has no host: give the filter's origin with --origin, and the URL in the Twilio console with --try-url".to_owned(),
            _ => "there is neither --origin nor a Host header".to_owned(),
        })?;
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
    let read = input.take(MAX_BYTES as u64 + 1).read_to_end(&mut raw).map_err(problem)?;
    if read > MAX_BYTES {
        return Err(format!("{}: longer than {MAX_BYTES} bytes", file.display()));
    }
    Ok(raw)
}
