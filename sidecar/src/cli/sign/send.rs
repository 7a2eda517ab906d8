//! Client that sends signed requests to an edge and prints the answers.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};
use twilio_edge_platform::terminal;

use ureq::Agent;
use ureq::http::{Request, Response};

use twilio_edge_simulator::webhook::SignedRequest;

/// Time limit of an answer. Twilio gives up after 15 seconds; a little more shows the answer that it would miss.
const PATIENCE: Duration = Duration::from_secs(20);

/// Most bytes of an answer's body that are printed.
const MAX_SHOWN_BYTES: u64 = 4 << 10;

/// Largest number of concurrent requests.
const MAX_AT_ONCE: usize = 64;

/// Edge that receives the requests.
pub(super) struct Edge {
    agent: Agent,
    /// `http://127.0.0.1:8080`
    url: String,
    /// `Host` header, if it differs from the host of the URL.
    host: Option<String>,
}

/// Answer of the edge.
pub(super) struct Answer {
    pub(super) status: u16,
    text: String,
}

impl Edge {
    /// Returns an edge at `url`; `host` is that of the signed URL.
    pub(super) fn new(url: String, host: Option<String>) -> Self {
        let agent = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            // Redirects are shown, not followed: Twilio would follow one and sign the new URL.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .new_agent();
        Self { agent, url, host }
    }

    /// Sends all requests, one after the other or up to 64 at once, and prints each answer. The error is that of the first
    /// request without an answer.
    pub(super) fn send_all(
        &self,
        all: &[SignedRequest],
        at_once: bool,
    ) -> Result<Vec<Answer>, String> {
        let mut answers = Vec::with_capacity(all.len());
        for some in all.chunks(if at_once { MAX_AT_ONCE } else { 1 }) {
            let some: Vec<_> = thread::scope(|scope| {
                let sending: Vec<_> =
                    some.iter().map(|signed| scope.spawn(|| self.send(signed))).collect();
                sending.into_iter().map(thread::ScopedJoinHandle::join).collect()
            });
            for answer in some {
                let answer = answer.map_err(|_| "a sending thread broke".to_owned())??;
                terminal::print_line(&answer.text);
                answers.push(answer);
            }
        }
        Ok(answers)
    }

    fn send(&self, signed: &SignedRequest) -> Result<Answer, String> {
        let url = format!("{}{}", self.url, signed.target);
        let mut request = Request::builder().method(signed.method).uri(&url);
        for (name, value) in &signed.headers {
            request = request.header(*name, value);
        }
        if let Some(host) = &self.host {
            request = request.header("Host", host);
        }
        let started = Instant::now();
        // Given an empty body, a GET would be sent as a GET with a body.
        let sent = if signed.method == "POST" {
            request.body(signed.body.clone()).map(|request| self.agent.run(request))
        } else {
            request.body(()).map(|request| self.agent.run(request))
        };
        let response = sent
            .map_err(|error| {
                format!("{url} cannot be sent as it is ({error}): use the curl command")
            })?
            .map_err(|error| format!("{url}: no answer: {error}"))?;
        let waited = started.elapsed();
        Ok(show(signed, response, waited))
    }
}

fn show(signed: &SignedRequest, mut response: Response<ureq::Body>, waited: Duration) -> Answer {
    let status = response.status();
    let mut text = format!(
        "{} {}\n  {status} after {} ms",
        signed.method,
        signed.target.split_once('?').map_or(&*signed.target, |(path, _)| path),
        waited.as_millis()
    );
    for (name, value) in response.headers() {
        let name = name.as_str();
        if matches!(name, "content-type" | "location" | "retry-after")
            || name.starts_with("x-twilio-edge-")
        {
            let _ = write!(
                text,
                "\n  {name}: {}",
                printable(&String::from_utf8_lossy(value.as_bytes()))
            );
        }
    }
    let body =
        response.body_mut().with_config().limit(MAX_SHOWN_BYTES).lossy_utf8(true).read_to_string();
    let body = body.unwrap_or_else(|error| format!("(the body cannot be shown: {error})"));
    for line in body.lines() {
        let _ = write!(text, "\n    {}", printable(line));
    }
    Answer { status: status.as_u16(), text }
}

/// Replaces control characters, so that a backend's text cannot control the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
