//! `twilio-edge explain`: the reason why the filter refused a request, and the URL and key that match or would match.
//!
//! Decides: what is read from where, and the words. The diagnosis is that of `crates/diagnosis`, as for the requests that
//! filters report.

mod capture;
mod filter_config;
mod report_text;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use twilio_edge_platform::terminal;

use twilio_edge_contract::Class;
use twilio_edge_filter::signature::{BodyRule, hash_body};

use twilio_edge_diagnosis::{Captured, Case, Clues, SearchLimits, Token, Url};

use self::capture::Capture;
use self::report_text::ReportText;
use super::credentials::{self, TOKEN_VARIABLES, variable};
use super::globals::Globals;
use super::json_line::JsonLine;

/// Largest capture that is read, in bytes.
const MAX_CAPTURE_BYTES: u64 = 8 << 20;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Auth tokens are read from TWILIO_AUTH_TOKEN, TWILIO_AUTH_TOKEN_NEXT and --token-file.\n\
Exit code: 0 the signature matches, 1 it does not, 2 the input cannot be read."
)]
pub(super) struct Args {
    /// Request: raw HTTP (request line, headers, blank line, body) or a JSON line; `-` reads standard input
    #[arg(long, value_name = "FILE", required_unless_present = "url", conflicts_with_all = ["url", "method", "headers", "data", "data_file"])]
    request: Option<PathBuf>,
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
    /// Origin of the filter, for a raw request; may be repeated [env: PUBLIC_ORIGIN] [default: https and its Host]
    #[arg(long, value_name = "URL")]
    origin: Vec<String>,
    /// Another URL that Twilio may have called; may be repeated
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

pub(super) fn run(args: Args, globals: &Globals) -> ExitCode {
    let report = read_case(&args).and_then(Case::report);
    let printed = report.and_then(|report| {
        let text = if globals.is_json() {
            serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?
        } else {
            ReportText(&report).to_string()
        };
        terminal::print_line(text.trim_end());
        Ok(report.matches)
    });
    match printed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(problem) => {
            terminal::print_error(&format!("twilio-edge explain: {problem}"));
            ExitCode::from(2)
        }
    }
}

fn read_case(args: &Args) -> Result<Case, String> {
    let routes = args.filter_config.as_deref().map(filter_config::routes).transpose()?;
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
                    tokens.push(Token { label: "auth_token of the request".to_owned(), secret });
                }
                let request = line.into_captured().map_err(problem)?;
                let url = request.url.clone();
                (request, vec![url])
            } else {
                let capture = capture::parse(&raw).map_err(problem)?;
                place(capture, &args.origin, &mut notes)?
            }
        }
        (None, Some(url)) => (captured_of_flags(url, args)?, vec![url.clone()]),
        (None, None) => return Err("--request or --url is required".to_owned()),
    };
    if tokens.is_empty() {
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
    for url in &args.try_url {
        let problem = || format!("--try-url: {url}: must be a URL, scheme://host/path");
        clues.guesses.push(Url::parse(url).ok_or_else(problem)?);
    }
    let account = args.account.clone().or_else(|| variable("TWILIO_ACCOUNT_SID"));
    Ok(Case {
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
    })
}

fn captured_of_flags(url: &str, args: &Args) -> Result<Captured, String> {
    let body = match (&args.data, &args.data_file) {
        (Some(data), _) => data.clone().into_bytes(),
        (None, Some(file)) => read_all(file)?,
        (None, None) => Vec::new(),
    };
    let headers =
        args.headers.iter().map(|line| capture::header(line)).collect::<Result<_, _>>()?;
    let method = args.method.clone().unwrap_or_else(|| "POST".to_owned());
    Ok(Captured { method, url: url.to_owned(), headers, body })
}

/// Returns the public URLs of a raw request: its target at each origin, as the filter builds them.
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
