//! Detection of webhooks that may record an opt-out or an opt-in.
//!
//! Only the sidecar knows the keywords and the relevant error codes. The filter uses this coarse check: could this webhook
//! change the consent of a contact? In doubt the answer is yes. Such a webhook is claimed in a lane of its own, and without a
//! verdict the filter holds its only copy.

use twilio_edge_contract::Class;

use crate::form::{Field, Form};

/// Most words of a message that could be an opt-out keyword: `OPT OUT` may be configured.
const MAX_WORDS: usize = 2;
/// Longest such message in bytes; keywords of some languages are long.
const MAX_BYTES: usize = 64;

/// Reports whether the parameters of a proven webhook may change a contact's consent: `OptOutType` is set, the text or the
/// button has one or two words, or a status has an error code (21610 and 63014 are opt-outs).
pub(crate) fn may_change_consent(class: Class, form: &Form<'_>) -> bool {
    let text = |field| form.field(field).map(str::trim).filter(|text| !text.is_empty());
    match class {
        Class::Inbound => {
            let texts = [
                Field::Body,
                Field::ButtonPayload,
                Field::ButtonText,
                Field::ListId,
                Field::ListTitle,
            ];
            let is_short = |text: &str| {
                text.len() <= MAX_BYTES && text.split_whitespace().nth(MAX_WORDS).is_none()
            };
            text(Field::OptOutType).is_some() || texts.into_iter().filter_map(text).any(is_short)
        }
        Class::Status => text(Field::ErrorCode).is_some_and(|code| code != "0"),
        Class::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may_change(class: Class, parameters: &str) -> bool {
        may_change_consent(class, &Form::parse(parameters.as_bytes()).unwrap())
    }

    #[test]
    fn short_texts_buttons_and_error_codes_may_change_consent() {
        let inbound = |form: &str| may_change(Class::Inbound, form);
        for form in [
            "Body=STOP",
            "Body=+stop%0A",
            "Body=opt+out",
            "Body=%D8%A5%D9%84%D8%BA%D8%A7%D8%A1",
            "Body=Please+do+not+write+to+me+again&OptOutType=STOP",
            "Body=I+would+like+this+very+much&ButtonPayload=STOP",
            "Body=ARRET&NumMedia=0",
        ] {
            assert!(inbound(form), "{form}");
        }
        let long = format!("Body={}", "x".repeat(65));
        for form in [
            "",
            "Body=",
            "Body=+",
            "Body=Where+is+my+order%3F",
            "NumMedia=1&Body=&OptOutType=",
            &long,
        ] {
            assert!(!inbound(form), "{form}");
        }
        assert!(may_change(Class::Status, "MessageStatus=failed&ErrorCode=21610"));
        for form in ["MessageStatus=delivered", "MessageStatus=delivered&ErrorCode=", "ErrorCode=0"]
        {
            assert!(!may_change(Class::Status, form), "{form}");
        }
        assert!(!may_change(Class::Other, "Body=STOP"));
    }
}
