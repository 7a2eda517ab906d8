//! Changes that may have happened to a URL between Twilio and here: every variant one change apart.
//!
//! Must not know: keys, signatures, bodies.

use percent_encoding::percent_decode_str;

use crate::change::{Change, Variant, What};
use crate::url::{Clues, Url};

const CONSOLE: &str = "The filter's origin (PUBLIC_ORIGIN) and the URL in the Twilio console must be the same: change one of them.";
const PATH: &str =
    "Make a proxy before the edge leave the path alone, or give Twilio the URL as it arrives here.";
const QUERY: &str =
    "Make the proxy before the edge (or the tracker, the firewall, the CDN) leave the query alone.";

const SORTED: &str = "Give Twilio the URL with its query in alphabetical order: a sorted query is then the signed one.";

/// Prefixes that gateways commonly strip.
const PREFIXES: [&str; 8] =
    ["/api", "/v1", "/api/v1", "/webhook", "/webhooks", "/hooks", "/twilio", "/edge"];

/// Ports that proxies and applications commonly listen on.
const PORTS: [u16; 8] = [443, 80, 8443, 8080, 3000, 5000, 8000, 8888];

/// Largest number of query parameters of which every order is tried.
const MAX_PERMUTED: usize = 5;

/// Largest number of query parameters that are moved, and of positions that are tried.
const MAX_MOVED: usize = 16;

/// Largest number of query parameters that are changed one by one.
const MAX_RECODED: usize = 50;

/// Longest path and query with which every port is tried, in bytes.
const MAX_PORT_PATH: usize = 512;

/// Returns all URLs one change apart from `url`.
pub(crate) fn variants(url: &Url, clues: &Clues) -> Vec<Variant<Url>> {
    let mut all = Vec::new();
    for guess in &clues.guesses {
        let finding =
            format!("Twilio called {} instead.", Url { userinfo: String::new(), ..guess.clone() });
        all.push((Change::new(What::Url, finding, CONSOLE), guess.clone()));
    }
    origin_variants(url, clues, &mut all);
    path_variants(url, clues, &mut all);
    query_variants(url, clues, &mut all);
    all
}

fn origin_variants(url: &Url, clues: &Clues, all: &mut Vec<Variant<Url>>) {
    let other = if url.scheme.eq_ignore_ascii_case("https") { "http" } else { "https" };
    for scheme in [other.to_owned(), url.scheme.to_ascii_lowercase()] {
        if scheme != url.scheme {
            let finding = format!("Twilio signed {scheme}://, not {}://.", url.scheme);
            all.push((Change::new(What::Scheme, finding, CONSOLE), Url { scheme, ..url.clone() }));
        }
    }
    let lower = url.host.to_ascii_lowercase();
    let with_www = format!("www.{}", url.host);
    let guesses = [
        Some(&*lower),
        url.host.strip_prefix("www."),
        Some(&*with_www),
        url.host.strip_suffix('.'),
    ];
    for host in clues.hosts.iter().map(String::as_str).chain(guesses.into_iter().flatten()) {
        if host != url.host {
            let finding = format!("Twilio signed the host {host}, not {}.", url.host);
            let url = Url { host: host.to_owned(), ..url.clone() };
            all.push((Change::new(What::Host, finding, CONSOLE), url));
        }
    }
    let ports = PORTS.iter().map(|port| format!(":{port}"));
    for port in clues.ports.iter().cloned().chain(ports) {
        if port != url.port && port.len() > 1 {
            let finding = format!("Twilio signed the port {}.", port.trim_start_matches(':'));
            all.push((Change::new(What::Port, finding, CONSOLE), Url { port, ..url.clone() }));
        }
    }
    if let Some(userinfo) = clues.userinfo.clone().filter(|_| url.userinfo.is_empty()) {
        let finding =
            "Twilio signed the URL with the user and password that arrived as Authorization.";
        let fix =
            "Put user and password into the filter's origin too, or protect the URL otherwise.";
        all.push((Change::new(What::Userinfo, finding, fix), Url { userinfo, ..url.clone() }));
    }
    if !url.fragment.is_empty() {
        let finding = "Twilio signed the URL without its fragment, which is never sent.";
        let fix = "Leave `#..` (connection overrides) in the Twilio console only.";
        let url = Url { fragment: String::new(), ..url.clone() };
        all.push((Change::new(What::Fragment, finding, fix), url));
    }
}

fn path_variants(url: &Url, clues: &Clues, all: &mut Vec<Variant<Url>>) {
    let mut push = |finding: String, path: String| {
        if path != url.path {
            let variant = Url { path, ..url.clone() };
            all.push((Change::new(What::Path, finding, PATH), variant));
        }
    };
    let path = url.path.as_str();
    match path.strip_suffix('/') {
        Some(without) => {
            push("Twilio signed the path without the slash at its end.".into(), without.into())
        }
        None => push("Twilio signed the path with a slash at its end.".into(), format!("{path}/")),
    }
    push(
        "Twilio signed the path with two slashes at its start: they were merged.".into(),
        format!("/{path}"),
    );
    push("Twilio signed the path without its double slashes.".into(), merge_slashes(path));
    for prefix in clues.prefixes.iter().map(String::as_str).chain(PREFIXES) {
        let prefix = prefix.trim_end_matches('/');
        push(
            format!("Twilio signed the path with {prefix} before it: a proxy stripped the prefix."),
            format!("{prefix}{path}"),
        );
    }
    let mut rest = path;
    for _ in 0..3 {
        let Some(slash) = rest.get(1..).and_then(|rest| rest.find('/')) else { break };
        let (prefix, after) =
            path.split_at_checked(path.len() - rest.len() + slash + 1).unwrap_or((path, ""));
        push(
            format!("Twilio signed the path without {prefix}: a proxy added the prefix."),
            after.into(),
        );
        rest = after;
    }
    for target in &clues.targets {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target.as_str(), None),
        };
        if path.starts_with('/') && (path != url.path || query != url.query) {
            let finding = format!(
                "Twilio signed {path} and its query: a proxy rewrote them and says so in a header."
            );
            let variant = Url { path: path.to_owned(), query, ..url.clone() };
            all.push((Change::new(What::Path, finding, PATH), variant));
        }
    }
    for (finding, path) in recoded(path) {
        let variant = Url { path, ..url.clone() };
        all.push((
            Change::new(What::Path, format!("Twilio signed the path {finding}."), PATH),
            variant,
        ));
    }
    let lower = path.to_ascii_lowercase();
    if lower != path {
        let variant = Url { path: lower, ..url.clone() };
        all.push((Change::new(What::Path, "Twilio signed the path in lower case.", PATH), variant));
    }
}

fn query_variants(url: &Url, clues: &Clues, all: &mut Vec<Variant<Url>>) {
    let mut push = |finding: String, query: Option<String>| {
        if query != url.query {
            all.push((Change::new(What::Query, finding, QUERY), Url { query, ..url.clone() }));
        }
    };
    if let Some(hash) = &clues.body_hash {
        let pair = format!("bodySHA256={hash}");
        let query = match url.query.as_deref() {
            Some(query) if !query.is_empty() => format!("{query}&{pair}"),
            _ => pair,
        };
        push(
            "Twilio signed the URL with bodySHA256 in its query: it was dropped.".into(),
            Some(query),
        );
    }
    let Some(query) = url.query.as_deref() else {
        push("Twilio signed the URL with a bare ? at its end.".into(), Some(String::new()));
        return;
    };
    push("Twilio signed the URL without a query: it was added.".into(), None);
    if let Some(shorter) = query.strip_suffix('&') {
        push("Twilio signed the query without the & at its end.".into(), Some(shorter.into()));
    }
    push("Twilio signed the query with a & at its end.".into(), Some(format!("{query}&")));
    push(
        "Twilio signed the query with &amp; written as &.".into(),
        Some(query.replace("&amp;", "&")),
    );
    let pairs: Vec<&str> = query.split('&').collect();
    for (index, pair) in pairs.iter().enumerate().take(MAX_RECODED) {
        let name = pair.split('=').next().unwrap_or_default();
        let without: Vec<&str> = pairs
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != index)
            .map(|(_, pair)| *pair)
            .collect();
        let without = (!without.is_empty()).then(|| without.join("&"));
        push(format!("Twilio signed the query without {name}: it was added."), without);
    }
    for (index, pair) in pairs.iter().enumerate().take(MAX_RECODED) {
        let name = pair.split('=').next().unwrap_or_default();
        let toggled = match pair.split_once('=') {
            Some((_, "")) => name.to_owned(),
            None if !pair.is_empty() => format!("{pair}="),
            _ => continue,
        };
        let pairs: Vec<&str> = pairs
            .iter()
            .enumerate()
            .map(|(at, pair)| if at == index { &*toggled } else { *pair })
            .collect();
        push(format!("Twilio signed {toggled} in the query, not {pair}."), Some(pairs.join("&")));
    }
    let arrived_sorted = is_sorted(&pairs);
    for order in orders(&pairs) {
        let (finding, fix) = if arrived_sorted {
            ("Twilio signed the query in another order: the query was sorted on its way.", SORTED)
        } else if is_sorted(&order) {
            (
                "Twilio signed the query in alphabetical order: it was sorted before it was signed.",
                SORTED,
            )
        } else {
            ("Twilio signed the query in another order.", QUERY)
        };
        let variant = Url { query: Some(order.join("&")), ..url.clone() };
        if variant.query != url.query {
            all.push((Change::new(What::Query, finding, fix), variant));
        }
    }
    let mut push = |finding: String, query: Option<String>| {
        if query != url.query {
            all.push((Change::new(What::Query, finding, QUERY), Url { query, ..url.clone() }));
        }
    };
    for (finding, query) in recoded(query) {
        push(format!("Twilio signed the query {finding}."), Some(query));
    }
    for (index, pair) in pairs.iter().enumerate().take(MAX_RECODED) {
        let name = pair.split('=').next().unwrap_or_default();
        for (finding, pair) in recoded(pair) {
            let mut pairs = pairs.clone();
            if let Some(slot) = pairs.get_mut(index) {
                *slot = &pair;
            }
            push(format!("Twilio signed {name} in the query {finding}."), Some(pairs.join("&")));
        }
    }
}

/// Returns the URL with every port, if it is short enough for so many variants.
pub(crate) fn any_port(url: &Url) -> impl Iterator<Item = Variant<Url>> {
    let most = if url.path_and_query().len() < MAX_PORT_PATH { u16::MAX } else { 0 };
    (1..=most).map(|port| {
        let finding = format!("Twilio signed the port {port}.");
        (Change::new(What::Port, finding, CONSOLE), Url { port: format!(":{port}"), ..url.clone() })
    })
}

/// Returns other spellings of the same characters.
fn recoded(text: &str) -> Vec<(&'static str, String)> {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let often_raw = |byte: u8| unreserved(byte) || b"!$'()*,;:@/?|[]".contains(&byte);
    let mut all = vec![
        ("with its spaces as +, not %20", text.replace("%20", "+")),
        ("with its spaces as %20, not +", text.replace('+', "%20")),
        ("with upper-case escapes", escapes(text, |hex| Some(hex.to_ascii_uppercase()))),
        ("with lower-case escapes", escapes(text, |hex| Some(hex.to_ascii_lowercase()))),
        ("without needless escapes", unescape(text, unreserved)),
        ("with less of it escaped", unescape(text, often_raw)),
        ("unescaped", percent_decode_str(text).decode_utf8_lossy().into_owned()),
        ("with %2F for a slash", text.replace('/', "%2F")),
    ];
    for (finding, characters) in [
        ("with its apostrophes escaped", "'"),
        ("with ~ escaped", "~"),
        ("with !'()* escaped", "!'()*"),
        ("with more of it escaped", "!'()*~:@/,;$|[]"),
    ] {
        let escaped = text.chars().map(|letter| match letter {
            letter if characters.contains(letter) => format!("%{:02X}", u32::from(letter)),
            letter => letter.to_string(),
        });
        all.push((finding, escaped.collect()));
    }
    let raw: String = text
        .chars()
        .map(|letter| match letter {
            letter if letter.is_ascii() => letter.to_string(),
            letter => letter.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect(),
        })
        .collect();
    all.push(("with what is not ASCII escaped", raw));
    all.retain(|(_, changed)| changed != text);
    all
}

fn unescape(text: &str, wanted: impl Fn(u8) -> bool) -> String {
    escapes(text, |hex| {
        let byte = u8::from_str_radix(hex.get(1..)?, 16).ok()?;
        wanted(byte).then(|| char::from(byte).to_string())
    })
}

/// Replaces each `%XX` for which `replace` returns a text.
fn escapes(text: &str, replace: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let (before, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
        out.push_str(before);
        let escape = from
            .get(..3)
            .filter(|escape| escape.bytes().skip(1).all(|byte| byte.is_ascii_hexdigit()));
        let taken = escape.map_or("%", |escape| escape);
        match escape.and_then(&replace) {
            Some(replaced) => out.push_str(&replaced),
            None => out.push_str(taken),
        }
        rest = from.get(taken.len()..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

fn merge_slashes(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for letter in path.chars() {
        if letter != '/' || !merged.ends_with('/') {
            merged.push(letter);
        }
    }
    merged
}

/// Returns whether query parameters are in alphabetical order of their names.
fn is_sorted(pairs: &[&str]) -> bool {
    pairs.is_sorted_by_key(|pair| pair.split('=').next().unwrap_or_default())
}

/// Returns every order of a few parameters; for many parameters: sorted, reversed, and with one of them moved.
fn orders<'a>(pairs: &[&'a str]) -> Vec<Vec<&'a str>> {
    if pairs.len() > MAX_PERMUTED {
        let mut sorted = pairs.to_vec();
        sorted.sort_unstable();
        let mut all = vec![sorted, pairs.iter().rev().copied().collect()];
        for from in (0..pairs.len()).take(MAX_MOVED) {
            let mut rest = pairs.to_vec();
            let moved = rest.remove(from);
            for to in (0..=rest.len()).take(MAX_MOVED) {
                let mut order = rest.clone();
                order.insert(to, moved);
                all.push(order);
            }
        }
        return all;
    }
    let mut all = vec![Vec::new()];
    for pair in pairs {
        all = all
            .iter()
            .flat_map(|order: &Vec<&str>| {
                (0..=order.len()).map(move |at| {
                    let mut order = order.clone();
                    order.insert(at, *pair);
                    order
                })
            })
            .collect();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn what_proxies_do_to_urls_is_undone() {
        let headers = [
            ("Host", "inner:9000"),
            ("X-Forwarded-Prefix", "/gateway/"),
            ("X-Original-URI", "/original?x=1"),
            ("Authorization", "Basic dTpw"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let clues = Clues { body_hash: Some("ab".to_owned()), ..Clues::of(&headers) };
        let variants: Vec<String> =
            variants(&url("https://H.example/t/in?b=1+2&a=%2f&e#f"), &clues)
                .into_iter()
                .map(|(_, url)| url.to_string())
                .collect();
        for want in [
            "http://H.example/t/in?b=1+2&a=%2f&e#f",
            "https://h.example/t/in?b=1+2&a=%2f&e#f",
            "https://inner/t/in?b=1+2&a=%2f&e#f",
            "https://H.example:9000/t/in?b=1+2&a=%2f&e#f",
            "https://H.example:8443/t/in?b=1+2&a=%2f&e#f",
            "https://u:p@H.example/t/in?b=1+2&a=%2f&e#f",
            "https://H.example/t/in?b=1+2&a=%2f&e",
            "https://H.example/t/in/?b=1+2&a=%2f&e#f",
            "https://H.example//t/in?b=1+2&a=%2f&e#f",
            "https://H.example/gateway/t/in?b=1+2&a=%2f&e#f",
            "https://H.example/in?b=1+2&a=%2f&e#f",
            "https://H.example/original?x=1#f",
            "https://H.example/t/in#f",
            "https://H.example/t/in?b=1+2&e#f",
            "https://H.example/t/in?a=%2f&b=1+2&e#f",
            "https://H.example/t/in?b=1%202&a=%2f&e#f",
            "https://H.example/t/in?b=1+2&a=%2F&e#f",
            "https://H.example/t/in?b=1+2&a=%2f&e=#f",
            "https://H.example/t/in?b=1+2&a=%2f&e&bodySHA256=ab#f",
        ] {
            assert!(variants.contains(&want.to_owned()), "{want} is not tried: {variants:#?}");
        }
        assert!(variants.len() < 120, "{}", variants.len());
    }

    proptest! {
        #[test]
        fn any_url_has_a_bounded_number_of_variants(text in "https?://\\PC{0,60}", many in 0..300_usize) {
            let long = url(&format!("{text}&{}", "a=%41&".repeat(many)));
            prop_assert!(variants(&long, &Clues::default()).len() < 1200);
        }
    }
}
