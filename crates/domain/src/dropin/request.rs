//! Request of `POST Messages.json`: parameters only, as strict as Twilio where Twilio would refuse, and with Twilio's codes.
//! Parameters that no rule of ours needs are passed on unchanged, so that a new parameter of Twilio works at once.

use std::collections::BTreeMap;

use form_urlencoded::Serializer;

use super::{DropInError, content_variables};
use crate::{
    address::Address,
    period::instant,
    sending::{
        options::is_url,
        request::{Content, MAX_BODY_CHARS, MAX_MEDIA, Sender},
        sender::{self, is_service},
    },
};

/// Latest send time, in milliseconds from now: the same as in Twilio's own scheduling.
const FURTHEST_MS: i64 = 35 * 86_400_000;

/// Parameters that are read here; all others are passed on.
const OURS: [&str; 10] = [
    "To",
    "From",
    "MessagingServiceSid",
    "Body",
    "MediaUrl",
    "ContentSid",
    "ContentVariables",
    "SendAt",
    "ScheduleType",
    "StatusCallback",
];

/// Parameters that may occur more than once.
const LISTS: [&str; 2] = ["MediaUrl", "PersistentAction"];

/// Message request in the format of Twilio's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRequest {
    /// Recipient.
    pub to: Address,
    /// Sender, if the request names one.
    pub sender: Option<Sender>,
    /// Content.
    pub content: Content,
    /// Earliest send time, in milliseconds since 1970.
    pub send_at_ms: Option<i64>,
    /// URL to which the statuses are reported, if the request names one.
    pub status_callback: Option<String>,
    /// Other parameters, form-encoded.
    pub other_parameters: String,
}

impl MessageRequest {
    /// Reads decoded parameters; `now_ms` is the time that a schedule is compared with. `known` is the stored address of the
    /// recipient, if the recipient wrote to us from an address that is outside of today's numbering plans.
    ///
    /// # Errors
    /// The first mistake, with Twilio's code.
    pub fn read(
        pairs: &[(String, String)],
        now_ms: i64,
        known: Option<Address>,
    ) -> Result<MessageRequest, DropInError> {
        once(pairs)?;
        let get = |name: &str| {
            let found = pairs.iter().find(|(have, value)| have == name && !value.is_empty());
            found.map(|(_, value)| value.as_str())
        };
        let to =
            get("To").ok_or_else(|| DropInError::new(21604, "A 'To' phone number is required."))?;
        let to = known.map_or_else(|| Address::given(to, None, None), Ok).map_err(|problem| {
            DropInError::new(21211, format!("Invalid 'To' Phone Number: {problem}"))
        })?;
        let service = get("MessagingServiceSid");
        if service.is_some_and(|sid| !is_service(sid)) {
            return Err(DropInError::new(21701, "The Messaging Service does not exist"));
        }
        let from = get("From").map(|from| sender(from, &to)).transpose()?;
        let mut other_parameters = Serializer::new(String::new());
        let sender = match (from, service) {
            // Twilio then sends from this number of the service, so both are passed on.
            (Some(Sender::From(from)), Some(service)) => {
                other_parameters.append_pair("MessagingServiceSid", service);
                Some(Sender::From(from))
            }
            // `From` can name a Messaging Service as well.
            (Some(Sender::Service(from)), Some(service)) if from != service => {
                let problem = "From and MessagingServiceSid name different Messaging Services";
                return Err(DropInError::new(20001, problem));
            }
            (Some(from), _) => Some(from),
            (None, service) => service.map(|sid| Sender::Service(sid.to_owned())),
        };
        let content = content(pairs, get)?;
        let send_at_ms = schedule(get("ScheduleType"), get("SendAt"), now_ms)?;
        let status_callback = get("StatusCallback");
        if status_callback.is_some_and(|url| !is_url(url)) {
            return Err(DropInError::new(21609, "The StatusCallback URL is not a valid URL."));
        }
        let others = pairs.iter().filter(|(name, _)| !OURS.contains(&name.as_str()));
        other_parameters.extend_pairs(others);
        Ok(MessageRequest {
            to,
            sender,
            content,
            send_at_ms,
            status_callback: status_callback.map(str::to_owned),
            other_parameters: other_parameters.finish(),
        })
    }
}

/// Refuses a repeated parameter, since it is unclear which value is meant.
fn once(pairs: &[(String, String)]) -> Result<(), DropInError> {
    for (at, (name, _)) in pairs.iter().enumerate() {
        let before = pairs.iter().take(at);
        if !LISTS.contains(&name.as_str()) && before.clone().any(|(other, _)| other == name) {
            return Err(DropInError::new(20001, format!("{name} occurs more than once")));
        }
    }
    Ok(())
}

/// Reads a sender on the channel of the recipient.
fn sender(text: &str, to: &Address) -> Result<Sender, DropInError> {
    let read = sender::sender(text, None).map_err(|problem| {
        DropInError::new(21212, format!("The 'From' number is not a valid sender: {problem}"))
    })?;
    match &read {
        Sender::From(from) if from.channel != to.channel => {
            let problem = "Invalid From and To pair. From and To should be of the same channel";
            Err(DropInError::new(21910, problem))
        }
        Sender::From(from) if from == to => {
            Err(DropInError::new(21266, "'To' and 'From' number cannot be the same"))
        }
        Sender::From(_) | Sender::Service(_) => Ok(read),
    }
}

fn content<'a>(
    pairs: &[(String, String)],
    get: impl Fn(&str) -> Option<&'a str>,
) -> Result<Content, DropInError> {
    let media = pairs.iter().filter(|(name, value)| name == "MediaUrl" && !value.is_empty());
    let media: Vec<String> = media.map(|(_, value)| value.clone()).collect();
    let body = get("Body").unwrap_or_default();
    let variables = get("ContentVariables");
    if let Some(sid) = get("ContentSid") {
        if !is_sid(sid, "HX") {
            return Err(DropInError::new(21655, "The ContentSid is Invalid"));
        }
        let variables: BTreeMap<String, String> =
            variables.map(content_variables::read).transpose()?.unwrap_or_default();
        // Twilio sends the template and ignores `Body` and `MediaUrl`.
        return Ok(Content::Template { content_sid: sid.to_owned(), variables });
    }
    if variables.is_some() {
        let problem = "A ContentSid must be specified if ContentVariables are provided";
        return Err(DropInError::new(21654, problem));
    }
    if body.is_empty() && media.is_empty() {
        let problem = "A text message body or media urls must be specified.";
        return Err(DropInError::new(21619, problem));
    }
    if body.chars().count() > MAX_BODY_CHARS {
        let problem = "The concatenated message body exceeds the 1600 character limit";
        return Err(DropInError::new(21617, problem));
    }
    if media.len() > MAX_MEDIA {
        return Err(DropInError::new(21623, "Number of media files exceeds allowed limit"));
    }
    Ok(Content::Session { body: body.to_owned(), media })
}

/// Reads the send time. A scheduled message waits in our database: without a Messaging Service too, and for less than
/// Twilio's shortest time.
fn schedule(
    kind: Option<&str>,
    send_at: Option<&str>,
    now_ms: i64,
) -> Result<Option<i64>, DropInError> {
    let send_at = match (kind, send_at) {
        (None, None) => return Ok(None),
        (None, Some(_)) => return Err(DropInError::new(35112, "SendAt requires ScheduleType")),
        (Some("fixed"), Some(send_at)) => send_at,
        (Some("fixed"), None) => {
            return Err(DropInError::new(35111, "SendAt is required to schedule a message"));
        }
        (Some(_), _) => return Err(DropInError::new(35126, "ScheduleType must be fixed")),
    };
    let at_ms = instant(send_at)
        .map_err(|problem| DropInError::new(35114, format!("SendAt: {problem}")))?;
    match (now_ms..=now_ms.saturating_add(FURTHEST_MS)).contains(&at_ms) {
        true => Ok(Some(at_ms)),
        false => Err(DropInError::new(35114, "SendAt must be in the future, within 35 days")),
    }
}

/// Returns whether the text is a prefix and 32 hexadecimal digits.
pub fn is_sid(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix)
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_MS: i64 = 1_795_392_000_000;

    fn read(change: &[(&str, &str)]) -> Result<MessageRequest, u32> {
        let usual = [("To", "+16132345678"), ("From", "+16135550100"), ("Body", "hi")];
        let is_kept = |(name, _): &&(&str, &str)| !change.iter().any(|(have, _)| have == name);
        let pairs = usual.iter().filter(is_kept).chain(change);
        let pairs: Vec<_> =
            pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        MessageRequest::read(&pairs, NOW_MS, None).map_err(|mistake| mistake.code)
    }

    #[test]
    fn request_errors_have_the_codes_of_twilio() {
        let (long, service) = ("x".repeat(1601), format!("MG{}", "0".repeat(32)));
        let other = format!("MG{}", "1".repeat(32));
        let content = format!("HX{}", "0".repeat(32));
        let media = ("MediaUrl", "https://a.example/1");
        for (change, code) in [
            (&[("To", "")][..], 21604),
            (&[("To", "+1555")], 21211),
            (&[("From", "+1555")], 21212),
            (&[("From", "whatsapp:+16135550100")], 21910),
            (&[("From", "+16132345678")], 21266),
            (&[("MessagingServiceSid", "MG1")], 21701),
            (&[("Body", "")], 21619),
            (&[("Body", &long)], 21617),
            (&[media; 11], 21623),
            (&[("ContentSid", "HX1")], 21655),
            (&[("ContentVariables", "{\"1\":[]}")], 21654),
            (&[("ContentVariables", "{}")], 21654),
            (&[("ContentSid", &content), ("ContentVariables", "{\"1\":[]}")], 21656),
            (&[("ContentSid", &content), ("ContentVariables", "{\"1\":null}")], 21656),
            (&[("From", &service), ("MessagingServiceSid", &other)], 20001),
            (&[("To", "whatsapp:+16132345678"), ("From", "ACME")], 21910),
            (&[("To", "whatsapp:+16132345678"), ("From", "whatsapp:ACME")], 21212),
            (&[("From", "ABCDEFGHIJKL")], 21212),
            (&[("To", "+16132345678"), ("To", "+16132345679")], 20001),
            (&[("StatusCallback", "https://a_b.example")], 21609),
            (&[("SendAt", "2026-11-24T00:00:00Z")], 35112),
            (&[("ScheduleType", "fixed")], 35111),
            (&[("ScheduleType", "daily")], 35126),
            (&[("ScheduleType", "fixed"), ("SendAt", "tomorrow")], 35114),
            (&[("ScheduleType", "fixed"), ("SendAt", "2027-01-24T00:00:00Z")], 35114),
        ] {
            assert_eq!(read(change).map(|_| ()), Err(code), "{change:?}");
        }
        let at = read(&[("ScheduleType", "fixed"), ("SendAt", "2026-11-24T00:00:00Z")]).unwrap();
        assert_eq!(at.send_at_ms, Some(NOW_MS + 86_400_000));
        let both = read(&[("MessagingServiceSid", &service)]).unwrap();
        assert!(matches!(both.sender, Some(Sender::From(_))));
        assert_eq!(both.other_parameters, format!("MessagingServiceSid={service}"));
        assert_eq!(read(&[("From", "")]).unwrap().sender, None, "a route may say it");
        for from in ["ACME Inc", "MGMT", "89292"] {
            let Some(Sender::From(read)) = read(&[("From", from)]).unwrap().sender else {
                panic!()
            };
            assert_eq!(read.written(), from);
        }
        for more in [
            &[("From", service.as_str())][..],
            &[("From", &service), ("MessagingServiceSid", &service)],
        ] {
            let asked = read(more).unwrap();
            assert_eq!(asked.sender, Some(Sender::Service(service.clone())));
            assert_eq!(asked.other_parameters, "");
        }
    }

    #[test]
    fn other_parameters_are_passed_on() {
        let asked = read(&[("ValidityPeriod", "60"), ("Tomorrow", "a b"), ("Body", "hi")]).unwrap();
        assert_eq!(asked.other_parameters, "ValidityPeriod=60&Tomorrow=a+b");
        let asked = read(&[("StatusCallback", "https://app.example/s")]).unwrap();
        assert_eq!(asked.status_callback.as_deref(), Some("https://app.example/s"));
        assert_eq!(asked.other_parameters, "");
        let media = ("MediaUrl", "https://a.example/1");
        let long = "x".repeat(2000);
        for superseded in
            [&[("Body", "")][..], &[("Body", "Your message")], &[("Body", &long)], &[media, media]]
        {
            let template = [
                ("ContentSid", "HX00112233445566778899aabbccddeeff"),
                ("ContentVariables", "{\"1\":\"Ada\",\"2\":19.90}"),
            ];
            let asked = read(&[&template[..], superseded].concat()).unwrap();
            let Content::Template { variables, .. } = asked.content else { panic!() };
            assert_eq!(variables.values().collect::<Vec<_>>(), ["Ada", "19.90"]);
            assert_eq!(asked.other_parameters, "");
        }
    }

    proptest! {
        #[test]
        fn request_of_any_pairs_is_read_without_panic(pairs in prop::collection::vec((prop::sample::select(OURS.to_vec()), any::<String>()), 0..8)) {
            let pairs: Vec<_> = pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let _ = MessageRequest::read(&pairs, NOW_MS, None);
        }
    }
}
