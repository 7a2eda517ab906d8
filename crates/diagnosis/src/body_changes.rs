//! Changes that may have happened to the parameters between Twilio and here: every variant one change apart, and other
//! content that may have been signed after the URL.
//!
//! Must not know: keys, signatures, URLs beyond their query.

use std::ops::ControlFlow;

use percent_encoding::{percent_decode, percent_decode_str};
use twilio_edge_filter::form::Form;
use twilio_edge_filter::signature::{BodyRule, hash_body};

use crate::captured::Captured;
use crate::change::{Change, What};
use crate::url::Url;

const UNTOUCHED: &str = "Find what reads and writes the form again before the edge (a firewall, a gateway), and make it pass the bytes.";
const TYPE: &str = "Find the proxy that changes Content-Type, or the client that sets it.";

/// White space that people type before and after their words.
const LEADING: [&str; 4] = ["", " ", "  ", "\n"];
const TRAILING: [&str; 7] = ["", " ", "  ", "\n", " \n", "\r\n", "\n\n"];

/// Parameters that Twilio sends without a value; software that drops empty parameters loses these.
const OFTEN_EMPTY: [&str; 12] = [
    "Body",
    "ErrorMessage",
    "FromCity",
    "FromState",
    "FromZip",
    "FromCountry",
    "ToCity",
    "ToState",
    "ToZip",
    "ToCountry",
    "ProfileName",
    "MediaUrl0",
];

/// Largest number of parameters of which every pair is left out.
const MAX_PAIRED: usize = 40;

/// Largest number of parameters that are changed one by one.
const MAX_CHANGED: usize = 200;

/// Largest number of empty parameters of which every combination is added.
const MAX_COMBINED: usize = 8;

/// Names and values of parameters.
pub(crate) type Pairs = Vec<(String, String)>;

/// Content that was signed after the URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Signed {
    Nothing,
    Parameters(Pairs),
}

/// Returns the content that the filter verifies; `None` if there are too many parameters.
pub(crate) fn received(request: &Captured) -> Option<Signed> {
    match request.body_rule() {
        BodyRule::Form => Some(Signed::Parameters(pairs(&request.body)?)),
        BodyRule::None | BodyRule::Hash => Some(Signed::Nothing),
    }
}

fn pairs(bytes: &[u8]) -> Option<Pairs> {
    let form = Form::parse(bytes).ok()?;
    Some(form.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// Callback for one variant at a time, since a long form has too many variants to store.
pub(crate) type Visit<'v, Found> = &'v mut dyn FnMut(Change, Signed) -> ControlFlow<Found>;

/// Passes all contents one change apart from the received one to `visit`, until it breaks off.
pub(crate) fn variants<F>(request: &Captured, visit: Visit<'_, F>) -> ControlFlow<F> {
    match request.body_rule() {
        BodyRule::Form => {
            let found = pairs(&request.body).unwrap_or_default();
            let finding =
                "Twilio signed the URL alone: the request had no form when it was signed.";
            let fix = "Check what sets the body and its Content-Type: a JSON webhook is signed by bodySHA256, a GET by its URL.";
            visit(Change::new(What::ContentType, finding, fix), Signed::Nothing)?;
            whole_form_variants(&found, &request.body, visit)?;
            value_variants(&found, visit)?;
            lost_variants(&found, visit)?;
            added_variants(&found, visit)
        }
        BodyRule::Hash => {
            let found = pairs(&request.body).unwrap_or_default();
            if found.is_empty() {
                return ControlFlow::Continue(());
            }
            let arrived = match request.header("Content-Type") {
                Some(content_type) => format!("with the content type {content_type}"),
                None => "without one".to_owned(),
            };
            let finding = format!(
                "Twilio signed the body as a form (application/x-www-form-urlencoded), but it arrived {arrived}."
            );
            visit(Change::new(What::ContentType, finding, TYPE), Signed::Parameters(found))
        }
        BodyRule::None => ControlFlow::Continue(()),
    }
}

/// Returns the variants with parameters that moved between URL and body, which changes both.
pub(crate) fn moved(url: &Url, request: &Captured) -> Vec<(Change, Url, Signed)> {
    let mut all = Vec::new();
    let fix = "A redirect turns a POST into a GET, as do some gateways: give Twilio the final URL.";
    if let (BodyRule::None, Some(query)) = (request.body_rule(), url.query.as_deref()) {
        // The URL's own query, if it had one, precedes the parameters of the body.
        let query: Vec<&str> = query.split('&').collect();
        for own in 0..query.len().min(MAX_CHANGED) {
            let (own, body) = query.split_at_checked(own).unwrap_or_default();
            let Some(pairs) = pairs(body.join("&").as_bytes()) else { continue };
            let query = (!own.is_empty()).then(|| own.join("&"));
            let finding =
                "Twilio signed a POST with a form: its parameters have moved into the query.";
            let url = Url { query, ..url.clone() };
            all.push((Change::new(What::Method, finding, fix), url, Signed::Parameters(pairs)));
        }
    }
    if request.body_rule() == BodyRule::Form {
        let body = String::from_utf8_lossy(&request.body);
        let query = match url.query.as_deref() {
            Some(query) if !query.is_empty() => format!("{query}&{body}"),
            _ => body.into_owned(),
        };
        let finding =
            "Twilio signed a GET: its parameters have moved from the query into the body.";
        let url = Url { query: Some(query), ..url.clone() };
        all.push((Change::new(What::Method, finding, fix), url, Signed::Nothing));
    }
    all
}

fn parameter(finding: String) -> Change {
    Change::new(What::Parameter, finding, UNTOUCHED)
}

/// Visits variants with the same change to all parameters.
fn whole_form_variants<F>(found: &Pairs, body: &[u8], visit: Visit<'_, F>) -> ControlFlow<F> {
    let mut push = |what, finding: &str, changed: Pairs| {
        if changed == *found {
            return ControlFlow::Continue(());
        }
        visit(Change::new(what, finding, UNTOUCHED), Signed::Parameters(changed))
    };
    let map = |change: &dyn Fn(&str) -> String| -> Pairs {
        found.iter().map(|(name, value)| (change(name), change(value))).collect()
    };
    for (finding, change) in [
        ("The form was encoded twice.", &decode as &dyn Fn(&str) -> String),
        ("The form was decoded and not encoded again: + was a plus, not a space.", &|text| {
            text.replace(' ', "+")
        }),
        ("The + of phone numbers became a space.", &phone_number),
        ("Line breaks were CR LF and are line feeds now.", &|text| {
            text.replace("\r\n", "\n").replace('\n', "\r\n")
        }),
        ("Line breaks were line feeds and are CR LF now.", &|text| text.replace("\r\n", "\n")),
        ("The form was escaped for HTML.", &unescape_html),
        ("UTF-8 was taken for ISO-8859-1 and encoded again.", &misread_latin1),
        ("The values were given white space at their ends.", &|text| text.trim().to_owned()),
    ] {
        push(What::Encoding, finding, map(change))?;
    }
    if percent_decode(body).decode_utf8().is_err() {
        let read = |text: &[u8]| -> String {
            let text: Vec<u8> =
                text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
            percent_decode(&text).map(char::from).collect()
        };
        let latin1 = body.split(|byte| *byte == b'&').map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=').map(read);
            (halves.next().unwrap_or_default(), halves.next().unwrap_or_default())
        });
        let finding = "The form is ISO-8859-1 now; Twilio signed UTF-8.";
        push(What::Encoding, finding, latin1.collect())?;
    }
    let without_empty = found.iter().filter(|(_, value)| !value.is_empty()).cloned().collect();
    push(What::Parameter, "Empty parameters were added.", without_empty)?;
    let first = |pairs: &mut dyn Iterator<Item = &(String, String)>| {
        let mut kept = Pairs::new();
        for (name, value) in pairs {
            if !kept.iter().any(|(have, _)| have == name) {
                kept.push((name.clone(), value.clone()));
            }
        }
        kept
    };
    push(
        What::Parameter,
        "Repeated parameters were added after the first ones.",
        first(&mut found.iter()),
    )?;
    push(
        What::Parameter,
        "Repeated parameters were added before the last ones.",
        first(&mut found.iter().rev()),
    )
}

/// Visits variants with one changed value.
fn value_variants<F>(found: &Pairs, visit: Visit<'_, F>) -> ControlFlow<F> {
    for (index, (name, value)) in found.iter().enumerate().take(MAX_CHANGED) {
        let mut push = |finding: &str, changed: String| {
            if changed == *value {
                return ControlFlow::Continue(());
            }
            let mut pairs = found.clone();
            if let Some(pair) = pairs.get_mut(index) {
                pair.1 = changed;
            }
            visit(parameter(format!("{name} {finding}.")), Signed::Parameters(pairs))
        };
        for before in LEADING {
            for after in TRAILING {
                let finding = "was trimmed: it had white space at its ends when Twilio signed it";
                push(finding, format!("{before}{value}{after}"))?;
            }
        }
        push("was given white space at its ends", value.trim().to_owned())?;
        push("had pluses when Twilio signed it, not spaces", value.replace(' ', "+"))?;
        push("arrived encoded twice", decode(value))?;
        push("was decoded twice", encode(value, "+"))?;
        push("was decoded twice", encode(value, "%20"))?;
        push("was escaped for HTML", unescape_html(value))?;
        push("had CR LF for line breaks when Twilio signed it", value.replace('\n', "\r\n"))?;
        push("had line feeds for line breaks when Twilio signed it", value.replace("\r\n", "\n"))?;
        push("was filled in: it was empty when Twilio signed it", String::new())?;
    }
    ControlFlow::Continue(())
}

/// Visits variants with lost parameters whose value can be known.
fn lost_variants<F>(found: &Pairs, visit: Visit<'_, F>) -> ControlFlow<F> {
    let value_of =
        |name: &str| found.iter().find(|(have, _)| have == name).map(|(_, value)| value.clone());
    let sid = value_of("MessageSid").or_else(|| value_of("SmsSid")).unwrap_or_default();
    let status = value_of("MessageStatus").unwrap_or_else(|| "received".to_owned());
    let mut lost: Pairs = [
        ("SmsMessageSid", sid.as_str()),
        ("SmsSid", &sid),
        ("MessageSid", &sid),
        ("SmsStatus", &status),
        ("ApiVersion", "2010-04-01"),
        ("NumMedia", "0"),
        ("NumSegments", "1"),
        ("ReferralNumMedia", "0"),
        ("MessageType", "text"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let empty: Pairs = OFTEN_EMPTY
        .iter()
        .map(|name| ((*name).to_owned(), String::new()))
        .filter(|(name, _)| value_of(name).is_none())
        .collect();
    lost.retain(|(name, _)| value_of(name).is_none());
    let mut push = |added: Vec<&(String, String)>| {
        let names: Vec<&str> = added.iter().map(|(name, _)| name.as_str()).collect();
        let (was, all_empty) = (
            if names.len() == 1 { "was" } else { "were" },
            added.iter().all(|(_, value)| value.is_empty()),
        );
        let kind = if all_empty { ", empty," } else { "" };
        let finding = format!("{}{kind} {was} dropped.", names.join(", "));
        let pairs = found.iter().chain(added.iter().copied()).cloned().collect();
        visit(parameter(finding), Signed::Parameters(pairs))
    };
    let candidates: Vec<_> = lost.iter().chain(&empty).collect();
    for (index, one) in candidates.iter().enumerate() {
        push(vec![one])?;
        for other in candidates.iter().skip(index + 1) {
            push(vec![one, other])?;
        }
    }
    // Software that drops one empty parameter drops them all, but it is unknown which ones existed.
    let places: Vec<_> = empty
        .iter()
        .filter(|(name, _)| name.starts_with("From") || name.starts_with("To"))
        .take(MAX_COMBINED)
        .collect();
    for mask in 1_u32..1 << places.len() {
        let some: Vec<_> = (0..)
            .zip(&places)
            .filter(|(bit, _)| mask >> bit & 1 == 1)
            .map(|(_, pair)| *pair)
            .collect();
        if some.len() > 2 {
            push(some)?;
        }
    }
    ControlFlow::Continue(())
}

/// Visits variants without parameters that were added.
fn added_variants<F>(found: &Pairs, visit: Visit<'_, F>) -> ControlFlow<F> {
    let name = |index: usize| found.get(index).map_or("", |(name, _)| name.as_str());
    let mut push = |left_out: &[usize]| {
        let pairs = found.iter().enumerate().filter(|(at, _)| !left_out.contains(at));
        let names: Vec<&str> = left_out.iter().map(|index| name(*index)).collect();
        let was = if names.len() == 1 { "was" } else { "were" };
        let finding = format!("{} {was} added.", names.join(", "));
        let pairs = pairs.map(|(_, pair)| pair.clone()).collect();
        visit(parameter(finding), Signed::Parameters(pairs))
    };
    for one in 0..found.len().min(MAX_CHANGED) {
        push(&[one])?;
    }
    if found.len() <= MAX_PAIRED {
        for one in 0..found.len() {
            for other in one + 1..found.len() {
                push(&[one, other])?;
            }
        }
    }
    ControlFlow::Continue(())
}

/// Returns a sentence about how the body was changed, if a changed form of it has the hash.
pub(crate) fn body_with_hash(body: &[u8], hash: &str) -> Option<&'static str> {
    let text = String::from_utf8_lossy(body);
    let compact =
        serde_json::from_str::<serde_json::Value>(&text).ok().map(|_| respaced(&text, "", ""));
    let spaced = compact.as_ref().map(|_| respaced(&text, " ", " "));
    let candidates = [
        (Some(text.trim_end().to_owned()), "White space was added at its end."),
        (Some(format!("{text}\n")), "The line break at its end was cut off."),
        (Some(text.replace("\r\n", "\n")), "Its line breaks were made CR LF."),
        (Some(text.replace('\n', "\r\n")), "Its line breaks were CR LF."),
        (compact, "Its JSON was read and written again with more white space."),
        (spaced, "Its JSON was read and written again with less white space."),
    ];
    if hash.eq_ignore_ascii_case(&hash_body(body)) {
        return Some("The hash is the body's, but in upper case, which Twilio does not send.");
    }
    candidates
        .into_iter()
        .find(|(body, _)| body.as_ref().is_some_and(|body| hash_body(body.as_bytes()) == hash))
        .map(|(_, finding)| finding)
}

/// Returns JSON with other white space between its tokens; strings and the order of fields stay unchanged.
fn respaced(json: &str, after_colon: &str, after_comma: &str) -> String {
    let (mut out, mut in_string, mut escaped) = (String::with_capacity(json.len()), false, false);
    for letter in json.chars() {
        if in_string {
            out.push(letter);
            in_string = escaped || letter != '"';
            escaped = !escaped && letter == '\\';
            continue;
        }
        if letter.is_ascii_whitespace() {
            continue;
        }
        out.push(letter);
        match letter {
            '"' => in_string = true,
            ':' => out.push_str(after_colon),
            ',' => out.push_str(after_comma),
            _ => {}
        }
    }
    out
}

fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

fn encode(text: &str, space: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', space)
}

/// Restores ` 1415..` and `whatsapp: 1415..`, the result of decoding a raw `+`, to the phone number.
fn phone_number(text: &str) -> String {
    match text.rsplit_once(' ') {
        Some((channel, digits))
            if digits.bytes().all(|byte| byte.is_ascii_digit())
                && (channel.is_empty() || channel.ends_with(':')) =>
        {
            format!("{channel}+{digits}")
        }
        _ => text.to_owned(),
    }
}

fn unescape_html(text: &str) -> String {
    let mut text = text.to_owned();
    for (escape, letter) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&#x27;", "'"),
        ("&amp;", "&"),
    ] {
        text = text.replace(escape, letter);
    }
    text
}

/// Reverses the decoding of UTF-8 as ISO-8859-1.
fn misread_latin1(text: &str) -> String {
    let bytes: Option<Vec<u8>> =
        text.chars().map(|letter| u8::try_from(u32::from(letter)).ok()).collect();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| text.to_owned())
}
