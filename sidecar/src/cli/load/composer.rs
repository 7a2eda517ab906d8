//! Composer of the signed webhooks of a run.

use twilio_edge_filter::signature::Key;
use twilio_edge_simulator::webhook::{Channel, Content, Message, SignedRequest};

use super::mix::{Kind, Mix, Planned};

/// Auth token of forged webhooks; no account has it.
const WRONG_TOKEN: &str = "not-the-token-of-this-account-00";

/// Contacts of a run. Their number limits the rows that a run leaves in the edge's database.
const CONTACTS: u64 = 10_000;

/// Mark of the MessageSids of status callbacks, which distinguishes them from those of inbound messages.
const OUTBOUND: u64 = 1 << 63;

/// Texts of contacts; none is an opt-out keyword. `#` becomes a number.
const TEXTS: [&str; 10] = [
    "Hello, where is my order #?",
    "Thank you very much!",
    "Can you deliver order # on Friday after 6 pm?",
    "The parcel # arrived, but one cup is broken. What can we do?",
    "ok 👍",
    "Grüße aus Köln: # 17 & 18 bitte zurück",
    "Please call me back about invoice #, I am at home until noon",
    "我的订单 # 什么时候到?",
    "We would like to change the booking # to two rooms & a late arrival. There are four of us, and one of the \
     children needs a cot. If that costs more, write to us first, please.",
    "Is code # still valid = yes or no?",
];

/// Run whose webhooks are composed.
#[derive(Debug)]
pub(super) struct Composer {
    /// Shares of the kinds.
    pub(super) mix: Mix,
    /// Random number in all SIDs of the run.
    pub(super) run: u64,
    /// Account of the webhooks.
    pub(super) account_sid: String,
    /// Key of the account.
    pub(super) key: Key,
    /// Signed origin.
    pub(super) origin: String,
    /// Path and query of inbound messages.
    pub(super) inbound_path: String,
    /// Path and query of status callbacks.
    pub(super) status_path: String,
    /// Channel; both if absent.
    pub(super) channel: Option<Channel>,
    /// Our number; the simulator's default if absent.
    pub(super) sender: Option<String>,
    /// Time of delivery in status callbacks, in Twilio's format YYMMDDhhmm.
    pub(super) sent_at: String,
}

impl Composer {
    /// Returns number `n` of the run, signed. A repeat is the same request as its original.
    pub(super) fn webhook(&self, n: u64) -> (Kind, SignedRequest) {
        let Planned { kind, content } = self.mix.planned(n);
        let wrong_key = match kind {
            Kind::Forged => Key::auth_token("none", WRONG_TOKEN),
            _ => None,
        };
        let key = wrong_key.as_ref().unwrap_or(&self.key);
        let signed = match self.mix.is_inbound(content) {
            true => self.inbound(content, key),
            false => self.status(content, key),
        };
        (kind, signed)
    }

    /// Returns the beginning that the MessageSids of the run share.
    pub(super) fn sid_prefix(&self) -> String {
        format!("SM{:016x}", self.run)
    }

    fn inbound(&self, content: u64, key: &Key) -> SignedRequest {
        let (sid, contact) = (self.message_sid(content), self.contact(content));
        let message = Message {
            account_sid: &self.account_sid,
            message_sid: &sid,
            channel: self.channel(content),
            from: Some(&contact),
            to: self.sender.as_deref(),
        };
        let text = TEXTS.get((scattered(self.run ^ content) % TEXTS.len() as u64) as usize);
        let text = text.unwrap_or(&"Hello").replace('#', &(100_000 + content).to_string());
        let parameters = Content::Post(message.inbound(&text, 0));
        SignedRequest::new(&self.origin, &self.inbound_path, parameters, key, &sid)
    }

    fn status(&self, content: u64, key: &Key) -> SignedRequest {
        let number = self.mix.status(content);
        let outbound = OUTBOUND | number.message;
        let (sid, contact) = (self.message_sid(outbound), self.contact(outbound));
        let channel = self.channel(outbound);
        let message = Message {
            account_sid: &self.account_sid,
            message_sid: &sid,
            channel,
            from: self.sender.as_deref(),
            to: Some(&contact),
        };
        let statuses = match channel {
            Channel::Whatsapp => ["sent", "delivered", "read"],
            Channel::Sms => ["queued", "sent", "delivered"],
        };
        let status = statuses.get(number.step).copied().unwrap_or("delivered");
        let parameters = Content::Post(message.status(status, None, &self.sent_at));
        let event = format!("{sid}{status}");
        SignedRequest::new(&self.origin, &self.status_path, parameters, key, &event)
    }

    fn message_sid(&self, message: u64) -> String {
        format!("{}{message:016x}", self.sid_prefix())
    }

    fn channel(&self, message: u64) -> Channel {
        let usual =
            if scattered(message).is_multiple_of(2) { Channel::Whatsapp } else { Channel::Sms };
        self.channel.unwrap_or(usual)
    }

    /// Returns a number in the area code 555, which no telephone has.
    fn contact(&self, message: u64) -> String {
        format!("+15552{:06}", scattered(self.run ^ message) % CONTACTS)
    }
}

/// Returns a number that looks random and depends on `n` alone (splitmix64).
fn scattered(n: u64) -> u64 {
    let mut bits = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use twilio_edge_contract::Class;
    use twilio_edge_filter::form::{Form, SignedParameters, Webhook, is_opt_keyword};
    use twilio_edge_filter::signature::{BodyRule, verify};
    use twilio_edge_simulator::webhook::SIGNATURE_HEADER;

    use super::*;

    fn usual() -> Composer {
        Composer {
            mix: Mix { inbound: 30, repeats: 5, forged: 1, rate: 50 },
            run: 0x0123_4567_89ab_cdef,
            account_sid: "AC00112233445566778899aabbccddeeff".to_owned(),
            key: Key::auth_token("test", "secret").unwrap(),
            origin: "https://hooks.example.com".to_owned(),
            inbound_path: "/in".to_owned(),
            status_path: "/status?a=b".to_owned(),
            channel: None,
            sender: None,
            sent_at: "2611231200".to_owned(),
        }
    }

    /// Returns what the filter reads in a request, or `None` if the signature is wrong.
    fn judged(signed: &SignedRequest) -> Option<Webhook> {
        let class = if signed.target == "/in" { Class::Inbound } else { Class::Status };
        let header = |name: &str| {
            signed.headers.iter().find(|(have, _)| *have == name).map(|(_, value)| value.as_bytes())
        };
        let body = signed.body.as_bytes();
        let rule = BodyRule::for_request(signed.method.as_bytes(), header("Content-Type"), body);
        let url = format!("https://hooks.example.com{}", signed.target);
        let form = Form::parse(rule.parameters(&url, body)).unwrap();
        let keys = [Key::auth_token("test", "secret").unwrap()];
        verify(&url, rule.payload(&form, body), header(SIGNATURE_HEADER), &keys).ok()?;
        let parameters =
            SignedParameters::posted(&form, rule.parameters(&url, body), &signed.target);
        Some(Webhook::read(class, &parameters).unwrap())
    }

    #[test]
    fn filter_accepts_the_genuine_webhooks_and_no_other() {
        let composer = usual();
        for n in 0..1000 {
            let (kind, signed) = composer.webhook(n);
            assert_eq!(judged(&signed).is_some(), kind.is_genuine(), "{n}: {kind:?} {signed:?}");
        }
    }

    #[test]
    fn webhooks_are_unique_and_repeats_are_the_same_request() {
        let composer = usual();
        let mut seen = HashMap::new();
        for n in 0..2000 {
            let (kind, signed) = composer.webhook(n);
            match kind {
                Kind::Repeat => assert_eq!(seen.get(&signed.body), Some(&signed)),
                _ => assert_eq!(seen.insert(signed.body.clone(), signed), None, "{n}: {kind:?}"),
            }
        }
        let other = Composer { run: 1, ..usual() };
        assert_eq!(seen.get(&other.webhook(0).1.body), None);
    }

    #[test]
    fn no_text_is_an_opt_out_keyword() {
        for text in TEXTS {
            assert!(!is_opt_keyword(&text.replace('#', "1")) && !is_opt_keyword(text), "{text}");
        }
    }

    #[test]
    fn contacts_have_fictional_numbers() {
        let composer = usual();
        for n in 0..1000 {
            let contact = composer.contact(n);
            assert!(contact.starts_with("+1555") && contact.len() == 12, "{contact}");
        }
    }
}
