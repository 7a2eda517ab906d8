//! One proven webhook, as the rest of the sidecar uses it: a [`Claim`], or a settlement that replaces one, validated
//! and parsed. The filter decides before this point whether Twilio sent the webhook; this module does not know how.

mod form;
mod validation;

use std::borrow::Cow;

use twilio_edge_contract::{
    Claim, Class, Delivery, Identity, Opt, Settlement, is_message_id, is_url_digest,
};

use crate::{
    address::Address,
    archive::{ArchivedWebhook, Envelope},
    contact::{self, Link},
    dropin::resource::id_of_sid,
    message,
    optout::{Cause, Lexicon},
    phone,
    sending::outcome::is_message_sid,
    trace::Trace,
};
use form::{Parameter, parameters};
use validation::{check, check_route};

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
    /// Set for an inbound message if its sender has an address that can be answered.
    pub inbound: Option<InboundMessage>,
    /// Set for a status if its contact is known: the two ends of its message.
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
    pub message_id: Option<String>,
    /// Digest of the signed URL, as in [`Claim::url_digest`].
    pub url_digest: Option<String>,
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
    /// Participants of the conversation; the message opens its window.
    pub participants: Participants,
    /// User ids in the form beside the sender's number.
    pub links: Vec<Link>,
    /// Set when the message is an opt-out, an opt-in or a request for help.
    pub opt: Option<(Opt, Cause)>,
    /// Languages of the keyword; empty if it belongs to all languages.
    pub languages: Vec<String>,
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
        let Claim { claim_id, identity, route, form, delivery, message_id, url_digest, .. } = claim;
        let url_digest = url_digest.filter(|digest| is_url_digest(digest));
        let is_status = identity.class == Class::Status && is_message_sid(&identity.message_sid);
        let message_id = message_id.filter(|id| is_status && is_message_id(id));
        let is_ours = delivery == Delivery::Accept;
        Ok(Webhook {
            trace,
            is_ours,
            message_id,
            url_digest,
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
    /// error code that suppresses or withdraws never decides the direction, with any codes in the settings.
    pub fn may_be_about_inbound(&self) -> bool {
        let word = self.identity.status.as_deref().unwrap_or_default();
        let has_effect = self.suppresses || self.withdraws_marketing;
        let code = self.identity.error_code.as_deref().filter(|_| !has_effect);
        self.outbound.is_some()
            && !self.is_about_inbound
            && self.message_id.is_none()
            && message::may_be_of_inbound(word, code)
    }

    /// Returns the id of the message whose end a status with an effect on consent reports, if the sidecar itself sent it: its SID
    /// is derived from that id. The caller has to check that there is such a message.
    pub fn id_of_own_message(&self) -> Option<String> {
        let has_effect = self.suppresses || self.withdraws_marketing;
        id_of_sid(&self.identity.message_sid).filter(|id| has_effect && is_message_id(id))
    }

    /// Returns the status without an effect on consent.
    #[must_use]
    pub fn without_effect_on_consent(self) -> Webhook {
        Webhook { suppresses: false, withdraws_marketing: false, ..self }
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
                contact_ordering_key(&participants.account_sid, &participants.theirs)
            }
            None => subject_ordering_key(&self.identity.account_sid, &self.identity.message_sid),
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
            message_id: None,
            url_digest: None,
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
        let (opt, languages): (_, &[String]) = if is_reply {
            let texts: Vec<Cow<'_, str>> =
                reply.into_iter().chain([body]).flatten().map(Parameter::value).collect();
            let texts = || texts.iter().map(|text| &**text);
            let mut languages = texts().map(|text| lexicon.languages(text));
            let languages = languages.find(|languages| !languages.is_empty());
            let opt = lexicon.classify_button(texts(), opt_out_type.as_deref());
            (opt, languages.unwrap_or_default())
        } else {
            let words = body.filter(|body| !body.has_more_words(lexicon.most_words()));
            let words = words.map(Parameter::value).unwrap_or_default();
            let opt = lexicon.classify(&words, opt_out_type.as_deref());
            (opt, if opt.is_some() { lexicon.languages(&words) } else { &[] })
        };
        let languages = if opt.is_some() { languages.to_vec() } else { Vec::new() };
        Some(InboundMessage { links: links(&participants, form), participants, opt, languages })
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

/// Returns the ordering key of everything about one contact on one channel.
pub fn contact_ordering_key(account_sid: &str, contact: &Address) -> String {
    format!("{account_sid}:{}:{}", contact.channel, phone::identity(&contact.number))
}

/// Returns the ordering key of everything about one object that has no contact.
pub fn subject_ordering_key(account_sid: &str, subject: &str) -> String {
    format!("{account_sid}:{subject}")
}

#[cfg(test)]
mod tests;
