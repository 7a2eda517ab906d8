//! One proven webhook, as the rest of the sidecar uses it: a [`Claim`], or a settlement that replaces one, validated
//! and parsed. The filter decides before this point whether Twilio sent the webhook; this module does not know how.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use twilio_edge_contract::{
    Claim, Class, Delivery, Identity, Opt, Settlement, is_send_id, is_target,
};

use crate::{
    address::Address,
    archive::{ArchivedWebhook, Envelope},
    contact::{self, Link},
    message,
    optout::{Cause, Lexicon},
    phone,
    sending::outcome::is_message_sid,
    trace::Trace,
};

/// Maximum length of a claim id or an identity part, in characters. Twilio's own ids have 34.
const LONGEST_PART: usize = 255;

/// Claim id of an archived webhook, which has no real claim.
const ARCHIVED: &str = "archived";

/// A webhook to claim, or to record after the fact because no sidecar was available when it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Owner token of the claim.
    pub claim_id: String,
    /// Identity of the webhook: account, message, status and error code.
    pub identity: Identity,
    /// Dedupe key, see [`Identity::dedupe_key`].
    pub key: String,
    /// Path of the route.
    pub route: String,
    /// Signed parameters, form-encoded, without NUL bytes, which a text column refuses.
    pub form: String,
    /// Set for an inbound message whose sender has an address that can be answered.
    pub inbound: Option<InboundMessage>,
    /// Set for a status whose contact is known: the two ends of its message.
    pub outbound: Option<Participants>,
    /// True if a status is about a message that the contact sent to us.
    pub is_about_inbound: bool,
    /// True if a status suppresses its recipient because of its error code.
    pub suppresses: bool,
    /// True if a status withdraws its recipient's consent to marketing because of its error code.
    pub withdraws_marketing: bool,
    /// True if the sidecar delivers it instead of the filter, if a sink is configured.
    pub is_ours: bool,
    /// Id of our own message that a status is about, as the signed URL has it.
    pub send_id: Option<String>,
    /// Digest of the signed URL, as in [`Claim::target`].
    pub target: Option<String>,
    /// The same digest where it makes this webhook a later step of its message, with a key of its own.
    pub step: Option<String>,
    /// Trace ids that find its request in other systems.
    pub trace: Trace,
    /// Envelope of its form as it is stored: JSON.
    pub envelope: Option<String>,
}

/// Parsed content of an inbound message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundMessage {
    /// The pair whose conversation window it opens.
    pub participants: Participants,
    /// User ids in the form beside the sender's number.
    pub links: Vec<Link>,
    /// Set when the message is an opt-out, an opt-in or a request for help.
    pub opt: Option<(Opt, Cause)>,
}

/// Two ends of one conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Participants {
    /// The account, which is the tenant.
    pub account_sid: String,
    /// The contact's address, with the channel.
    pub theirs: Address,
    /// Our number or sender on that channel.
    pub ours: String,
}

impl Webhook {
    /// Parses a claim. The error names the field and what is wrong with it.
    pub fn from_claim(claim: Claim, lexicon: &Lexicon) -> Result<Webhook, String> {
        check(&claim.claim_id, &claim.identity)?;
        check_route(&claim.route)?;
        let trace = Trace::of(&claim);
        let envelope = Envelope::of(&claim.envelope, &trace).text();
        let Claim { claim_id, identity, route, form, delivery, send_id, target, .. } = claim;
        let target = target.filter(|target| is_target(target));
        let is_status = identity.class == Class::Status && is_message_sid(&identity.message_sid);
        let send_id = send_id.filter(|id| is_status && is_send_id(id));
        let is_ours = delivery == Delivery::Accept;
        Ok(Webhook {
            trace,
            is_ours,
            send_id,
            target,
            envelope,
            ..Webhook::read(claim_id, identity, route, form, lexicon)
        })
    }

    /// Parses the webhook in a settlement of a webhook that was forwarded without a claim. Returns `None` when it was
    /// claimed.
    pub fn from_settlement(
        settlement: &Settlement,
        lexicon: &Lexicon,
    ) -> Result<Option<Webhook>, String> {
        check(&settlement.claim_id, &settlement.identity)?;
        let Some(unclaimed) = &settlement.unclaimed else { return Ok(None) };
        check_route(&unclaimed.route)?;
        let read = Webhook::read(
            settlement.claim_id.clone(),
            settlement.identity.clone(),
            unclaimed.route.clone(),
            unclaimed.form.clone(),
            lexicon,
        );
        let envelope = Envelope::of(&unclaimed.envelope, &Trace::default()).text();
        Ok(Some(Webhook { envelope, ..read }))
    }

    /// Parses an archived webhook. Its opt-out keywords were applied when it arrived and are not applied again.
    pub fn from_archive(line: ArchivedWebhook) -> Result<Webhook, String> {
        let class = line.class.parse().ok().filter(|class| *class != Class::Other);
        let class = class.ok_or("class: must be inbound or status")?;
        let identity = Identity {
            class,
            account_sid: line.account_sid,
            message_sid: line.message_sid,
            status: line.status,
            error_code: line.error_code,
        };
        check(ARCHIVED, &identity)?;
        let route = line.route.unwrap_or_default();
        check_route(&route)?;
        let read =
            Webhook::read(ARCHIVED.to_owned(), identity, route, line.form, &Lexicon::default());
        Ok(Webhook { envelope: line.envelope.text(), ..read })
    }

    /// Returns the opt-out, opt-in or request for help in the message, if there is one.
    pub fn opt(&self) -> Option<Opt> {
        self.inbound.as_ref()?.opt.map(|(opt, _)| opt)
    }

    /// Returns the two ends of the message, if they are known.
    pub fn participants(&self) -> Option<&Participants> {
        self.inbound.as_ref().map(|inbound| &inbound.participants).or(self.outbound.as_ref())
    }

    /// Returns whether only the ledger can decide if a status is about a message which the contact sent to us. The
    /// status reports a failure, and neither its error code nor the signed URL names the direction of the message. An
    /// error code that suppresses or withdraws never decides the direction, whatever codes the settings list.
    pub fn may_be_about_inbound(&self) -> bool {
        let word = self.identity.status.as_deref().unwrap_or_default();
        let has_effect = self.suppresses || self.withdraws_marketing;
        let code = self.identity.error_code.as_deref().filter(|_| !has_effect);
        self.outbound.is_some()
            && !self.is_about_inbound
            && self.send_id.is_none()
            && message::may_be_of_inbound(word, code)
    }

    /// Parses a status again as one about a message that the contact sent to us.
    pub fn about_inbound(self) -> Webhook {
        let outbound = ends(&self.identity.account_sid, &self.form, true);
        let (suppresses, withdraws_marketing) = (false, false);
        Webhook { outbound, is_about_inbound: true, suppresses, withdraws_marketing, ..self }
    }

    /// Returns the first parameter of that name in its form.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let [parameter] = parameters(&self.form, [name]);
        parameter.map(|parameter| parameter.value().into_owned())
    }

    /// Returns the ordering key: a sink receives all webhooks of one key, that is of one contact, in the order of
    /// arrival.
    pub fn ordering_key(&self) -> String {
        match self.participants() {
            Some(participants) => {
                let person = phone::identity(&participants.theirs.number);
                format!("{}:{}:{person}", participants.account_sid, participants.theirs.channel)
            }
            None => format!("{}:{}", self.identity.account_sid, self.identity.message_sid),
        }
    }

    fn read(
        claim_id: String,
        identity: Identity,
        route: String,
        form: String,
        lexicon: &Lexicon,
    ) -> Webhook {
        // PostgreSQL's text type cannot hold a NUL; its escape means the same in a form.
        let form = if form.contains('\0') { form.replace('\0', "%00") } else { form };
        let account_sid = &identity.account_sid;
        let word = identity.status.as_deref().unwrap_or_default();
        let is_about_inbound = identity.class == Class::Status
            && message::is_of_inbound(word, identity.error_code.as_deref());
        let (inbound, outbound) = match identity.class {
            Class::Inbound => (InboundMessage::read(account_sid, &form, lexicon), None),
            Class::Status => (None, ends(account_sid, &form, is_about_inbound)),
            Class::Other => (None, None),
        };
        let code = identity.error_code.as_deref().filter(|_| outbound.is_some());
        let code = code.filter(|_| !is_about_inbound);
        let suppresses = code.is_some_and(|code| lexicon.suppresses(code));
        let withdraws_marketing = code.is_some_and(|code| lexicon.withdraws_marketing(code));
        let (key, trace) = (identity.dedupe_key(), Trace::default());
        let is_ours = false;
        Webhook {
            claim_id,
            identity,
            key,
            route,
            form,
            inbound,
            outbound,
            is_about_inbound,
            suppresses,
            withdraws_marketing,
            is_ours,
            send_id: None,
            target: None,
            step: None,
            envelope: None,
            trace,
        }
    }
}

impl InboundMessage {
    fn read(account_sid: &str, form: &str, lexicon: &Lexicon) -> Option<InboundMessage> {
        let [from, to, body, opt_out_type, kind, reply @ ..] = parameters(form, READ_OF_INBOUND);
        let participants = Participants::read(account_sid, from?, to)?;
        let opt_out_type = opt_out_type.map(Parameter::value);
        let has_value = |parameter: &Parameter<'_>| !parameter.parts().1.is_empty();
        // A tap on a button of the business (docs: webhook-request): the business chose its texts, not the contact.
        let is_reply = reply.iter().flatten().any(has_value)
            || kind.is_some_and(|kind| matches!(&*kind.value(), "button" | "interactive"));
        let opt = if is_reply {
            let texts: Vec<Cow<'_, str>> =
                reply.into_iter().chain([body]).flatten().map(Parameter::value).collect();
            lexicon.classify_button(texts.iter().map(|text| &**text), opt_out_type.as_deref())
        } else {
            let words = body.filter(|body| !body.has_more_words(lexicon.most_words()));
            let words = words.map(Parameter::value).unwrap_or_default();
            lexicon.classify(&words, opt_out_type.as_deref())
        };
        Some(InboundMessage { links: links(&participants, form), participants, opt })
    }
}

impl InboundMessage {
    /// Returns every key by which the form itself names the sender.
    pub fn keys(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let ids = self.links.iter().map(|link| Cow::Borrowed(link.user_id.as_str()));
        phone::spellings(&self.participants.theirs.number).into_iter().chain(ids)
    }
}

/// Parameters that name a user id beside the sender.
const USER_IDS: [&str; 2] = ["ExternalUserId", "ParentExternalUserId"];

/// Text before every user id in the string that Twilio signs.
const SIGNED_ID: &str = "ExternalUserIdwhatsapp:";

/// Parses the user ids that a form names beside a number. They are certain while the string that Twilio signed has
/// exactly one place for each: a contact who writes such a name into a message may have moved it (docs/SIGNATURES.md).
fn links(participants: &Participants, form: &str) -> Vec<Link> {
    if participants.theirs.channel != contact::CHANNEL
        || !phone::is_e164(&participants.theirs.number)
    {
        return Vec::new();
    }
    let ids = parameters(form, USER_IDS).into_iter().flatten();
    let ids: Vec<String> = ids.filter_map(|id| contact::user_id(&id.value())).collect();
    if ids.is_empty() {
        return Vec::new();
    }
    let mut pairs: Vec<_> = form_urlencoded::parse(form.as_bytes()).collect();
    pairs.sort();
    let signed: String = pairs.iter().flat_map(|(name, value)| [&**name, &**value]).collect();
    let is_certain = signed.matches(SIGNED_ID).count() == ids.len();
    let link = |user_id| Link {
        account_sid: participants.account_sid.clone(),
        number: participants.theirs.number.clone(),
        user_id,
        is_certain,
    };
    ids.into_iter().map(link).collect()
}

impl Participants {
    fn read(
        account_sid: &str,
        theirs: Parameter<'_>,
        ours: Option<Parameter<'_>>,
    ) -> Option<Participants> {
        let theirs = Address::parse(&theirs.value())?;
        let ours = ours.and_then(|ours| Address::parse(&ours.value()));
        let ours = ours.map(|ours| ours.number).unwrap_or_default();
        Some(Participants { account_sid: account_sid.to_owned(), theirs, ours })
    }
}

/// Returns whether a form names this number as the sender, and not as the recipient.
pub fn is_from(form: &str, number: &str) -> bool {
    let [from, to] = parameters(form, ["From", "To"])
        .map(|end| end.and_then(|end| Address::parse(&end.value())).map(|address| address.number));
    from.as_deref() == Some(number) && to.as_deref() != Some(number)
}

/// Parameters of an inbound message that decide who sent it and whether it opts out. The parameters of replies come
/// last.
const READ_OF_INBOUND: [&str; 9] = [
    "From",
    "To",
    "Body",
    "OptOutType",
    "MessageType",
    "ButtonText",
    "ButtonPayload",
    "ListTitle",
    "ListId",
];

/// Parses the two ends of a status's message. A Messaging Service may not have chosen `From` yet, so it may be missing
/// or empty. The contact is the recipient, or the sender if the message was inbound.
fn ends(account_sid: &str, form: &str, is_about_inbound: bool) -> Option<Participants> {
    let [from, to] = parameters(form, ["From", "To"]);
    match is_about_inbound {
        true => Participants::read(account_sid, from?, to),
        false => Participants::read(account_sid, to?, from),
    }
}

/// Returns the first parameter of each name. The filter rejects repeated single-valued fields, and verified the first
/// one. Decoding the whole form for a few fields would be most of the cost of parsing a claim.
fn parameters<'a, const N: usize>(form: &'a str, names: [&str; N]) -> [Option<Parameter<'a>>; N] {
    let mut found = [const { None }; N];
    let mut start = 0;
    let ends = memchr::memchr_iter(b'&', form.as_bytes()).chain([form.len()]);
    for end in ends {
        let parameter = Parameter(form.get(start..end).unwrap_or_default());
        start = end.saturating_add(1);
        // Twilio does not escape the known names; an escaped name means the same.
        let first = parameter.0.as_bytes().first();
        let may_be_wanted =
            first == Some(&b'%') || names.iter().any(|wanted| wanted.as_bytes().first() == first);
        if !may_be_wanted {
            continue;
        }
        let name = parameter.name();
        let wanted = names.iter().position(|wanted| *wanted == name);
        if let Some(place) = wanted.and_then(|wanted| found.get_mut(wanted)) {
            place.get_or_insert(parameter);
        }
    }
    found
}

/// One parameter as it is encoded in the form: `Body=Hello+there`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parameter<'a>(&'a str);

impl<'a> Parameter<'a> {
    /// Returns the encoded name and value.
    fn parts(self) -> (&'a str, &'a str) {
        let equals = memchr::memchr(b'=', self.0.as_bytes()).unwrap_or(self.0.len());
        let (name, value) = self.0.split_at_checked(equals).unwrap_or((self.0, ""));
        (name, value.get(1..).unwrap_or_default())
    }

    fn name(self) -> Cow<'a, str> {
        decoded(self.parts().0)
    }

    fn value(self) -> Cow<'a, str> {
        decoded(self.parts().1)
    }

    /// Returns whether the value certainly has more than `most` words. It rules out a keyword without decoding most
    /// messages.
    fn has_more_words(self, most: usize) -> bool {
        let (_, value) = self.parts();
        let has_letter = |word: &&str| {
            let mut parts = word.split('%');
            let plain = parts.next().unwrap_or_default();
            let escaped = parts.filter_map(|part| part.get(2..));
            let mut parts = [plain].into_iter().chain(escaped);
            parts.any(|part| part.bytes().any(|byte| byte.is_ascii_alphanumeric()))
        };
        value.split('+').filter(has_letter).nth(most).is_some()
    }
}

/// Decodes form text as the filter does: an invalid escape stays as it is, and invalid UTF-8 becomes U+FFFD.
fn decoded(text: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'%', b'+', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    if memchr::memchr(b'+', text.as_bytes()).is_none() {
        return percent_decode_str(text).decode_utf8_lossy();
    }
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned().into()
}

fn check(claim_id: &str, identity: &Identity) -> Result<(), String> {
    if identity.class == Class::Other {
        return Err("class: must be inbound or status".into());
    }
    part("claim_id", claim_id)?;
    part("account_sid", &identity.account_sid)?;
    part("message_sid", &identity.message_sid)?;
    match (identity.class, &identity.status) {
        (Class::Status, None) => {
            return Err("status: is required for a status callback".into());
        }
        (_, Some(status)) => part("status", status)?,
        (_, None) => {}
    }
    identity.error_code.as_deref().map_or(Ok(()), |code| part("error_code", code))
}

/// Validates one part. A `:` in it would let two identities share a dedupe key.
fn part(name: &str, value: &str) -> Result<(), String> {
    // Twilio's own ids are ASCII: this fast path neither decodes characters nor finds the position of a bad one.
    let is_short = (1..=LONGEST_PART).contains(&value.len());
    let refused = |byte: u8| (byte == b':') | byte.is_ascii_control();
    let has_refused = || value.bytes().fold(false, |found, byte| found | refused(byte));
    if is_short && value.is_ascii() && !has_refused() {
        return Ok(());
    }
    if value.is_empty() || value.chars().count() > LONGEST_PART {
        return Err(format!("{name}: must have 1 to {LONGEST_PART} characters"));
    }
    match value.chars().find(|c| *c == ':' || c.is_control()) {
        Some(c) => Err(format!("{name}: must not contain {c:?}")),
        None => Ok(()),
    }
}

fn check_route(route: &str) -> Result<(), String> {
    match route.chars().any(char::is_control) {
        true => Err("route: must not contain control characters".into()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(form: &str) -> Claim {
        let identity = Identity {
            class: Class::Inbound,
            account_sid: "AC1".into(),
            message_sid: "SM1".into(),
            status: None,
            error_code: None,
        };
        Claim::new("c1".into(), identity, "/in".into(), form.into())
    }

    fn read(form: &str) -> Webhook {
        Webhook::from_claim(
            claim(form),
            &crate::defaults::section::<crate::optout::Keywords>("optout").lexicon().unwrap(),
        )
        .unwrap()
    }

    proptest! {
        /// Expected result: the first parameters of the whole form, decoded.
        #[test]
        fn parameters_are_those_of_the_form(form in "([FTo%+=&a46rm]|From=|To=|&|=|%46rom|Fr%6Fm|é|%ff){0,16}") {
            let first = |wanted: &str| {
                let mut all = form_urlencoded::parse(form.as_bytes());
                all.find(|(name, _)| name == wanted).map(|(_, value)| value)
            };
            let found = parameters(&form, ["From", "To"]).map(|found| found.map(Parameter::value));
            prop_assert_eq!(found, [first("From"), first("To")]);
        }

        /// A body that is not decoded is never a keyword.
        #[test]
        fn words_are_words(body in "([a-z0-9é+&=!]|%[0-9A-F]{2}|%|%C3%A9|STOP|%20){0,8}") {
            let parameter = Parameter(&body);
            if parameter.has_more_words(1) {
                let value = parameter.value();
                let words = value.split_whitespace();
                let words = words.filter(|word| word.chars().any(char::is_alphanumeric));
                prop_assert!(words.count() > 1, "{}", value);
            }
        }
    }

    #[test]
    fn a_whatsapp_stop_is_read_from_its_form() {
        let webhook = read("From=whatsapp%3A%2B15551234567&To=whatsapp%3A%2B15559&Body=+Stop%21");
        let inbound = webhook.inbound.unwrap();
        assert_eq!(inbound.participants.theirs, Address::parse("whatsapp:+15551234567").unwrap());
        assert_eq!(inbound.participants.ours, "+15559");
        assert_eq!(inbound.opt, Some((Opt::Stop, Cause::Keyword)));
        assert_eq!(webhook.key, "inbound:AC1:SM1");
    }

    #[test]
    fn user_id_beside_a_number_is_linked_and_certain_if_it_has_one_place() {
        let links = |rest: &str| {
            let form = format!("From=whatsapp%3A%2B14155557903&To=whatsapp%3A%2B15559&{rest}");
            read(&form).inbound.unwrap().links
        };
        let found = links("Body=hi&ExternalUserId=whatsapp%3AUS.3149&Username=ada");
        let link = Link {
            account_sid: "AC1".into(),
            number: "+14155557903".into(),
            user_id: "US.3149".into(),
            is_certain: true,
        };
        assert_eq!(found, [link]);
        let found = links(
            "Body=hi&ExternalUserId=whatsapp%3AUS.3149&ParentExternalUserId=whatsapp%3AUS.ENT.7",
        );
        assert!(found.len() == 2 && found.iter().all(|link| link.is_certain), "{found:?}");
        // The writer's own id is hidden in a parameter name that Twilio does not document.
        for cut in [
            "Body=hi&ExternalUserId=whatsapp%3AUS.1&ExternalUserIdw=hatsapp%3AUS.3149",
            "Body=hi+ExternalUserIdwhatsapp%3AUS.1&ExternalUserId=whatsapp%3AUS.3149",
        ] {
            assert!(links(cut).iter().all(|link| !link.is_certain), "{cut}");
        }
        for none in [
            "Body=hi",
            "ExternalUserId=US.3149",
            "ExternalUserId=whatsapp%3Aus.1",
            "ExternalUserId=whatsapp%3AUS.3whatsapp%3AUS.1",
        ] {
            assert_eq!(links(none), [], "{none}");
        }
        let by_id = read(
            "From=whatsapp%3AUS.3149&To=whatsapp%3A%2B15559&ExternalUserId=whatsapp%3AUS.3149",
        );
        assert_eq!(by_id.inbound.unwrap().links, []);
    }

    #[test]
    fn a_status_is_about_whom_we_wrote_to() {
        let form = "MessageStatus=sent&To=whatsapp%3A%2B15551234567&From=whatsapp%3A%2B15559";
        let mut claim = claim(form);
        (claim.identity.class, claim.identity.status) = (Class::Status, Some("sent".into()));
        let webhook = Webhook::from_claim(claim, &Lexicon::default()).unwrap();
        assert_eq!(webhook.inbound, None, "it opens no window");
        let participants = webhook.participants().unwrap();
        assert_eq!(participants.theirs, Address::parse("whatsapp:+15551234567").unwrap());
        assert_eq!(participants.ours, "+15559");
    }

    fn status(form: &str, word: &str, code: Option<&str>) -> Webhook {
        let mut claim = claim(form);
        (claim.identity.class, claim.identity.status) = (Class::Status, Some(word.into()));
        claim.identity.error_code = code.map(Into::into);
        let lexicon =
            crate::defaults::section::<crate::optout::Keywords>("optout").lexicon().unwrap();
        Webhook::from_claim(claim, &lexicon).unwrap()
    }

    #[test]
    fn status_without_sender_is_about_its_recipient() {
        for form in ["To=%2B15551234567", "From=&To=%2B15551234567", "From=+&To=%2B15551234567"] {
            let webhook = status(form, "failed", Some("21610"));
            let participants = webhook.outbound.clone().unwrap();
            assert_eq!(participants.theirs, Address::parse("+15551234567").unwrap(), "{form}");
            assert_eq!(participants.ours, "", "{form}");
            assert!(webhook.suppresses, "{form}");
            assert_eq!(webhook.ordering_key(), "AC1:sms:+15551234567");
        }
    }

    #[test]
    fn status_of_an_inbound_message_is_about_its_sender() {
        let form = "From=%2B15551234567&To=%2B15550000001";
        for (word, code) in
            [("failed", Some("30039")), ("receiving", None), ("received", Some("21610"))]
        {
            let webhook = status(form, word, code);
            assert_eq!(webhook.ordering_key(), "AC1:sms:+15551234567", "{word}");
            assert!(webhook.is_about_inbound && !webhook.suppresses, "{word}");
        }
        let failed = status(form, "failed", Some("21610"));
        assert_eq!(failed.ordering_key(), "AC1:sms:+15550000001");
        let known = failed.about_inbound();
        assert_eq!(known.ordering_key(), "AC1:sms:+15551234567");
        assert!(!known.suppresses);
    }

    #[test]
    fn failure_is_looked_up_only_where_it_may_be_of_an_inbound_message() {
        let form = "From=%2B15551234567&To=%2B15550000001";
        for (word, code, may_be) in [
            ("failed", None, true),
            ("failed", Some("30009"), true),
            ("failed", Some("99999"), true),
            // Its error code would suppress.
            ("failed", Some("21610"), true),
            ("failed", Some("30003"), false),
            ("failed", Some("63016"), false),
            ("undelivered", None, false),
            ("delivered", None, false),
            ("sent", Some("99999"), false),
            // The status itself already names the direction.
            ("failed", Some("30039"), false),
            ("receiving", None, false),
        ] {
            let webhook = status(form, word, code);
            assert_eq!(webhook.may_be_about_inbound(), may_be, "{word} {code:?}");
        }
        let own = Webhook { send_id: Some("ms_1".into()), ..status(form, "failed", None) };
        assert!(!own.may_be_about_inbound(), "the signed URL names a message of ours");
        assert!(!status("Body=x", "failed", None).may_be_about_inbound(), "nobody is named");
    }

    #[test]
    fn reply_by_button_opts_out_by_an_unambiguous_word_only() {
        let opt = |rest: &str| {
            let form = format!("From=whatsapp%3A%2B15551234567&To=whatsapp%3A%2B15559&{rest}");
            read(&form).inbound.unwrap().opt
        };
        let stop = Some((Opt::Stop, Cause::Keyword));
        for rest in [
            "Body=Cancel&ButtonText=Cancel&ButtonPayload=appt_cancel_123&MessageType=button",
            "Body=Yes&ButtonText=Yes",
            "Body=End&ListTitle=End&ListId=row_9",
            "Body=Quit&MessageType=interactive",
            "Body=Start&ButtonPayload=START",
        ] {
            assert_eq!(opt(rest), None, "{rest}");
        }
        for rest in [
            "Body=Stop&ButtonText=Stop&ButtonPayload=x1",
            "Body=No+more+offers&ButtonText=No+more+offers&ButtonPayload=STOP",
            "Body=Unsubscribe&ListTitle=Unsubscribe&ListId=1",
            "Body=Cancel&ButtonText=&ButtonPayload=&MessageType=text",
            "Body=Cancel&MessageType=text",
        ] {
            assert_eq!(opt(rest), stop, "{rest}");
        }
        let twilios = opt("Body=Cancel&ButtonText=Cancel&OptOutType=STOP");
        assert_eq!(twilios, Some((Opt::Stop, Cause::OptOutType)));
    }

    #[test]
    fn a_form_nobody_can_be_answered_from_is_kept_all_the_same() {
        let webhook = read("Body=STOP");
        assert_eq!(webhook.inbound, None);
        assert_eq!(webhook.form, "Body=STOP");
    }

    #[test]
    fn no_form_can_hold_what_a_text_column_refuses() {
        assert_eq!(read("From=%2B1&Body=a\0b").form, "From=%2B1&Body=a%00b");
    }

    #[test]
    fn what_the_stores_rely_on_is_checked_with_the_name_of_the_field() {
        let lexicon = Lexicon::default();
        let refused = |change: fn(&mut Claim)| {
            let mut claim = claim("Body=hi");
            change(&mut claim);
            Webhook::from_claim(claim, &lexicon).unwrap_err()
        };
        assert!(refused(|c| c.claim_id.clear()).starts_with("claim_id:"));
        assert!(refused(|c| c.claim_id = "x".repeat(256)).starts_with("claim_id:"));
        assert!(refused(|c| c.identity.account_sid = "AC:1".into()).starts_with("account_sid:"));
        assert!(refused(|c| c.identity.message_sid = "SM\0".into()).starts_with("message_sid:"));
        assert!(refused(|c| c.identity.class = Class::Other).starts_with("class:"));
        assert!(refused(|c| c.identity.class = Class::Status).starts_with("status:"));
        assert!(refused(|c| c.route = "/\n".into()).starts_with("route:"));
    }
}
