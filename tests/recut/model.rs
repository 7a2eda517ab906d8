//! An attacker who chose the texts of a genuine webhook, saw its signature, and sends the same signed text cut in
//! another way. The property test and the fuzz target share it.
//!
//! [`attack`] returns what is wrong, if the filter accepted a cut that says something else than the webhook.

use std::rc::Rc;

use twilio_edge_contract::{Claim, Class};
use twilio_edge_filter::config::Config;
use twilio_edge_filter::exchange::{Effect, Event, Exchange, Head};
use twilio_edge_filter::form::{Form, is_opt_keyword};
use twilio_edge_filter::signature::{BodyRule, Key, hash_body, sign};

const CONFIG: &str = r#"{"origins": ["https://h"], "max_body_bytes": 65536,
    "accounts": [{"sid": "AC00112233445566778899aabbccddeeff", "auth_tokens": ["token"]}],
    "routes": [{"path": "/in", "class": "inbound"},
               {"path": "/both", "class": "inbound", "methods": ["GET", "POST"]},
               {"path": "/status", "class": "status", "methods": ["POST", "GET"]},
               {"prefix": "/p/", "class": "inbound"},
               {"path": "/p/studio", "class": "other", "bodies": ["form", "hash"], "methods": ["GET", "POST"]},
               {"prefix": "/s/", "class": "status", "methods": ["POST", "GET"]},
               {"path": "/other", "class": "other", "bodies": ["hash", "form"], "methods": ["GET", "POST"]}],
    "sidecar": {"cluster": "sidecar", "token": "t"}}"#;

const ACCOUNT: &str = "AC00112233445566778899aabbccddeeff";
const SID: &str = "SM00112233445566778899aabbccddeeff";
const FORGED_BODY: &[u8] = b"{\"forged\": true}";

/// Names that stand in webhooks of messages, in signed order.
const NAMES: [&str; 44] = [
    "AccountSid",
    "Address",
    "ApiVersion",
    "Body",
    "ButtonPayload",
    "ButtonText",
    "ChannelMetadata",
    "ChannelPrefix",
    "ErrorCode",
    "ErrorUrl",
    "ExternalUserId",
    "Forwarded",
    "FrequentlyForwarded",
    "From",
    "FromCity",
    "FromCountry",
    "FromState",
    "FromZip",
    "Label",
    "Latitude",
    "Longitude",
    "MediaContentType0",
    "MediaUrl0",
    "MessageSid",
    "MessageStatus",
    "MessageType",
    "MessagingServiceSid",
    "NumMedia",
    "NumSegments",
    "OptOutType",
    "OriginalRepliedMessageSender",
    "OriginalRepliedMessageSid",
    "ProfileName",
    "ReferralBody",
    "ReferralNumMedia",
    "SmsMessageSid",
    "SmsSid",
    "SmsStatus",
    "To",
    "ToCity",
    "ToCountry",
    "ToState",
    "Username",
    "WaId",
];

/// Fields that a cut may neither change, nor add, nor drop.
const CERTAIN: [&str; 11] = [
    "AccountSid",
    "MessageSid",
    "SmsSid",
    "SmsMessageSid",
    "From",
    "To",
    "WaId",
    "MessageStatus",
    "SmsStatus",
    "OptOutType",
    "ExternalUserId",
];

/// Values that a forger wants to see.
const VALUES: [&str; 30] = [
    "+14155559999",
    "whatsapp:+14155559999",
    "whatsapp:US.99999",
    "14155559999",
    "12345",
    "ACME",
    "AC99999999999999999999999999999999",
    "SM99999999999999999999999999999999",
    "MM99999999999999999999999999999999",
    "STOP",
    "START",
    "HELP",
    "received",
    "failed",
    "delivered",
    "30003",
    "21610",
    "2010-04-01",
    "http://x",
    "true",
    "false",
    "{}",
    "text",
    "button",
    "0",
    "1",
    "",
    "=",
    "&",
    " ",
];

const WORDS: [&str; 16] = [
    "hi",
    "STOP",
    "stop",
    "Stop",
    "Calling me",
    "z",
    "Z",
    "Z0",
    "S",
    "x ",
    "YES",
    "Dear",
    "Ex",
    "é",
    "OriginalReplied",
    "Sms",
];

/// Bytes that decide; no byte left means the first choice.
pub(crate) struct Choices<'a>(pub(crate) &'a [u8]);

impl Choices<'_> {
    fn below(&mut self, n: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % n.max(1)
    }

    fn of<'t>(&mut self, list: &[&'t str]) -> &'t str {
        list[self.below(list.len())]
    }
}

/// A request, signed.
struct Request {
    method: &'static str,
    target: String,
    content_type: Option<&'static str>,
    body: Vec<u8>,
    signature: String,
}

/// A webhook as Twilio sends it.
pub(crate) struct Genuine {
    class: Class,
    /// Path and query before the parameters.
    base: String,
    request: Request,
    params: Vec<(String, String)>,
    /// Target, names and values.
    text: String,
}

impl Genuine {
    fn get(&self, name: &str) -> &str {
        self.params.iter().find(|(have, _)| have == name).map_or("", |(_, value)| value)
    }

    /// Signs and encodes parameters.
    fn new(class: Class, target: &str, get: bool, params: Vec<(String, String)>) -> Self {
        let base = target.to_owned();
        let encoded = encode(&params);
        let (target, body) = match get {
            true => {
                let mark = if target.contains('?') { '&' } else { '?' };
                (format!("{target}{mark}{encoded}"), String::new())
            }
            false => (target.to_owned(), encoded),
        };
        let method = if get { "GET" } else { "POST" };
        let content_type = (!get).then_some("application/x-www-form-urlencoded");
        let rule = BodyRule::for_request(
            method.as_bytes(),
            content_type.map(str::as_bytes),
            body.as_bytes(),
        );
        let form = Form::parse(rule.parameters(&target, body.as_bytes())).unwrap();
        let key = Key::auth_token("", "token").unwrap();
        let url = format!("https://h{target}");
        let signature = sign(&url, rule.payload(&form, body.as_bytes()), &key);
        let text = match get {
            true => target.clone(),
            false => form
                .canonical()
                .fold(target.clone(), |text, parameter| text + &parameter.0 + &parameter.1),
        };
        let body = body.into_bytes();
        let request = Request { method, target, content_type, body, signature };
        Self { class, base, request, params, text }
    }

    /// A webhook of any kind, with texts that `text` makes.
    pub(crate) fn choose(
        choices: &mut Choices<'_>,
        mut text: impl FnMut(&mut Choices<'_>) -> String,
    ) -> Self {
        let kind = choices.below(12);
        if kind == 11 {
            let value = text(choices);
            let target = choices.of(&["/p/studio", "/other", "/other?x=1", "/p/studio?x=1"]);
            let params = vec![(choices.of(&["a", "Answer", "answer"]).to_owned(), value)];
            return Self::new(Class::Other, target, choices.below(4) == 3, params);
        }
        let whatsapp = (3..=7).contains(&kind);
        let mut params: Vec<(String, String)> = Vec::new();
        let mut set = |name: &str, value: &str| params.push((name.to_owned(), value.to_owned()));
        set("AccountSid", ACCOUNT);
        set("ApiVersion", "2010-04-01");
        set("MessageSid", SID);
        set("SmsSid", SID);
        let target;
        if kind >= 9 {
            let status = choices.of(&["delivered", "failed", "sent"]);
            set("MessageStatus", status);
            set("SmsStatus", status);
            set("To", "+14155550123");
            let from = if kind == 9 { choices.of(&["+15005550006", ""]) } else { "" };
            if kind == 9 {
                set("From", from);
            }
            if status == "failed" {
                set("ErrorCode", "30008");
            }
            // Only an SMS of a Messaging Service has no sender, and only a message of another channel has this text.
            if !from.is_empty() && choices.below(2) == 1 {
                set("ChannelStatusMessage", &text(choices));
            }
            target = choices.of(&["/status", "/status?u=1", "/s/a", "/s/a?x=2"]);
            return Self::new(Class::Status, target, choices.below(6) == 5, params);
        }
        set("SmsMessageSid", SID);
        set("SmsStatus", "received");
        set("NumMedia", if matches!(kind, 2 | 6) { "1" } else { "0" });
        set("NumSegments", "1");
        let from = match kind {
            1 => choices.of(&["ACME", "St Mary's", "BANKLtd", "50"]),
            7 => "whatsapp:US.31491208655302741900",
            _ if whatsapp => "whatsapp:+14155550123",
            _ => "+14155550123",
        };
        set("From", from);
        set("To", if whatsapp { "whatsapp:+14155238886" } else { "+15005550006" });
        if kind != 4 {
            set("Body", &text(choices));
        }
        if whatsapp {
            set("ProfileName", &text(choices));
            let kinds = ["text", "interactive", "location", "image", "text"];
            set("MessageType", kinds[kind - 3]);
            set("ChannelMetadata", "{\"type\":\"whatsapp\",\"data\":{\"context\":{}}}");
            if kind != 7 {
                set("WaId", "14155550123");
            }
            if kind == 7 || choices.below(2) == 1 {
                set("ExternalUserId", "whatsapp:US.31491208655302741900");
                set("Username", &text(choices));
            }
        } else if kind != 1 || choices.below(2) == 1 {
            for name in ["FromCity", "FromCountry", "FromState", "FromZip", "ToCity", "ToCountry"] {
                set(name, choices.of(&["", "US", "SAN FRANCISCO"]));
            }
        }
        match kind {
            0 if choices.below(4) == 3 => {
                set("ErrorCode", "11200");
                set("ErrorUrl", "https://app.example.com/hook");
            }
            2 | 6 => {
                set("MediaContentType0", "image/jpeg");
                set("MediaUrl0", "https://api.twilio.com/2010-04-01/Accounts/AC0/Media/ME0");
            }
            4 => {
                let button = text(choices);
                set("Body", &button);
                set("ButtonText", &button);
                set("ButtonPayload", "yes_1");
                set("OriginalRepliedMessageSid", "SM11111111111111111111111111111111");
            }
            5 => {
                set("Address", &text(choices));
                set("Label", &text(choices));
                set("Latitude", "1.5");
                set("Longitude", "-2.5");
            }
            _ => {}
        }
        if choices.below(8) == 7 {
            set("OptOutType", choices.of(&["STOP", "START", "HELP"]));
        }
        let targets = ["/in", "/in?tenant=7", "/both", "/both?x=1", "/p/a", "/p/a?x=1"];
        target = choices.of(&targets);
        let get = target.starts_with("/both") && choices.below(3) == 2;
        Self::new(Class::Inbound, target, get, params)
    }

    /// Adds unknown parameters.
    pub(crate) fn with(&self, extra: &[(String, String)]) -> Self {
        let mut params = self.params.clone();
        params.extend(extra.iter().filter(|(name, _)| self.get(name).is_empty()).cloned());
        let get = self.request.method == "GET";
        Self::new(self.class, &self.base, get, params)
    }

    /// Returns the reason for which the filter refuses the request, or `None`.
    pub(crate) fn refusal(&self) -> Option<String> {
        submit(&self.request).err()
    }

    /// Returns method and signed text for the report of a finding.
    pub(crate) fn show(&self) -> String {
        format!("{} {}", self.request.method, self.text)
    }
}

/// A text that imitates parameters.
pub(crate) fn forged_text(choices: &mut Choices<'_>) -> String {
    let mut text = String::new();
    match choices.below(3) {
        0 => {
            for _ in 0..choices.below(6) {
                let list: &[&str] = match choices.below(3) {
                    0 => &NAMES,
                    1 => &VALUES,
                    _ => &WORDS,
                };
                text.push_str(choices.of(list));
            }
        }
        // Parameters in signed order, as a forger would write them.
        start => {
            text.push_str(choices.of(if start == 1 {
                &WORDS
            } else {
                &["STOP", "hi", "START", ""]
            }));
            let mut names = NAMES.iter().skip(choices.below(NAMES.len()));
            for _ in 0..=choices.below(10) {
                let Some(name) = names.nth(choices.below(6)) else { break };
                text.push_str(name);
                text.push_str(choices.of(&VALUES));
            }
            if start == 2 {
                text.push_str(choices.of(&["z", "Z", "Zz9", "Label", "FromCity", "MessageType"]));
            }
        }
    }
    text
}

/// Cuts the signed text anew, and sends it; says what is wrong if the filter believes something else.
pub(crate) fn attack(genuine: &Genuine, choices: &mut Choices<'_>) -> Option<String> {
    let (request, params) = cut(genuine, choices)?;
    let accepted = submit(&request).ok()?;
    let shown = || {
        format!(
            "{}\nwas cut into {} {}\n{params:?}\n{}",
            genuine.show(),
            request.method,
            request.target,
            String::from_utf8_lossy(&request.body)
        )
    };
    let same_kind = request.method == genuine.request.method
        && request.content_type == genuine.request.content_type;
    let Some(claim) = accepted else {
        // Class other proves no more than the sender, but not of a body that was never sent.
        return (request.body == FORGED_BODY || genuine.class != Class::Other).then(shown);
    };
    let form = Form::parse(claim.form.as_bytes()).unwrap();
    let said = |name: &str| form.get(name).unwrap_or_default();
    let differs = CERTAIN.iter().any(|name| said(name) != genuine.get(name));
    let payload = said("ButtonPayload");
    let payload = !payload.is_empty() && payload != genuine.get("ButtonPayload");
    // The writer of an SMS can make it look like one that came to a fallback URL: documented, and only ever theirs.
    let fallback = !said("ErrorUrl").is_empty() && genuine.get("ErrorUrl").is_empty();
    let opt =
        |body: &str, kind: &str| (is_opt_keyword(body).then(|| body.to_owned()), kind.to_owned());
    let opt_differs = !fallback
        && opt(said("Body"), said("OptOutType"))
            != opt(genuine.get("Body"), genuine.get("OptOutType"));
    let error = claim.identity.class == Class::Status
        && claim.identity.error_code.as_deref().unwrap_or_default() != genuine.get("ErrorCode");
    let class = claim.identity.class != genuine.class || !same_kind;
    (differs || payload || opt_differs || error || class).then(shown)
}

type Cut = (Request, Vec<(String, String)>);

fn cut(genuine: &Genuine, choices: &mut Choices<'_>) -> Option<Cut> {
    let text = genuine.text.as_str();
    let signature = || genuine.request.signature.clone();
    match choices.below(10) {
        0 => {
            let fits = text.bytes().all(|byte| byte.is_ascii_graphic());
            let (method, target) = ("GET", text.to_owned());
            let request = Request {
                method,
                target,
                content_type: None,
                body: vec![],
                signature: signature(),
            };
            return fits.then_some((request, vec![]));
        }
        1 => {
            let hash = hash_body(FORGED_BODY);
            let end = text.find("bodySHA256").unwrap_or(text.len());
            if !text.ends_with(&hash) && end == text.len() {
                return None;
            }
            let request = Request {
                method: "POST",
                target: text.to_owned(),
                content_type: Some("application/json"),
                body: FORGED_BODY.to_vec(),
                signature: signature(),
            };
            return Some((request, vec![]));
        }
        _ => {}
    }
    let whole = genuine.request.target.len();
    let start = match choices.below(6) {
        // Somewhere else: parameters move into the target, or out of it.
        0 => {
            let marks: Vec<usize> = NAMES
                .iter()
                .flat_map(|name| text.match_indices(name).map(|(at, _)| at))
                .chain(text.match_indices('&').map(|(at, _)| at + 1))
                .chain(text.match_indices('?').map(|(at, _)| at + 1))
                .collect();
            *marks.get(choices.below(marks.len().max(1)))?
        }
        _ => whole,
    };
    let target = text.get(..start)?.to_owned();
    let mut params: Vec<(usize, usize)> = Vec::new();
    let mut at = start;
    // Each known name in order, at one of its places or at none.
    for name in NAMES {
        let places: Vec<usize> = text.match_indices(name).map(|(at, _)| at).collect();
        let places: Vec<usize> = places.into_iter().filter(|place| *place >= at).collect();
        let needed = matches!(name, "AccountSid" | "From" | "MessageSid" | "To");
        if !needed && choices.below(12) == 11 {
            continue;
        }
        let Some(place) = places.get(choices.below(places.len())) else { continue };
        if let Some(unknown) = filler(text, params.last().copied(), *place, choices) {
            params.push(unknown);
        }
        let mut length = name.len();
        match choices.below(64) {
            1 => length += choices.below(12),
            2 => length = length.saturating_sub(1 + choices.below(4)).max(1),
            _ => {}
        }
        params.push((*place, length));
        at = place + name.len();
    }
    if let Some(unknown) = filler(text, params.last().copied(), text.len(), choices) {
        params.push(unknown);
    }
    match params.first() {
        Some((first, _)) if *first != start => {
            let length = (1 + choices.below(12)).min(first - start);
            params.insert(0, (start, length));
        }
        _ => {}
    }
    let ends = params.iter().skip(1).map(|(at, _)| *at).chain([text.len()]);
    let mut pairs: Vec<(String, String)> = Vec::new();
    for ((at, length), end) in params.iter().zip(ends) {
        let name = text.get(*at..at + length)?;
        let value = text.get(at + length..end)?;
        pairs.push((name.to_owned(), value.to_owned()));
    }
    if !pairs.is_sorted() {
        return None;
    }
    let request = Request {
        method: "POST",
        target,
        content_type: Some("application/x-www-form-urlencoded"),
        body: encode(&pairs).into_bytes(),
        signature: signature(),
    };
    let unchanged = request.target == genuine.request.target && {
        let mut own = genuine.params.clone();
        own.sort();
        own == pairs
    };
    (!unchanged).then_some((request, pairs))
}

/// A parameter that swallows what is between the value of the last one and the next.
fn filler(
    text: &str,
    last: Option<(usize, usize)>,
    next: usize,
    choices: &mut Choices<'_>,
) -> Option<(usize, usize)> {
    let (at, length) = last?;
    let value = text.get(at + length..next)?;
    let wanted = VALUES.iter().filter(|known| value.starts_with(*known)).map(|known| known.len());
    let shape = wanted.max().unwrap_or(0);
    let own = ["AC0011", "SM0011", "SM1111", "2010-04-01", "+14155550123", "whatsapp:+1415"];
    let digits = own.iter().any(|own| value.starts_with(own)).then(|| {
        value
            .find(|c: char| !(c.is_ascii_hexdigit() || "+:-SMwhatsapp".contains(c)))
            .unwrap_or(value.len())
    });
    let end = match choices.below(16) {
        0 | 1 => return None,
        2 => choices.below(value.len().min(40) + 1),
        _ if digits.is_none() && shape == 0 => return None,
        _ => digits.unwrap_or(shape),
    };
    (end < value.len())
        .then(|| (at + length + end, 1 + choices.below(14).min(value.len() - end - 1)))
}

fn encode(params: &[(String, String)]) -> String {
    let escape = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                    char::from(byte).to_string()
                }
                _ => format!("%{byte:02X}"),
            })
            .collect()
    };
    let pairs = params.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Returns the claim of the filter for a request, none for class other, or the reason of the refusal.
fn submit(request: &Request) -> Result<Option<Rc<Claim>>, String> {
    thread_local! {
        static PARSED: Rc<Config> = Rc::new(Config::parse(CONFIG.as_bytes(), &|_| None).unwrap());
    }
    let mut exchange = Exchange::new(PARSED.with(Rc::clone), 1, 2);
    let head = Head {
        method: request.method.as_bytes().to_vec(),
        target: request.target.clone().into_bytes(),
        content_type: request.content_type.map(|kind| kind.as_bytes().to_vec()),
        signature: Some(request.signature.clone().into_bytes()),
        ..Head::default()
    };
    let mut effects = exchange.step(Event::Head(head));
    effects.extend(exchange.step(Event::Complete { body: &request.body }));
    for effect in effects {
        match effect {
            Effect::Claim { claim, .. } => return Ok(Some(claim)),
            Effect::SetUpstream(_) => return Ok(None),
            Effect::Answer(answer) => return Err(answer.body),
            _ => {}
        }
    }
    Err("not a guarded route".to_owned())
}
