//! Rows of outbound messages, before they are stored: their ids, their due times, and the form for the provider.

use super::{NOTIFICATION_PREFIX, PREFIX, QUIET_HOURS, Sending};
use twilio_edge_domain::{
    address::Address,
    check, contact,
    policy::Category,
    sending::{
        fallback::FallbackPlan, provider::Provider, rate_limit::priority, request::Request,
        rules::Verdict,
    },
    window::rfc3339,
};
use twilio_edge_store::{OutboundMessage, StoreError};

impl Sending {
    /// Sets the period in which a message may be sent again after a failed delivery: its validity period, or the default.
    pub fn permit_repetitions(&self, message: &mut OutboundMessage) {
        let times = self.delivery_times;
        message.repeat_until_ms = match message.valid_until_ms {
            _ if times.repeat_after_ms == 0 => 0,
            0 => message.first_due_at_ms.saturating_add(times.repeat_for_ms),
            until_ms => until_ms,
        };
    }

    /// Builds the row of a message, in state `queued`. Nothing is stored. `send_at_ms` is in milliseconds since 1970.
    ///
    /// # Errors
    /// Returns an error if the system supplies no random bytes for the id.
    pub fn row(
        &self,
        request: &Request,
        created_by: &str,
        send_at_ms: Option<i64>,
        now_ms: i64,
    ) -> Result<OutboundMessage, StoreError> {
        let plan = FallbackPlan::of(request);
        let wanted_ms = send_at_ms.unwrap_or(now_ms).max(now_ms);
        let (country, category) = (country(&request.to), request.category());
        let held_ms = self.held_until_ms(&request.account_sid, &country, category, wanted_ms);
        let due_at_ms = held_ms.unwrap_or(wanted_ms);
        let row = self.blank_row(
            &request.account_sid,
            &request.to,
            request.category(),
            created_by,
            now_ms,
        )?;
        Ok(OutboundMessage {
            provider: self.provider(request).unwrap_or(Provider::SendGrid).as_str().to_owned(),
            sender: request.sender_name(),
            kind: match request.kind() {
                check::Kind::Session => "session".to_owned(),
                check::Kind::Template => "template".to_owned(),
            },
            form: request.form(),
            segments: request.segments().and_then(|count| i64::try_from(count).ok()).unwrap_or(0),
            template: request.template_name(),
            due_at_ms,
            first_due_at_ms: due_at_ms,
            code: held_ms.map_or_else(String::new, |_| QUIET_HOURS.to_owned()),
            reason: held_ms.map_or_else(String::new, quiet_reason),
            metadata: request.options.metadata.to_json(),
            fallback_to: plan
                .as_ref()
                .map_or_else(String::new, |plan| plan.recipients(&request.to)),
            fallback: plan.map_or_else(String::new, |plan| plan.to_json()),
            ..row
        })
    }

    /// Builds a row without content, in state `queued` and due now, with new ids of the message and its notification.
    ///
    /// # Errors
    /// Returns an error if the system supplies no random bytes for the ids.
    pub(in crate::outbound) fn blank_row(
        &self,
        account_sid: &str,
        to: &Address,
        category: Category,
        created_by: &str,
        now_ms: i64,
    ) -> Result<OutboundMessage, StoreError> {
        let random = || {
            getrandom::u64()
                .map_err(|error| StoreError::Unavailable(format!("no random bytes: {error}")))
        };
        let digits = format!("{:016x}{:016x}", random()?, random()?);
        Ok(OutboundMessage {
            id: format!("{PREFIX}{digits}"),
            notification_id: format!("{NOTIFICATION_PREFIX}{digits}"),
            account_sid: account_sid.to_owned(),
            channel: to.channel.clone(),
            recipient: to.number.clone(),
            contact: to.number.clone(),
            country: country(to),
            category: category.as_str().to_owned(),
            priority: priority(category),
            state: "queued".to_owned(),
            due_at_ms: now_ms,
            first_due_at_ms: now_ms,
            created_at_ms: now_ms,
            created_by: created_by.to_owned(),
            changed_at_ms: now_ms,
            ..OutboundMessage::default()
        })
    }

    /// Returns the end of the quiet hours that contain this time, in milliseconds since 1970.
    pub fn held_until_ms(
        &self,
        account_sid: &str,
        country: &str,
        category: Category,
        at_ms: i64,
    ) -> Option<i64> {
        let country = Some(country).filter(|country| !country.is_empty());
        let routing = self.routes.current();
        routing.of(account_sid).quiet_hours().held_until_ms(country, category, at_ms)
    }
}

/// Returns the reason why a message waits until the end of the quiet hours.
pub fn quiet_reason(until_ms: i64) -> String {
    let until = rfc3339(until_ms).unwrap_or_default();
    format!(
        "the recipient's country has quiet hours for this category; the message waits until {until}"
    )
}

/// Returns the country of a recipient; empty if it is unknown.
pub(super) fn country(to: &Address) -> String {
    contact::country(&to.channel, &to.number).unwrap_or_default()
}

/// Ends a new message as `refused` if a rule forbids it, so that callers can see the reason.
pub fn refuse(message: &mut OutboundMessage, verdicts: &[Verdict]) {
    let refusal = verdicts.iter().find_map(|verdict| Some((verdict.code?, &verdict.detail)));
    let Some((code, detail)) = refusal else { return };
    message.recipient = masked(message);
    (message.state, message.code) = ("refused".to_owned(), code.as_str().to_owned());
    message.reason.clone_from(detail);
    (message.form, message.fallback, message.fallback_to) = Default::default();
    (message.repeat_until_ms, message.answer_within_ms) = (0, 0);
}

/// Returns the recipient in the masked form that is shown after the message has ended.
pub fn masked(message: &OutboundMessage) -> String {
    if message.recipient.contains("..") {
        return message.recipient.clone();
    }
    Address { channel: message.channel.clone(), number: message.recipient.clone() }.to_string()
}
