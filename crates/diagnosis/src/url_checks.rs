//! Checks of a request's URL, for captures without a signature: a line of an access log, most alerts of Twilio's debugger.
//!
//! Decides: what in a URL can differ from the one that Twilio signed, given the URL in the Twilio console, or without it. It
//! proves nothing: only a signature does.

use serde::Serialize;
use twilio_edge_filter::signature::candidate_urls;

use crate::capture::Part;
use crate::captured::Captured;
use crate::case::{Case, redacted};
use crate::change::What;
use crate::report::{SCHEMA, Shape};
use crate::route::RouteVerdict;
use crate::url::Url;

/// Result of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Both URLs agree, or nothing unusual was found.
    Fine,
    /// Something that often makes a signature fail; the URL in the Twilio console decides.
    Suspicious,
    /// The URLs differ: the filter refuses what Twilio signs.
    Different,
}

/// Check of one part of the URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UrlCheck {
    /// Part of the URL.
    pub what: What,
    /// Result.
    pub verdict: Verdict,
    /// Sentence about the result.
    pub finding: String,
    /// Sentence about the remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<&'static str>,
}

/// Report about a request whose signature is not in the capture.
#[derive(Debug, Serialize)]
pub struct UrlReport {
    /// Version of the JSON.
    pub schema: u32,
    /// Always none: the signature cannot be checked.
    pub matches: Option<bool>,
    /// Parts of the request that the capture lacks: `signature`, `body`, `query`.
    pub absent: Vec<&'static str>,
    /// Method of the request.
    pub method: String,
    /// URLs that the filter would compare with the signature, without passwords.
    pub candidates: Vec<String>,
    /// URL that Twilio calls, if it is known, without its password.
    pub called: Option<String>,
    /// Checks, one per part of the URL.
    pub checks: Vec<UrlCheck>,
    /// Verdict on the parameters, if the capture has them.
    pub shape: Option<Shape>,
    /// Verdict of the route.
    pub route: RouteVerdict,
    /// Further notes.
    pub notes: Vec<String>,
}

impl UrlReport {
    /// Examines the URL of a request. Its `guesses` are the URLs that Twilio calls.
    pub fn new(case: &Case, absent: &[Part]) -> Self {
        let called = case.clues.guesses.first();
        let logged = case.request.header("Host");
        let has_query = !absent.contains(&Part::Query);
        let urls = case.urls.iter().filter_map(|url| Url::parse(url));
        let differences = |checks: &Vec<UrlCheck>| {
            checks.iter().filter(|check| check.verdict == Verdict::Different).count()
        };
        // Of several origins, the one that fits best.
        let checks = urls
            .map(|url| checks(&url, called, logged, has_query))
            .min_by_key(differences)
            .unwrap_or_default();
        let (shape, route) = case.shape_and_route();
        let has_parameters = match case.request.method.as_str() {
            "GET" => has_query,
            _ => !absent.contains(&Part::Body),
        };
        Self {
            schema: SCHEMA,
            matches: None,
            absent: absent.iter().map(|part| part.as_str()).collect(),
            method: case.request.method.clone(),
            candidates: case
                .urls
                .iter()
                .flat_map(|url| candidate_urls(url))
                .map(|url| redacted(&url))
                .collect(),
            called: called.map(|url| redacted(&url.to_string())),
            checks,
            shape: has_parameters.then_some(shape),
            route: if has_parameters { route } else { without_body(route, &case.request) },
            notes: case.notes.clone(),
        }
    }
}

/// Drops the refusals that follow from a body that the capture lacks.
fn without_body(route: RouteVerdict, request: &Captured) -> RouteVerdict {
    let mut route = route;
    if request.method != "GET" {
        route.refusals.retain(|refusal| !refusal.reason.contains("body"));
        route.accepted = route.accepted.map(|_| route.refusals.is_empty());
    }
    route
}

fn checks(url: &Url, called: Option<&Url>, logged: Option<&str>, has_query: bool) -> Vec<UrlCheck> {
    let mut checks =
        vec![scheme(url, called), host(url, called, logged), port(url, called), path(url, called)];
    checks.push(if has_query {
        query(url, called)
    } else {
        UrlCheck {
            what: What::Query,
            verdict: Verdict::Suspicious,
            finding: "This log has no query: whether it was dropped, sorted or extended cannot be seen here.".to_owned(),
            fix: None,
        }
    });
    checks
}

fn fine(what: What, finding: impl Into<String>) -> UrlCheck {
    UrlCheck { what, verdict: Verdict::Fine, finding: finding.into(), fix: None }
}

fn suspicious(what: What, finding: impl Into<String>, fix: &'static str) -> UrlCheck {
    UrlCheck { what, verdict: Verdict::Suspicious, finding: finding.into(), fix: Some(fix) }
}

fn different(what: What, finding: impl Into<String>, fix: &'static str) -> UrlCheck {
    UrlCheck { what, verdict: Verdict::Different, finding: finding.into(), fix: Some(fix) }
}

fn scheme(url: &Url, called: Option<&Url>) -> UrlCheck {
    const FIX: &str = "Set `origins` of the filter to the scheme in the Twilio console.";
    match called {
        Some(called) if called.scheme.eq_ignore_ascii_case(&url.scheme) => {
            fine(What::Scheme, format!("Both say {}.", url.scheme))
        }
        Some(called) => different(
            What::Scheme,
            format!("Twilio signs {}, and the filter's origin says {}.", called.scheme, url.scheme),
            FIX,
        ),
        None if url.scheme == "https" => fine(What::Scheme, "The origin says https."),
        None => suspicious(
            What::Scheme,
            format!(
                "The origin says {}: if Twilio calls https and TLS ends before the edge, no signature matches.",
                url.scheme
            ),
            FIX,
        ),
    }
}

fn host(url: &Url, called: Option<&Url>, logged: Option<&str>) -> UrlCheck {
    const FIX: &str = "Set `origins` of the filter to the host in the Twilio console.";
    if let Some(called) = called {
        return if called.host == url.host {
            fine(What::Host, format!("Both are {}.", url.host))
        } else {
            let finding =
                format!("Twilio signs {}, and the filter's origin has {}.", called.host, url.host);
            different(What::Host, finding, FIX)
        };
    }
    let logged = logged.and_then(|host| Url::parse(&format!("{}://{host}", url.scheme)));
    match logged {
        Some(logged) if logged.host.eq_ignore_ascii_case(&url.host) => {
            fine(What::Host, format!("The origin has the host of the request: {}.", url.host))
        }
        Some(logged) => suspicious(
            What::Host,
            format!(
                "The request was for {}, and the filter's origin has {}.",
                logged.host, url.host
            ),
            FIX,
        ),
        None => fine(
            What::Host,
            format!("The origin has {}; the capture has no host to compare it with.", url.host),
        ),
    }
}

fn port(url: &Url, called: Option<&Url>) -> UrlCheck {
    const FIX: &str = "Set `origins` of the filter to the port in the Twilio console.";
    let usual = if url.scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    let of = |url: &Url| if url.port.is_empty() { usual.to_owned() } else { url.port.clone() };
    match called {
        // The filter also tries the URL without its port.
        Some(called) if called.port.is_empty() || called.port == of(url) => fine(
            What::Port,
            "The filter tries the URL without a port and with it, as Twilio may sign either.",
        ),
        Some(called) => different(
            What::Port,
            format!("Twilio signs port {}, and the filter tries {} or none.", called.port, of(url)),
            FIX,
        ),
        None if url.port.is_empty() => fine(
            What::Port,
            format!(
                "The origin has no port: the filter tries the URL without one and with {usual}."
            ),
        ),
        None => suspicious(
            What::Port,
            format!(
                "The origin has port {}: it must be the one that Twilio calls, not one of this machine.",
                url.port
            ),
            FIX,
        ),
    }
}

fn path(url: &Url, called: Option<&Url>) -> UrlCheck {
    const FIX: &str = "Make a proxy before the edge pass the path as it is, or give Twilio the URL as it arrives here.";
    let path = &url.path;
    let Some(called) = called else {
        let unusual = [
            (path.contains("//"), "has two slashes together, which proxies merge"),
            (path.contains("/../") || path.contains("/./"), "has dots, which proxies resolve"),
            (path.contains('%'), "has escapes, which proxies write in another way"),
            (
                path.len() > 1 && path.ends_with('/'),
                "ends with a slash: Twilio signed it only if the URL in the console ends with one",
            ),
        ];
        let found = unusual.iter().find(|(is_there, _)| *is_there);
        return match found {
            Some((_, finding)) => suspicious(What::Path, format!("The path {finding}."), FIX),
            None => fine(
                What::Path,
                format!(
                    "The path {path} has nothing that proxies change, and no slash at its end."
                ),
            ),
        };
    };
    let want = &called.path;
    let finding = if path == want {
        return fine(What::Path, format!("Both are {path}."));
    } else if path.trim_end_matches('/') == want.trim_end_matches('/') {
        "The slash at the end differs"
    } else if path.eq_ignore_ascii_case(want) {
        "The letters differ in case"
    } else if want.ends_with(path.as_str()) {
        "A proxy stripped a prefix"
    } else if path.ends_with(want.as_str()) {
        "A proxy added a prefix"
    } else if path.replace("//", "/") == want.replace("//", "/") {
        "A proxy merged or doubled slashes"
    } else {
        "The paths differ"
    };
    different(What::Path, format!("{finding}: Twilio signs {want}, and {path} arrived."), FIX)
}

fn query(url: &Url, called: Option<&Url>) -> UrlCheck {
    const FIX: &str = "Give Twilio a URL whose query is in alphabetical order, and make proxies pass the query as it is.";
    let parts = |query: Option<&str>| -> Vec<String> {
        let query = query.filter(|query| !query.is_empty());
        query.into_iter().flat_map(|query| query.split('&')).map(str::to_owned).collect()
    };
    let names = |parts: &[String]| -> Vec<String> {
        parts.iter().map(|part| part.split('=').next().unwrap_or_default().to_owned()).collect()
    };
    let have = parts(url.query.as_deref());
    let Some(called) = called else {
        let names = names(&have);
        return match names.as_slice() {
            [] => fine(
                What::Query,
                "There is no query: if the URL in the Twilio console has one, a proxy dropped it.",
            ),
            names if names.is_sorted() => fine(
                What::Query,
                "The query is in alphabetical order, so sorting does not change it.",
            ),
            _ => suspicious(
                What::Query,
                "The query is not in alphabetical order: a proxy or a framework that sorts it changes the URL.",
                FIX,
            ),
        };
    };
    let want = parts(called.query.as_deref());
    if url.query == called.query {
        return fine(What::Query, "Both are the same.");
    }
    let sorted = |parts: &[String]| {
        let mut parts = parts.to_vec();
        parts.sort();
        parts
    };
    let (dropped, added) = (
        want.iter().filter(|part| !have.contains(part)).cloned().collect::<Vec<_>>(),
        have.iter().filter(|part| !want.contains(part)).cloned().collect::<Vec<_>>(),
    );
    let finding = if have.is_empty() {
        "A proxy dropped the query".to_owned()
    } else if sorted(&have) == sorted(&want) {
        "The query was put into another order".to_owned()
    } else if names(&dropped) == names(&added) {
        format!("Values or their escapes changed: {}", names(&added).join(", "))
    } else if dropped.is_empty() {
        format!("Parameters were added: {}", names(&added).join(", "))
    } else {
        format!("Parameters are missing: {}", names(&dropped).join(", "))
    };
    different(What::Query, format!("{finding}."), FIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(
        url: &str,
        called: Option<&str>,
        logged: Option<&str>,
    ) -> Vec<(What, Verdict, String)> {
        let url = Url::parse(url).unwrap();
        let called = called.map(|called| Url::parse(called).unwrap());
        let checks = checks(&url, called.as_ref(), logged, true);
        checks.into_iter().map(|check| (check.what, check.verdict, check.finding)).collect()
    }

    #[test]
    fn each_difference_from_the_url_of_the_console_is_named() {
        let called = "https://hooks.example.com/twilio/inbound?a=1&b=2";
        let same = verdicts(called, Some(called), None);
        assert!(same.iter().all(|(_, verdict, _)| *verdict == Verdict::Fine), "{same:?}");
        for (url, what, words) in [
            ("http://hooks.example.com/twilio/inbound?a=1&b=2", What::Scheme, "signs https"),
            ("https://inner/twilio/inbound?a=1&b=2", What::Host, "origin has inner"),
            ("https://hooks.example.com/twilio/inbound/?a=1&b=2", What::Path, "slash at the end"),
            ("https://hooks.example.com/inbound?a=1&b=2", What::Path, "stripped a prefix"),
            ("https://hooks.example.com/x/twilio/inbound?a=1&b=2", What::Path, "added a prefix"),
            ("https://hooks.example.com/Twilio/inbound?a=1&b=2", What::Path, "in case"),
            ("https://hooks.example.com/twilio//inbound?a=1&b=2", What::Path, "slashes"),
            ("https://hooks.example.com/twilio/inbound?b=2&a=1", What::Query, "another order"),
            ("https://hooks.example.com/twilio/inbound", What::Query, "dropped the query"),
            ("https://hooks.example.com/twilio/inbound?a=1&b=2&utm=x", What::Query, "added: utm"),
            ("https://hooks.example.com/twilio/inbound?a=1", What::Query, "missing: b"),
            (
                "https://hooks.example.com/twilio/inbound?a=1&b=%32",
                What::Query,
                "escapes changed: b",
            ),
        ] {
            let found = verdicts(url, Some(called), None);
            let different: Vec<_> =
                found.iter().filter(|(_, verdict, _)| *verdict == Verdict::Different).collect();
            assert_eq!(different.len(), 1, "{url}: {found:?}");
            assert_eq!(different[0].0, what, "{url}");
            assert!(different[0].2.contains(words), "{url}: {found:?}");
        }
        let ports = verdicts("https://h:9443/", Some("https://h:8443/"), None);
        assert_eq!(ports[2].1, Verdict::Different);
        assert_eq!(verdicts("https://h:9443/", Some("https://h/"), None)[2].1, Verdict::Fine);
    }

    #[test]
    fn without_the_url_of_the_console_the_usual_causes_are_suspicious() {
        let found = verdicts("https://h/in?a=1&b=2", None, Some("h"));
        assert!(found.iter().all(|(_, verdict, _)| *verdict == Verdict::Fine), "{found:?}");
        for (url, logged, what) in [
            ("http://h/in", None, What::Scheme),
            ("https://h/in", Some("other:8443"), What::Host),
            ("https://h:8443/in", None, What::Port),
            ("https://h/in/", None, What::Path),
            ("https://h//in", None, What::Path),
            ("https://h/in?b=2&a=1", None, What::Query),
        ] {
            let found = verdicts(url, None, logged);
            let suspicious: Vec<What> = found
                .iter()
                .filter(|(_, verdict, _)| *verdict == Verdict::Suspicious)
                .map(|(what, ..)| *what)
                .collect();
            assert_eq!(suspicious, [what], "{url}");
        }
    }
}
