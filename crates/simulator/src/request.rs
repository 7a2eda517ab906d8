//! Request to send a message, and whether Twilio would accept it: parameters only, independent of earlier messages. Stricter
//! than Twilio in one point: a parameter that Twilio would ignore is refused, because it is a mistake of the caller.
//!
//! Sources: Twilio's OpenAPI (twilio_api_v2010.json, CreateMessage) and twilio.com/docs/api/errors.

use std::collections::BTreeMap;

use super::refusal::Refusal;
use twilio_edge_domain::{
    contact,
    dropin::content_variables,
    sending::{request::Sender, sender::sender},
};

/// Longest text, in characters.
const MAX_BODY: usize = 1600;
/// Largest number of media of one message; of one to WhatsApp.
const MAX_MEDIA: (usize, usize) = (10, 1);
/// Shortest and longest time until a scheduled message is sent, in milliseconds: 5 minutes, 35 days.
const SCHEDULE_MS: (i64, i64) = (300_000, 35 * 86_400_000);

const KNOWN: [&str; 25] = [
    "To",
    "StatusCallback",
    "ApplicationSid",
    "MaxPrice",
    "ProvideFeedback",
    "Attempt",
    "ValidityPeriod",
    "ForceDelivery",
    "ContentRetention",
    "AddressRetention",
    "SmartEncoded",
    "PersistentAction",
    "TrafficType",
    "ShortenUrls",
    "ScheduleType",
    "SendAt",
    "SendAsMms",
    "ContentVariables",
    "RiskCheck",
    "From",
    "FallbackFrom",
    "MessagingServiceSid",
    "Body",
    "MediaUrl",
    "ContentSid",
];

/// Request whose parameters are valid by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) to: String,
    pub(super) from: Option<String>,
    pub(super) service: Option<String>,
    pub(super) body: Option<String>,
    pub(super) media: Vec<String>,
    pub(super) content_sid: Option<String>,
    pub(super) variables: BTreeMap<String, String>,
    pub(super) status_callback: Option<String>,
    /// Send time, in milliseconds since 1970.
    pub(super) send_at_ms: Option<i64>,
    /// `outbound-api`, or `outbound-reply` for a reply of TwiML.
    pub(super) direction: &'static str,
}

impl Request {
    /// Reads decoded parameters; `now_ms` is the time that a schedule is compared with.
    ///
    /// # Errors
    /// The first mistake, with Twilio's code.
    pub(super) fn read(pairs: &[(String, String)], now_ms: i64) -> Result<Self, Refusal> {
        if let Some((name, _)) = pairs.iter().find(|(name, _)| !KNOWN.contains(&name.as_str())) {
            return Err(Refusal::bad(20001, format!("{name} is no parameter of a message")));
        }
        let get = |name: &str| {
            let found = pairs.iter().find(|(have, value)| have == name && !value.is_empty());
            found.map(|(_, value)| value.clone())
        };
        let to =
            get("To").ok_or_else(|| Refusal::bad(21604, "A 'To' phone number is required."))?;
        if !is_person(&to) {
            let detail = format!("Invalid 'To' Phone Number: {to}");
            return Err(Refusal::bad(21211, detail));
        }
        let (from, service) = (get("From"), get("MessagingServiceSid"));
        if service.as_ref().is_some_and(|service| !is_sid(service, "MG")) {
            return Err(Refusal::bad(21701, "The Messaging Service does not exist"));
        }
        let (from, service) = match from {
            None if service.is_none() => {
                return Err(Refusal::bad(21603, "A 'From' phone number is required."));
            }
            None => (None, service),
            Some(from) if is_address(&from) => (Some(from), service),
            Some(from) => match sender(&from, None) {
                Ok(Sender::Service(sid)) => (None, Some(sid)),
                Ok(Sender::From(address)) if address.number == from => (Some(from), service),
                _ => {
                    let detail = format!(
                        "The 'From' number {from} is not a valid phone number, shortcode, or alphanumeric sender ID."
                    );
                    return Err(Refusal::bad(21212, detail));
                }
            },
        };
        if from.as_ref().is_some_and(|from| is_whatsapp(from) != is_whatsapp(&to)) {
            let detail = "Invalid From and To pair. From and To should be of the same channel";
            return Err(Refusal::bad(21910, detail));
        }
        if from.as_ref() == Some(&to) {
            return Err(Refusal::bad(21266, "'To' and 'From' number cannot be the same"));
        }
        let content_sid = get("ContentSid");
        let variables = get("ContentVariables");
        if let Some(sid) = &content_sid {
            if !is_sid(sid, "HX") {
                return Err(Refusal::bad(21655, "The ContentSid is Invalid"));
            }
        } else if variables.is_some() {
            let detail = "A ContentSid must be specified if ContentVariables are provided";
            return Err(Refusal::bad(21654, detail));
        }
        let variables = variables.map(|json| content_variables::read(&json)).transpose();
        let variables = variables
            .map_err(|mistake| Refusal::bad(mistake.code, mistake.message))?
            .unwrap_or_default();
        // The template replaces `Body` and `MediaUrl`.
        let get = |name: &str| match (name, &content_sid) {
            ("Body", Some(_)) => None,
            (name, _) => get(name),
        };
        let body = get("Body");
        if body.as_ref().is_some_and(|body| body.chars().count() > MAX_BODY) {
            return Err(Refusal::bad(
                21617,
                "The concatenated message body exceeds the 1600 character limit",
            ));
        }
        let media = pairs.iter().filter(|(name, value)| {
            content_sid.is_none() && name == "MediaUrl" && !value.is_empty()
        });
        let media: Vec<String> = media.map(|(_, value)| value.clone()).collect();
        let max_media = if is_whatsapp(&to) { MAX_MEDIA.1 } else { MAX_MEDIA.0 };
        if media.len() > max_media {
            return Err(Refusal::bad(21623, "Number of media files exceeds allowed limit"));
        }
        if let Some(url) = media.iter().find(|url| !is_url(url)) {
            return Err(Refusal::bad(21620, format!("Invalid media URL(s): {url}")));
        }
        if body.is_none() && media.is_empty() && content_sid.is_none() {
            return Err(Refusal::bad(
                21619,
                "A text message body or media urls must be specified.",
            ));
        }
        let status_callback = get("StatusCallback");
        if status_callback.as_ref().is_some_and(|url| !is_url(url)) {
            return Err(Refusal::bad(21609, "The StatusCallback URL is not a valid URL."));
        }
        let send_at_ms = schedule(get("ScheduleType"), get("SendAt"), service.is_some(), now_ms)?;
        Ok(Self {
            to,
            from,
            service,
            body,
            media,
            content_sid,
            variables,
            status_callback,
            send_at_ms,
            direction: "outbound-api",
        })
    }
}

fn schedule(
    kind: Option<String>,
    send_at: Option<String>,
    has_service: bool,
    now_ms: i64,
) -> Result<Option<i64>, Refusal> {
    let (kind, send_at) = match (kind, send_at) {
        (None, None) => return Ok(None),
        (None, Some(_)) => {
            return Err(Refusal::bad(35112, "SendAt is given without ScheduleType"));
        }
        (Some(kind), None) => {
            let code = if kind == "fixed" { 35111 } else { 35126 };
            return Err(Refusal::bad(code, "SendAt is required to schedule a message"));
        }
        (Some(kind), Some(send_at)) => (kind, send_at),
    };
    if kind != "fixed" {
        let detail = "The ScheduleType value provided is not supported for this channel";
        return Err(Refusal::bad(35126, detail));
    }
    if !has_service {
        return Err(Refusal::bad(35118, "MessagingServiceSid is required to schedule a message"));
    }
    let at: jiff::Timestamp =
        send_at.parse().map_err(|_| Refusal::bad(35114, "SendAt is no ISO 8601 time"))?;
    let at = at.as_millisecond();
    if (SCHEDULE_MS.0..=SCHEDULE_MS.1).contains(&at.saturating_sub(now_ms)) {
        Ok(Some(at))
    } else {
        Err(Refusal::bad(
            35114,
            "SendAt time must be between 300 seconds and 35 days in the future",
        ))
    }
}

/// Returns whether the address is a WhatsApp address.
pub(super) fn is_whatsapp(address: &str) -> bool {
    address.starts_with("whatsapp:")
}

/// Returns whether the text is an address or a WhatsApp user id.
pub(super) fn is_person(address: &str) -> bool {
    is_address(address) || contact::user_id(address).is_some()
}

/// Returns whether the text is E.164, with or without `whatsapp:` before it.
pub(super) fn is_address(address: &str) -> bool {
    let number = address.strip_prefix("whatsapp:").unwrap_or(address);
    number.strip_prefix('+').is_some_and(|digits| {
        (8..=15).contains(&digits.len())
            && !digits.starts_with('0')
            && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Returns whether the text is a prefix and 32 hexadecimal digits.
pub(super) fn is_sid(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix)
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Returns whether the text is an http or https URL with a host; Twilio refuses underscores in the host.
pub(super) fn is_url(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some_and(|host| !host.contains('_'))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(change: &[(&str, &str)]) -> Result<Request, u32> {
        let usual = [("To", "+14155550123"), ("From", "+14155238886"), ("Body", "hi")];
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in usual
            .iter()
            .filter(|(name, _)| !change.iter().any(|(have, _)| have == name))
            .chain(change)
        {
            pairs.push(((*name).to_owned(), (*value).to_owned()));
        }
        Request::read(&pairs, 0).map_err(|refusal| refusal.code)
    }

    #[test]
    fn each_mistake_has_twilios_code() {
        assert!(read(&[]).is_ok());
        let long = "x".repeat(1601);
        let service = format!("MG{}", "0".repeat(32));
        let content = format!("HX{}", "0".repeat(32));
        for (change, code) in [
            (&[("Bodi", "hi")][..], 20001),
            (&[("To", "")], 21604),
            (&[("To", "4155550123")], 21211),
            (&[("From", "")], 21603),
            (&[("From", "whatsapp:1")], 21212),
            (&[("From", "whatsapp:+14155238886")], 21910),
            (&[("From", "+14155550123")], 21266),
            (&[("Body", "")], 21619),
            (&[("Body", &long)], 21617),
            (&[("MediaUrl", "ftp://example.com/a")], 21620),
            (&[("ContentSid", "HX1")], 21655),
            (&[("ContentVariables", "{\"1\":\"a\"}")], 21654),
            (&[("ContentSid", &content), ("ContentVariables", "{\"1\":null}")], 21656),
            (&[("From", "ABCDEFGHIJKL")], 21212),
            (&[("From", "89")], 21212),
            (&[("From", "whatsapp:ACME"), ("To", "whatsapp:+14155550123")], 21212),
            (&[("From", "ACME"), ("To", "whatsapp:+14155550123")], 21910),
            (&[("StatusCallback", "https://a_b.example.com")], 21609),
            (&[("ScheduleType", "fixed")], 35111),
            (&[("ScheduleType", "daily")], 35126),
            (&[("SendAt", "1970-01-01T01:00:00Z")], 35112),
            (&[("MessagingServiceSid", "MG1")], 21701),
            (&[("ScheduleType", "fixed"), ("SendAt", "1970-01-01T01:00:00Z")], 35118),
            (
                &[
                    ("MessagingServiceSid", &service),
                    ("ScheduleType", "fixed"),
                    ("SendAt", "1970-01-01T00:04:59Z"),
                ],
                35114,
            ),
            (
                &[
                    ("MessagingServiceSid", &service),
                    ("ScheduleType", "fixed"),
                    ("SendAt", "1970-02-05T00:00:01Z"),
                ],
                35114,
            ),
        ] {
            assert_eq!(read(change).map(|_| ()), Err(code), "{change:?}");
        }
        let at = read(&[
            ("MessagingServiceSid", &service),
            ("ScheduleType", "fixed"),
            ("SendAt", "1970-01-01T01:00:00Z"),
        ]);
        assert_eq!(at.unwrap().send_at_ms, Some(3_600_000));
        for (at, ms) in [("1970-01-01T00:05:00Z", 300_000), ("1970-02-05T00:00:00Z", 3_024_000_000)]
        {
            let schedule = [("MessagingServiceSid", service.as_str()), ("ScheduleType", "fixed")];
            let request = read(&[&schedule[..], &[("SendAt", at)]].concat());
            assert_eq!(request.unwrap().send_at_ms, Some(ms), "the ends are within");
        }
    }

    #[test]
    fn sender_is_a_number_a_short_code_a_name_or_a_service() {
        for from in ["ACME", "A-1 b", "89292", "892", "+14155238886"] {
            assert_eq!(read(&[("From", from)]).unwrap().from.as_deref(), Some(from));
        }
        let service = format!("MG{}", "0".repeat(32));
        let request = read(&[("From", &service)]).unwrap();
        assert_eq!((request.from, request.service), (None, Some(service)));
    }

    #[test]
    fn template_supersedes_text_and_media() {
        let content = format!("HX{}", "0".repeat(32));
        let media = ("MediaUrl", "https://example.com/a.png");
        let request =
            read(&[("ContentSid", &content), ("ContentVariables", "{\"1\":19.90}"), media]);
        let request = request.unwrap();
        assert_eq!((request.body, request.media.len()), (None, 0));
        assert_eq!(request.variables["1"], "19.90");
    }

    #[test]
    fn whatsapp_accepts_one_medium() {
        let media = ("MediaUrl", "https://example.com/a.png");
        let whatsapp =
            [("To", "whatsapp:+14155550123"), ("From", "whatsapp:+14155238886"), media, media];
        assert_eq!(read(&whatsapp).map(|_| ()), Err(21623));
        assert_eq!(read(&[media, media]).unwrap().media.len(), 2);
    }

    proptest! {
        #[test]
        fn request_of_any_bytes_is_read_without_panic(pairs in prop::collection::vec((prop::sample::select(KNOWN.to_vec()), any::<String>()), 0..8)) {
            let pairs: Vec<_> = pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let _ = Request::read(&pairs, 0);
        }
    }
}
