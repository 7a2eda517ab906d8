//! Reports of refused requests to the sidecar, which finds out why their signatures do not match.
//!
//! Decides which refusals are reported, what a report contains, and when it is sent. Nothing waits for a report: the client
//! has its answer before, a report that fails is lost and counted, and a flood of refusals fills neither the memory nor the
//! sidecar. Time is an argument.
//!
//! Must not know: the host, states, the reply of the sidecar.

use std::collections::VecDeque;

use twilio_edge_contract::{
    BodyContent, HeaderLine, MAX_REPORTED, PublicOrigin, RefusalReport, RefusedRequest,
};

use crate::config::{Config, Mode, ReportedBody, Reports};
use crate::reply::Reason;
use crate::verification::{Head, loggable, without_userinfo};

/// Most reports that wait, and their most bytes, per worker.
const MAX_WAITING: usize = 32;
const MAX_WAITING_BYTES: usize = 256 * 1024;
/// Pause between two callouts, and after a failed one, in milliseconds.
const PAUSE_MS: u64 = 1_000;
const PAUSE_AFTER_FAILURE_MS: u64 = 10_000;
/// Reports of one reason and route: how many at once, and the interval in milliseconds at which one more is admitted.
const BURST: u32 = 5;
const REFILL_MS: u64 = 12_000;
/// Most pairs of reason and route that are counted apart.
const MAX_PAIRS: usize = 256;
/// Longest target and header value of a report, in bytes.
const MAX_TARGET_BYTES: usize = 4_096;
const MAX_VALUE_BYTES: usize = 1_024;
/// Milliseconds of a minute.
const MINUTE_MS: u64 = 60_000;

/// Headers of proxies, from which the signed URL can be guessed. Credentials are not among them.
const FORWARDING: [&str; 6] = [
    ":authority",
    "forwarded",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-original-host",
];

/// Reports of one worker.
#[derive(Debug)]
pub struct RefusedRequests {
    settings: Option<Reports>,
    waiting: VecDeque<(RefusedRequest, u64)>,
    bytes: usize,
    /// Tokens of all reports together, in thousandths.
    tokens: u64,
    last_ms: Option<u64>,
    pairs: Vec<Pair>,
    /// Token of the callout in flight, and its number of reports.
    in_flight: Option<(u32, usize)>,
    next_ms: u64,
}

/// Sample of one reason and route.
#[derive(Debug)]
struct Pair {
    reason: String,
    route: String,
    tokens: u32,
    refill_ms: Option<u64>,
    skipped: u32,
}

impl RefusedRequests {
    /// Creates an empty queue; it admits nothing if the configuration does not report.
    pub fn new(config: &Config) -> Self {
        let settings = config.reports;
        Self {
            tokens: settings.map_or(0, |settings| u64::from(settings.per_minute) * 1000),
            settings,
            waiting: VecDeque::new(),
            bytes: 0,
            last_ms: None,
            pairs: Vec::new(),
            in_flight: None,
            next_ms: 0,
        }
    }

    /// Reports whether a refused request is part of the sample. It is counted as skipped otherwise.
    pub fn admits(&mut self, request: &mut RefusedRequest) -> bool {
        let has_room = self.tokens >= 1000
            && self.waiting.len() < MAX_WAITING
            && self.bytes.saturating_add(request.bytes()) <= MAX_WAITING_BYTES;
        let is_full = self.pairs.len() >= MAX_PAIRS;
        let is_same = |pair: &Pair| pair.reason == request.reason && pair.route == request.route;
        if !self.pairs.iter().any(is_same) {
            if is_full {
                // A pair with all its tokens was refused nothing for a minute.
                let idle = self.pairs.iter().position(|pair| pair.tokens == BURST);
                let Some(idle) = idle else { return false };
                self.pairs.swap_remove(idle);
            }
            let (reason, route) = (request.reason.clone(), request.route.clone());
            self.pairs.push(Pair { reason, route, tokens: BURST, refill_ms: None, skipped: 0 });
        }
        let Some(pair) = self.pairs.iter_mut().find(|pair| is_same(pair)) else { return false };
        if !has_room || pair.tokens == 0 {
            pair.skipped = pair.skipped.saturating_add(1);
            return false;
        }
        pair.tokens -= 1;
        request.skipped = std::mem::take(&mut pair.skipped);
        self.tokens -= 1000;
        true
    }

    /// Adds an admitted request, with the forwarding headers among `headers`.
    pub fn post<'h>(
        &mut self,
        mut request: RefusedRequest,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        now_ms: u64,
    ) {
        for (name, value) in headers {
            if let Some(name) = FORWARDING.iter().find(|known| known.as_bytes() == name) {
                request.headers.push(line(name, value));
            }
        }
        self.bytes = self.bytes.saturating_add(request.bytes());
        self.waiting.push_back((request, now_ms));
    }

    /// Refills the samples, and returns the body of the report to send now, if one is due.
    pub fn next_report(&mut self, origins: &[String], now_ms: u64) -> Option<(Vec<u8>, usize)> {
        self.refill(now_ms);
        if self.waiting.is_empty() || self.in_flight.is_some() || now_ms < self.next_ms {
            return None;
        }
        let mut requests = Vec::new();
        while requests.len() < MAX_REPORTED {
            let Some((mut request, at_ms)) = self.waiting.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(request.bytes());
            request.age_ms = u32::try_from(now_ms.saturating_sub(at_ms)).unwrap_or(u32::MAX);
            requests.push(request);
        }
        self.next_ms = now_ms.saturating_add(PAUSE_MS);
        let count = requests.len();
        let origins = origins.iter().map(|origin| PublicOrigin(without_userinfo(origin)));
        Some((RefusalReport::new(origins.collect(), requests).encode(), count))
    }

    /// Records that the report was sent under `token`.
    pub fn record_sent(&mut self, token: u32, count: usize) {
        self.in_flight = Some((token, count));
    }

    /// Reports whether the report was sent under `token`.
    pub fn is_in_flight(&self, token: u32) -> bool {
        self.in_flight.is_some_and(|(sent, _)| sent == token)
    }

    /// Ends the callout in flight and returns its number of reports.
    pub fn complete(&mut self, is_delivered: bool, now_ms: u64) -> usize {
        let count = self.in_flight.take().map_or(0, |(_, count)| count);
        if !is_delivered {
            self.record_failure(now_ms);
        }
        count
    }

    /// Delays the next report, because a callout failed.
    pub fn record_failure(&mut self, now_ms: u64) {
        self.next_ms = now_ms.saturating_add(PAUSE_AFTER_FAILURE_MS);
    }

    fn refill(&mut self, now_ms: u64) {
        let Some(Reports { per_minute, .. }) = self.settings else { return };
        let full = u64::from(per_minute) * 1000;
        let passed = now_ms.saturating_sub(self.last_ms.unwrap_or(now_ms)).min(MINUTE_MS);
        let gained = passed * full / MINUTE_MS;
        if gained > 0 || self.last_ms.is_none_or(|last_ms| last_ms > now_ms) {
            self.last_ms = Some(now_ms);
            self.tokens = self.tokens.saturating_add(gained).min(full);
        }
        for pair in self.pairs.iter_mut().filter(|pair| pair.tokens < BURST) {
            let refill_ms = *pair.refill_ms.get_or_insert(now_ms.saturating_add(REFILL_MS));
            if now_ms >= refill_ms {
                pair.tokens += 1;
                pair.refill_ms = Some(now_ms.saturating_add(REFILL_MS));
            }
        }
    }
}

/// Returns the report of a refusal; `None` if the configuration does not report, or if the request is not the reason. `body`
/// is `None` if the request was refused before its body arrived.
pub(crate) fn report(
    config: &Config,
    reason: Reason,
    head: &Head,
    body: Option<&[u8]>,
) -> Option<RefusedRequest> {
    let settings = config.reports?;
    // The sidecar itself is the reason, or it still has the webhook.
    if matches!(reason, Reason::SidecarUnavailable | Reason::StillInFlight) {
        return None;
    }
    let route = head.route(config)?;
    let (body_content, text) = settings.body_of(head, body);
    let mut headers = Vec::new();
    for (name, value) in [
        ("x-twilio-signature", &head.signature),
        ("x-twilio-webhooks-signature-settings", &head.signature_settings),
        ("content-type", &head.content_type),
    ] {
        headers.extend(value.as_deref().map(|value| line(name, value)));
    }
    for (name, value) in head.overrides.iter().take(8) {
        headers.push(line(name, value));
    }
    Some(RefusedRequest {
        reason: reason.slug().to_owned(),
        route: route.path.clone(),
        is_shadow: route.mode == Mode::Shadow,
        method: loggable(&head.method),
        target: lossy(&head.target, MAX_TARGET_BYTES),
        headers,
        body: text,
        body_content,
        body_bytes: u32::try_from(body.map_or(0, <[u8]>::len)).unwrap_or(u32::MAX),
        age_ms: 0,
        skipped: 0,
        request_id: head.request_id.as_deref().map(loggable),
    })
}

impl Reports {
    fn body_of(self, head: &Head, body: Option<&[u8]>) -> (BodyContent, String) {
        let nothing = (BodyContent::None, String::new());
        // Nearly every GET has no body; its signature covers the URL alone.
        let is_absent = head.method == b"GET" && head.content_length.unwrap_or_default() == 0;
        let Some(body) = body.or(is_absent.then_some(b"".as_slice())) else { return nothing };
        let Ok(text) = std::str::from_utf8(body) else { return nothing };
        match self.body {
            _ if text.len() as u64 > u64::from(self.max_body_bytes) => nothing,
            ReportedBody::Full => (BodyContent::Full, text.to_owned()),
            ReportedBody::None => nothing,
            ReportedBody::Names if text.is_empty() => (BodyContent::Full, String::new()),
            ReportedBody::Names if is_form(head) => {
                let names = text.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
                let pairs: Vec<String> = names.map(|name| format!("{name}=")).collect();
                (BodyContent::Names, pairs.join("&"))
            }
            ReportedBody::Names => nothing,
        }
    }
}

fn is_form(head: &Head) -> bool {
    let kind = head.content_type.as_deref().unwrap_or_default();
    kind.starts_with(b"application/x-www-form-urlencoded")
}

fn line(name: &str, value: &[u8]) -> HeaderLine {
    HeaderLine { name: name.to_owned(), value: lossy(value, MAX_VALUE_BYTES) }
}

/// Returns the beginning of a client's value as text.
fn lossy(value: &[u8], max_bytes: usize) -> String {
    String::from_utf8_lossy(value.get(..max_bytes).unwrap_or(value)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(per_minute: u32) -> RefusedRequests {
        let config = serde_json::json!({
            "origins": ["https://u:p@hooks.example.com"],
            "accounts": [{"sid": "AC99999999999999999999999999999999", "auth_tokens": ["another"]}],
            "routes": [{"path": "/in", "class": "inbound"}],
            "sidecar": {"cluster": "sidecar", "token": "t"},
            "refused_requests": {"per_minute": per_minute},
        });
        RefusedRequests::new(&Config::parse(config.to_string().as_bytes(), &|_| None).unwrap())
    }

    fn refused(reason: &str) -> RefusedRequest {
        RefusedRequest {
            reason: reason.to_owned(),
            route: "/in".to_owned(),
            is_shadow: false,
            method: "POST".to_owned(),
            target: "/in".to_owned(),
            headers: Vec::new(),
            body: "a=b".to_owned(),
            body_content: BodyContent::Full,
            body_bytes: 3,
            age_ms: 0,
            skipped: 0,
            request_id: None,
        }
    }

    fn offer(queue: &mut RefusedRequests, reason: &str, now_ms: u64) -> Option<u32> {
        let mut request = refused(reason);
        let is_admitted = queue.admits(&mut request);
        let skipped = request.skipped;
        if is_admitted {
            queue.post(request, std::iter::empty(), now_ms);
        }
        is_admitted.then_some(skipped)
    }

    fn sent(queue: &mut RefusedRequests, now_ms: u64) -> usize {
        let origins = ["https://u:p@hooks.example.com".to_owned()];
        let Some((body, count)) = queue.next_report(&origins, now_ms) else { return 0 };
        let report = RefusalReport::decode(&body).unwrap();
        assert_eq!(report.origins, [PublicOrigin("https://hooks.example.com".to_owned())]);
        assert_eq!(report.requests.len(), count);
        queue.record_sent(7, count);
        count
    }

    #[test]
    fn flood_of_one_kind_is_sampled_and_its_size_is_reported() {
        let mut queue = queue(60);
        assert_eq!(queue.next_report(&[], 1_000_000), None);
        let admitted = (0..10_000).filter(|_| offer(&mut queue, "flood", 0).is_some()).count();
        assert_eq!(admitted, 5);
        assert!(offer(&mut queue, "another", 0).is_some(), "another reason has its own sample");
        assert_eq!(sent(&mut queue, 1_000_010), 6);
        assert_eq!(queue.next_report(&[], 1_012_010), None, "one is in flight");
        assert!(queue.is_in_flight(7) && !queue.is_in_flight(8));
        assert_eq!(queue.complete(true, 1_012_020), 6);
        queue.next_report(&[], 1_012_030);
        assert_eq!(offer(&mut queue, "flood", 1_012_030), Some(9_995));
        assert_eq!(offer(&mut queue, "flood", 1_012_030), None);
    }

    #[test]
    fn all_reasons_together_are_bounded() {
        let mut queue = queue(6);
        queue.next_report(&[], 1_000_000);
        let offered = |queue: &mut RefusedRequests, now_ms| {
            (0..100).filter(|n| offer(queue, &format!("r{n}"), now_ms).is_some()).count()
        };
        assert_eq!(offered(&mut queue, 1_000_000), 6);
        queue.next_report(&[], 1_020_000);
        assert_eq!(offered(&mut queue, 1_020_000), 2, "20 s of 6 per minute");
        queue.next_report(&[], 9_999_000);
        assert_eq!(offered(&mut queue, 9_999_000), 6, "never more than a minute's");
        for n in 0..1_000 {
            offer(&mut queue, &format!("other{n}"), 9_999_000);
        }
        assert!(queue.pairs.len() <= MAX_PAIRS);
    }

    #[test]
    fn waiting_reports_are_bounded() {
        let mut queue = queue(600);
        queue.next_report(&[], 1_000_000);
        for n in 0..600 {
            offer(&mut queue, &format!("r{}", n / 5), 1_000_000);
        }
        assert_eq!(queue.waiting.len(), MAX_WAITING);
        assert_eq!(sent(&mut queue, 1_000_000), MAX_REPORTED);
        assert_eq!(queue.complete(true, 1_000_010), MAX_REPORTED);
        assert_eq!(sent(&mut queue, 1_000_020), 0, "one callout a second");
        assert_eq!(sent(&mut queue, 1_001_020), MAX_REPORTED);
        assert_eq!((queue.waiting.len(), queue.bytes), (0, 0));
    }

    #[test]
    fn failed_report_is_lost_and_delays_the_next() {
        let mut queue = queue(60);
        queue.next_report(&[], 1_000_000);
        offer(&mut queue, "a", 1_000_000);
        assert_eq!(sent(&mut queue, 1_000_100), 1);
        assert_eq!(queue.complete(false, 1_000_600), 1);
        offer(&mut queue, "b", 1_000_600);
        assert_eq!(sent(&mut queue, 1_010_500), 0);
        assert_eq!(sent(&mut queue, 1_010_600), 1);
    }

    #[test]
    fn forwarding_headers_are_reported_and_credentials_are_not() {
        let mut queue = queue(60);
        let mut request = refused("a");
        assert!(queue.admits(&mut request));
        let headers: [(&[u8], &[u8]); 4] = [
            (b":authority", b"old.example.com"),
            (b"authorization", b"Basic dTpw"),
            (b"cookie", b"session=1"),
            (b"x-forwarded-proto", b"http"),
        ];
        queue.post(request, headers.into_iter(), 1_000_000);
        let (body, _) = queue.next_report(&[], 1_000_250).unwrap();
        let report = RefusalReport::decode(&body).unwrap();
        let names: Vec<&str> =
            report.requests[0].headers.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, [":authority", "x-forwarded-proto"]);
        assert_eq!(report.requests[0].age_ms, 250);
    }

    #[test]
    fn body_is_reported_as_configured() {
        let head = Head {
            method: b"POST".to_vec(),
            content_type: Some(b"application/x-www-form-urlencoded".to_vec()),
            ..Head::default()
        };
        let of = |body, max_body_bytes, bytes: Option<&[u8]>| {
            let (content, text) =
                Reports { body, max_body_bytes, per_minute: 1 }.body_of(&head, bytes);
            (content.as_str(), text)
        };
        let form = b"From=%2B1415&Body".as_slice();
        let full = ("full", "From=%2B1415&Body".to_owned());
        let nothing = ("none", String::new());
        assert_eq!(of(ReportedBody::Full, 17, Some(form)), full);
        assert_eq!(of(ReportedBody::Full, 16, Some(form)), nothing);
        assert_eq!(of(ReportedBody::Names, 17, Some(form)), ("names", "From=&Body=".to_owned()));
        assert_eq!(of(ReportedBody::None, 17, Some(form)), nothing);
        assert_eq!(of(ReportedBody::Full, 17, Some(b"\xff")), nothing);
        assert_eq!(of(ReportedBody::Full, 17, None), nothing, "the body has not arrived");
    }
}
