//! The typed view of signed parameters: class, identity, addresses.
//!
//! Decides: the required fields of each class, their shapes, and the fields that must agree.

use twilio_edge_contract::{Class, Identity};

use super::value_shapes::{
    self, Address, is_account_sid, is_api_version, is_digits, is_error_code, is_message_sid,
    is_service_sid, is_status, is_word, split_address,
};
use super::{Field, Form, SignedText, is_utf8_once_decoded, recut};
use crate::opt_out::may_change_consent;

/// Number of final digits that both spellings of a phone number share. Numbers of Mexico, Brazil, Argentina, Ivory Coast
/// and Benin have a spelling with one or two more digits after the country code.
const SHARED_DIGITS: usize = 7;

/// Reason why signed parameters are not a webhook of the route's class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShapeError {
    /// A required field is absent or empty.
    Missing(&'static str),
    /// A field does not have the form that Twilio documents.
    Malformed(&'static str),
    /// A single-valued field came more than once.
    Repeated(&'static str),
    /// Two fields with the same meaning differ, or the presence of one contradicts the others.
    Contradictory(&'static str),
    /// The signed text can be cut so that this field has another value.
    Ambiguous(&'static str),
    /// An unknown parameter stands where it may be the end of this field's value.
    Unknown(&'static str),
    /// A name is not one that Twilio could have given a parameter.
    MalformedName,
    /// A value is not UTF-8. Twilio never sends that, and different bytes would share one signature.
    NotUtf8,
    /// A status callback on a route for messages, or the other way round.
    WrongClass,
}

/// Parameters whose signature is proven, and the rest of what was signed.
#[derive(Debug, Clone, Copy)]
pub struct SignedParameters<'a> {
    /// The parameters.
    pub form: &'a Form<'a>,
    /// Their undecoded bytes.
    pub raw: &'a [u8],
    /// Path and query, which were signed before them.
    pub target: &'a str,
    /// True if the parameters are the query of the target. Their separators are signed then.
    pub in_query: bool,
    /// True if Twilio may call this URL with GET as well, so that the text of a GET may come as a form.
    pub accepts_get: bool,
    /// Names of further parameters that the operator has configured.
    pub known: &'a [String],
    /// The text that was signed, if the caller has built it already.
    pub text: Option<&'a SignedText<'a>>,
}

impl<'a> SignedParameters<'a> {
    /// Creates the parameters of a form that was posted to `target`, on a route that accepts nothing else.
    pub fn posted(form: &'a Form<'a>, raw: &'a [u8], target: &'a str) -> Self {
        Self { form, raw, target, in_query: false, accepts_get: false, known: &[], text: None }
    }
}

/// A webhook whose signature is proven and whose cut is unambiguous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Identity for deduplication; none for [`Class::Other`].
    pub identity: Option<Identity>,
    /// Class of the webhook's route.
    pub class: Class,
    /// Sender, without channel prefix. A status callback may have none.
    pub from: Option<String>,
    /// Recipient, without channel prefix.
    pub to: Option<String>,
    /// `sms`, or the channel prefix of the addresses.
    pub channel: Option<String>,
    /// True if the webhook may record an opt-out or an opt-in.
    pub may_change_consent: bool,
}

impl Webhook {
    /// Reads the webhook that a route of class `class` expects.
    ///
    /// # Errors
    ///
    /// Returns the first reason not to trust the parameters. Class `other` has no required fields, so it only refuses text
    /// that is not UTF-8.
    pub fn read(class: Class, signed: &SignedParameters<'_>) -> Result<Self, ShapeError> {
        let form = signed.form;
        if !is_utf8_once_decoded(form, signed.raw) {
            return Err(ShapeError::NotUtf8);
        }
        if class == Class::Other {
            return Ok(Self {
                identity: None,
                class,
                from: None,
                to: None,
                channel: None,
                may_change_consent: false,
            });
        }
        if let Some(field) = form.repeated {
            return Err(ShapeError::Repeated(field.as_str()));
        }
        let account_sid = required(form, Field::AccountSid, is_account_sid)?;
        let message_sid = required(form, Field::MessageSid, is_message_sid)?;
        let from = sender(class, form)?;
        let to = required(form, Field::To, |text| value_shapes::address(text).is_some())?;
        // Only a status callback has MessageStatus. An inbound message may carry an ErrorCode:
        // that is how Twilio calls the fallback URL.
        let status = match (class, form.field(Field::MessageStatus)) {
            (Class::Status, Some(_)) => {
                Some(required(form, Field::MessageStatus, is_status)?.to_owned())
            }
            (Class::Status, None) => return Err(ShapeError::WrongClass),
            (_, Some(_)) => return Err(ShapeError::WrongClass),
            (_, None) => None,
        };
        let error_code = optional(form, Field::ErrorCode, is_error_code)?;
        check_shapes(form)?;
        check_agreement(class, form, message_sid, status.as_deref(), from, to)?;
        recut::check(class, signed, from, to)?;
        let (channel, to) = split_address(to);
        let from = from.map(|from| split_address(from).1.to_owned());
        let error_code = error_code.filter(|_| class == Class::Status).map(str::to_owned);
        Ok(Self {
            identity: Some(Identity {
                class,
                account_sid: account_sid.to_owned(),
                message_sid: message_sid.to_owned(),
                status,
                error_code,
            }),
            class,
            from,
            to: Some(to.to_owned()),
            channel: Some(channel.to_owned()),
            may_change_consent: may_change_consent(class, form),
        })
    }
}

/// Returns the sender. A Messaging Service chooses it late, so a status callback may have none, or an empty one.
fn sender<'f>(class: Class, form: &'f Form<'_>) -> Result<Option<&'f str>, ShapeError> {
    let is_address = |text: &str| value_shapes::address(text).is_some();
    match class {
        Class::Status => optional(form, Field::From, is_address),
        Class::Inbound | Class::Other => required(form, Field::From, is_address).map(Some),
    }
}

/// Checks the fields whose documented shape leaves no room for other text.
fn check_shapes(form: &Form<'_>) -> Result<(), ShapeError> {
    let flag = |text: &str| matches!(text, "true" | "false");
    optional(form, Field::ApiVersion, is_api_version)?;
    optional(form, Field::NumMedia, is_digits)?;
    optional(form, Field::NumSegments, is_digits)?;
    optional(form, Field::ReferralNumMedia, is_digits)?;
    optional(form, Field::MessageType, is_word)?;
    optional(form, Field::MessagingServiceSid, is_service_sid)?;
    optional(form, Field::OriginalRepliedMessageSid, is_message_sid)?;
    optional(form, Field::SmsStatus, is_status)?;
    optional(form, Field::WaId, is_wa_id)?;
    optional(form, Field::Forwarded, flag)?;
    optional(form, Field::FrequentlyForwarded, flag)?;
    optional(form, Field::ExternalUserId, |text| {
        text.contains(':')
            && matches!(value_shapes::address(text), Some(Address::Handle | Address::Number))
    })?;
    optional(form, Field::OptOutType, |text| matches!(text, "STOP" | "START" | "HELP"))?;
    Ok(())
}

/// Reports whether `text` is WhatsApp's id of a contact: the digits of a phone number, or a business-scoped id.
fn is_wa_id(text: &str) -> bool {
    text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')
}

/// Checks the fields that repeat each other, and those that are only valid beside others.
fn check_agreement(
    class: Class,
    form: &Form<'_>,
    message_sid: &str,
    status: Option<&str>,
    from: Option<&str>,
    to: &str,
) -> Result<(), ShapeError> {
    for field in [Field::SmsSid, Field::SmsMessageSid] {
        if form.filled(field).is_some_and(|sid| sid != message_sid) {
            return Err(ShapeError::Contradictory(field.as_str()));
        }
    }
    if status.is_some() && form.filled(Field::SmsStatus).is_some_and(|other| Some(other) != status)
    {
        return Err(ShapeError::Contradictory("SmsStatus"));
    }
    if class != Class::Inbound {
        return Ok(());
    }
    let from = from.unwrap_or_default();
    let (channel, address) = split_address(from);
    if channel != split_address(to).0 {
        return Err(ShapeError::Contradictory("From"));
    }
    if let Some(wa_id) = form.filled(Field::WaId) {
        let agrees = match address.strip_prefix('+') {
            Some(digits) => tail(digits) == tail(wa_id) || digits == wa_id,
            None => address == wa_id,
        };
        if channel != "whatsapp" || !agrees {
            return Err(ShapeError::Contradictory("WaId"));
        }
    }
    if let Some(id) = form.filled(Field::ExternalUserId) {
        // A contact without a phone number has one id, in both fields.
        let agrees = value_shapes::address(from) != Some(Address::Handle) || id == from;
        if split_address(id).0 != channel || !agrees {
            return Err(ShapeError::Contradictory("ExternalUserId"));
        }
    }
    let is_button =
        form.filled(Field::ButtonPayload).or_else(|| form.filled(Field::ButtonText)).is_some();
    if is_button && channel == "sms" {
        return Err(ShapeError::Contradictory("ButtonPayload"));
    }
    Ok(())
}

/// Returns the last digits, which both spellings of a number share.
fn tail(digits: &str) -> &str {
    digits.get(digits.len().saturating_sub(SHARED_DIGITS)..).unwrap_or(digits)
}

fn required<'f>(
    form: &'f Form<'_>,
    field: Field,
    is_well_formed: impl Fn(&str) -> bool,
) -> Result<&'f str, ShapeError> {
    optional(form, field, is_well_formed)?.ok_or(ShapeError::Missing(field.as_str()))
}

/// Returns the value of a field that may be absent or empty.
fn optional<'f>(
    form: &'f Form<'_>,
    field: Field,
    is_well_formed: impl Fn(&str) -> bool,
) -> Result<Option<&'f str>, ShapeError> {
    match form.filled(field) {
        None => Ok(None),
        Some(value) if is_well_formed(value) => Ok(Some(value)),
        Some(_) => Err(ShapeError::Malformed(field.as_str())),
    }
}
