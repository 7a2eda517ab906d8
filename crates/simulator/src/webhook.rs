//! Webhooks in Twilio's format, derived from a MessageSid alone: the same SID gives the same message, so that it can be
//! repeated from another terminal.
//!
//! Decides: the parameters of each kind, and how method, URL, headers and body are built and signed. Source:
//! twilio.com/docs/messaging/guides/webhook-request and .../track-outbound-message-status.
//!
//! Must not know: the receiver, what is printed.

use form_urlencoded::Serializer;
use twilio_edge_filter::form::Form;
use twilio_edge_filter::signature::{Key, Payload, hash_body, sign};

use twilio_edge_domain::{contact, dropin::resource::segments};

/// Header of the signature.
pub const SIGNATURE_HEADER: &str = "X-Twilio-Signature";

/// Number of a contact, in the range of numbers reserved for fiction.
const CUSTOMER: &str = "+14155550123";
/// Our sender: the number of Twilio's WhatsApp sandbox.
const SENDER: &str = "+14155238886";

/// Channel of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Channel {
    /// WhatsApp.
    Whatsapp,
    /// SMS.
    Sms,
}

/// Identity of a message: its account, SID, channel and addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// Account SID: `AC` and 32 hexadecimal digits.
    pub account_sid: &'a str,
    /// Message SID: `SM` or `MM` and 32 hexadecimal digits.
    pub message_sid: &'a str,
    /// Channel of the message.
    pub channel: Channel,
    /// Sender; a default of the simulator if absent.
    pub from: Option<&'a str>,
    /// Recipient; a default of the simulator if absent.
    pub to: Option<&'a str>,
}

/// Names and values, in the order of sending.
pub type Parameters = Vec<(String, String)>;

impl Message<'_> {
    /// Returns the parameters of an inbound message.
    pub fn inbound(&self, body: &str, media: u32) -> Parameters {
        let (from, to) = self.addresses(CUSTOMER, SENDER);
        let segments = if self.channel == Channel::Sms { segments(body) } else { 1 };
        let mut parameters = parameters([
            ("SmsMessageSid", self.message_sid),
            ("NumMedia", &media.to_string()),
            ("SmsSid", self.message_sid),
            ("SmsStatus", "received"),
            ("Body", body),
            ("To", &to),
            ("NumSegments", &segments.to_string()),
            ("MessageSid", self.message_sid),
            ("AccountSid", self.account_sid),
            ("From", &from),
            ("ApiVersion", "2010-04-01"),
        ]);
        match self.channel {
            Channel::Whatsapp => {
                let digits = from.trim_start_matches(|letter: char| !letter.is_ascii_digit());
                parameters.extend(self::parameters([
                    ("ProfileName", "Ada"),
                    ("MessageType", if media == 0 { "text" } else { "image" }),
                    ("ReferralNumMedia", "0"),
                ]));
                // A contact with only a user id has no number.
                parameters.extend(self::parameters([match contact::user_id(&from) {
                    Some(_) => ("ExternalUserId", from.as_str()),
                    None => ("WaId", digits),
                }]));
            }
            // These parameters are often empty in real webhooks, and still part of the signature.
            Channel::Sms => parameters.extend(self::parameters([
                ("ToCountry", "US"),
                ("ToState", ""),
                ("ToCity", ""),
                ("ToZip", ""),
                ("FromCountry", "US"),
                ("FromState", "CA"),
                ("FromCity", "SAN FRANCISCO"),
                ("FromZip", "94105"),
            ])),
        }
        for index in 0..media {
            let url = format!(
                "https://api.twilio.com/2010-04-01/Accounts/{}/Messages/{}/Media/{}",
                self.account_sid,
                self.message_sid,
                self.derived_sid("ME", index)
            );
            parameters.push((format!("MediaContentType{index}"), "image/jpeg".to_owned()));
            parameters.push((format!("MediaUrl{index}"), url));
        }
        parameters
    }

    /// Returns the parameters of a status callback. `sent_at` has Twilio's format YYMMDDhhmm.
    pub fn status(&self, status: &str, error_code: Option<&str>, sent_at: &str) -> Parameters {
        let (from, to) = self.addresses(SENDER, CUSTOMER);
        let mut parameters = parameters([
            ("SmsSid", self.message_sid),
            ("SmsStatus", status),
            ("MessageStatus", status),
            ("To", &to),
            ("MessageSid", self.message_sid),
            ("AccountSid", self.account_sid),
            ("From", &from),
            ("ApiVersion", "2010-04-01"),
        ]);
        let mut add =
            |name: &str, value: &str| parameters.push((name.to_owned(), value.to_owned()));
        if let Some(code) = error_code {
            add("ErrorCode", code);
        }
        match self.channel {
            Channel::Whatsapp => {
                add("ChannelPrefix", "whatsapp");
                add("ChannelInstallSid", &self.derived_sid("XE", 0));
                add("ChannelToAddress", &masked(&to));
                add("StructuredMessage", "false");
                if matches!(status, "read" | "delivered" | "undelivered") {
                    add("EventType", &status.to_ascii_uppercase());
                }
                if error_code.is_some() {
                    add("ChannelStatusMessage", "Message undelivered");
                }
            }
            Channel::Sms if matches!(status, "delivered" | "undelivered") => {
                add("RawDlrDoneDate", sent_at);
            }
            Channel::Sms => {}
        }
        parameters
    }

    /// Returns the parameters of a call: signed by Twilio like all webhooks, but no message.
    pub fn call(&self) -> Parameters {
        let (from, to) = (self.from.unwrap_or(CUSTOMER), self.to.unwrap_or(SENDER));
        parameters([
            ("CallSid", &self.derived_sid("CA", 0)),
            ("AccountSid", self.account_sid),
            ("From", from),
            ("To", to),
            ("CallStatus", "ringing"),
            ("Direction", "inbound"),
            ("ApiVersion", "2010-04-01"),
        ])
    }

    fn addresses(&self, from: &str, to: &str) -> (String, String) {
        let address = |given: Option<&str>, default| {
            let address = given.unwrap_or(default);
            match self.channel {
                Channel::Whatsapp if !address.contains(':') => format!("whatsapp:{address}"),
                _ => address.to_owned(),
            }
        };
        (address(self.from, from), address(self.to, to))
    }

    /// Returns the SID of another resource of this message.
    fn derived_sid(&self, prefix: &str, index: u32) -> String {
        derived_sid(self.message_sid, prefix, index)
    }
}

/// Returns the SID of another resource of a message.
pub(crate) fn derived_sid(message_sid: &str, prefix: &str, index: u32) -> String {
    let hash = hash_body(format!("{message_sid}{prefix}{index}").as_bytes());
    prefix.chars().chain(hash.chars().take(32)).collect()
}

fn parameters<const N: usize>(pairs: [(&str, &str); N]) -> Parameters {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Masks the recipient as Twilio does: the last four digits become X.
fn masked(address: &str) -> String {
    let digits = address.split_once(':').map_or(address, |(_, digits)| digits);
    let shown = digits.chars().count().saturating_sub(4);
    digits.chars().take(shown).chain("XXXX".chars()).collect()
}

/// Replaces the parameter of this name, or adds it.
pub fn set(parameters: &mut Parameters, name: &str, value: &str) {
    match parameters.iter_mut().find(|(have, _)| have == name) {
        Some((_, have)) => value.clone_into(have),
        None => parameters.push((name.to_owned(), value.to_owned())),
    }
}

/// Content of a request besides its URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Parameters in the query.
    Get(Parameters),
    /// Parameters in the body.
    Post(Parameters),
    /// Body that is no form; its hash in the URL binds it to the signature.
    Json(String),
}

/// SignedRequest request, independent of its receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRequest {
    /// HTTP method.
    pub method: &'static str,
    /// Path and query, exactly as signed.
    pub target: String,
    /// Header names and values.
    pub headers: Vec<(&'static str, String)>,
    /// Request body.
    pub body: String,
}

impl SignedRequest {
    /// Signs `content` for `origin` and `target` (path and query). `event` names the event: every attempt to report it
    /// carries the same idempotency token, as Twilio's attempts do.
    pub fn new(origin: &str, target: &str, content: Content, key: &Key, event: &str) -> Self {
        let mut target = target.to_owned();
        let mut headers =
            vec![("User-Agent", "TwilioProxy/1.1".to_owned()), ("Accept", "*/*".to_owned())];
        let (method, body, is_form) = match content {
            Content::Get(parameters) => {
                append_query(&mut target, &encode(&parameters));
                ("GET", String::new(), false)
            }
            Content::Post(parameters) => {
                let form = "application/x-www-form-urlencoded; charset=utf-8";
                headers.push(("Content-Type", form.to_owned()));
                ("POST", encode(&parameters), true)
            }
            Content::Json(body) => {
                headers.push(("Content-Type", "application/json".to_owned()));
                append_query(&mut target, &format!("bodySHA256={}", hash_body(body.as_bytes())));
                ("POST", body, false)
            }
        };
        headers.push(("I-Twilio-Idempotency-Token", idempotency_token(event)));
        let url = format!("{origin}{target}");
        let signature = match Form::parse(body.as_bytes()) {
            Ok(form) if is_form => sign(&url, Payload::Form(&form), key),
            _ => sign(&url, Payload::Empty, key),
        };
        headers.push((SIGNATURE_HEADER, signature));
        Self { method, target, headers, body }
    }
}

fn encode(parameters: &Parameters) -> String {
    Serializer::new(String::new()).extend_pairs(parameters).finish()
}

fn append_query(target: &mut String, query: &str) {
    target.push(if target.contains('?') { '&' } else { '?' });
    target.push_str(query);
}

/// Returns a token in the format of a UUID.
fn idempotency_token(event: &str) -> String {
    let digits: Vec<char> = hash_body(event.as_bytes()).chars().take(32).collect();
    let mut token = String::with_capacity(36);
    for (index, digit) in digits.into_iter().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            token.push('-');
        }
        token.push(digit);
    }
    token
}

#[cfg(test)]
mod tests {
    use super::*;
    use twilio_edge_contract::Class;
    use twilio_edge_filter::form::{SignedParameters, Webhook};
    use twilio_edge_filter::signature::{BodyRule, verify};

    const ACCOUNT: &str = "AC00112233445566778899aabbccddeeff";
    const SID: &str = "SM00112233445566778899aabbccddeeff";
    const ORIGIN: &str = "https://hooks.example.com";

    fn message(channel: Channel) -> Message<'static> {
        Message { account_sid: ACCOUNT, message_sid: SID, channel, from: None, to: None }
    }

    /// Returns the filter's result for a request.
    fn judge(signed: &SignedRequest, class: Class) -> Webhook {
        let key = Key::auth_token("test", "secret").unwrap();
        let header = |name: &str| {
            signed.headers.iter().find(|(have, _)| *have == name).map(|(_, value)| value.as_bytes())
        };
        let body = signed.body.as_bytes();
        let rule = BodyRule::for_request(signed.method.as_bytes(), header("Content-Type"), body);
        let url = format!("{ORIGIN}{}", signed.target);
        let form = Form::parse(rule.parameters(&url, body)).unwrap();
        verify(&url, rule.payload(&form, body), header(SIGNATURE_HEADER), &[key]).unwrap();
        let parameters = SignedParameters {
            in_query: rule != BodyRule::Form,
            ..SignedParameters::posted(&form, rule.parameters(&url, body), &signed.target)
        };
        Webhook::read(class, &parameters).unwrap()
    }

    fn sign(content: Content) -> SignedRequest {
        SignedRequest::new(
            ORIGIN,
            "/hook?a=b%20c",
            content,
            &Key::auth_token("test", "secret").unwrap(),
            SID,
        )
    }

    #[test]
    fn every_kind_passes_the_filter() {
        for channel in [Channel::Whatsapp, Channel::Sms] {
            let message = message(channel);
            for parameters in [message.inbound("Ünï & 😀+", 0), message.inbound("", 10)] {
                for content in [Content::Get(parameters.clone()), Content::Post(parameters)] {
                    let webhook = judge(&sign(content), Class::Inbound);
                    assert_eq!(webhook.identity.unwrap().message_sid, SID);
                    assert_eq!(webhook.from.as_deref(), Some(CUSTOMER));
                }
            }
            let status = message.status("undelivered", Some("30003"), "2611231200");
            let webhook = judge(&sign(Content::Post(status)), Class::Status);
            assert_eq!(webhook.identity.unwrap().error_code.as_deref(), Some("30003"));
            assert_eq!(webhook.to.as_deref(), Some(CUSTOMER));
        }
        judge(&sign(Content::Post(message(Channel::Sms).call())), Class::Other);
        judge(&sign(Content::Json("{\"a\": \"ü\"}".to_owned())), Class::Other);
    }

    #[test]
    fn sid_identifies_one_message() {
        let message = message(Channel::Whatsapp);
        let attempt = || sign(Content::Post(message.inbound("hi", 2)));
        assert_eq!(attempt(), attempt());
        assert!(attempt().body.contains("MediaUrl1=https%3A%2F%2Fapi.twilio.com%2F2010-04-01"));
        let token = idempotency_token("x");
        let parts: Vec<usize> = token.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
    }

    #[test]
    fn masks_are_twilios() {
        assert_eq!(masked("whatsapp:+918489510000"), "+91848951XXXX");
        assert_eq!(masked("123"), "XXXX");
    }
}
