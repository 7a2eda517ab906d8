//! Filter of one sink: decides which accepted webhooks and operational events get a delivery to it. Knows neither sinks nor
//! their file.

use twilio_edge_contract::{Class, Opt};

use crate::{operational_event::OperationalEvent, status::Status, webhook::Webhook};

/// Conditions of one sink. An empty list admits every value, except for `classes`. A webhook must meet every condition that
/// concerns its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkFilter {
    /// Paths of routes.
    pub routes: Vec<String>,
    /// Classes of webhooks; no other class is admitted.
    pub classes: Vec<Class>,
    /// Account SIDs.
    pub accounts: Vec<String>,
    /// Our numbers and senders, without a channel.
    pub numbers: Vec<String>,
    /// Channels, in lower case.
    pub channels: Vec<String>,
    /// Statuses. They concern status callbacks only.
    pub statuses: Vec<Status>,
    /// Opt-out keywords, or `None` for a message without one. They concern inbound messages only.
    pub opts: Vec<Option<Opt>>,
}

impl Default for SinkFilter {
    /// Returns the filter that admits every message and every status.
    fn default() -> SinkFilter {
        SinkFilter {
            routes: Vec::new(),
            classes: vec![Class::Inbound, Class::Status],
            accounts: Vec::new(),
            numbers: Vec::new(),
            channels: Vec::new(),
            statuses: Vec::new(),
            opts: Vec::new(),
        }
    }
}

impl SinkFilter {
    /// Returns whether the sink receives this webhook. A webhook with an unknown number, channel or status does not meet a
    /// condition about it.
    pub fn admits(&self, webhook: &Webhook) -> bool {
        let identity = &webhook.identity;
        contains(&self.routes, &webhook.route)
            && self.classes.contains(&identity.class)
            && contains(&self.accounts, &identity.account_sid)
            && self.admits_participants(webhook)
            && match identity.class {
                Class::Status => self.admits_status(identity.status.as_deref()),
                Class::Inbound => contains(&self.opts, &webhook.opt()),
                Class::Other => true,
            }
    }

    /// Returns whether the sink receives this operational event, if it takes its type. The conditions about accounts, numbers
    /// and channels concern events. An event without a sender is about all our numbers, so that every condition about numbers
    /// admits it; the same holds for an event without a channel.
    pub fn admits_event(&self, event: &OperationalEvent) -> bool {
        let (contact, sender) = (event.contact.as_ref(), event.sender.as_ref());
        contains(&self.accounts, &event.account_sid)
            && contact.or(sender).is_none_or(|end| contains(&self.channels, &end.channel))
            && sender.is_none_or(|sender| contains(&self.numbers, &sender.number))
    }

    /// Compares both ends with our numbers, because the direction of a failed message may not be known yet.
    fn admits_participants(&self, webhook: &Webhook) -> bool {
        if self.numbers.is_empty() && self.channels.is_empty() {
            return true;
        }
        let Some(participants) = webhook.participants() else { return false };
        let is_ours = |number| contains(&self.numbers, number);
        (is_ours(&participants.ours) || is_ours(&participants.theirs.number))
            && contains(&self.channels, &participants.theirs.channel)
    }

    fn admits_status(&self, word: Option<&str>) -> bool {
        let status = word.and_then(Status::parse);
        self.statuses.is_empty() || status.is_some_and(|status| self.statuses.contains(&status))
    }
}

/// Returns whether a condition admits the value.
fn contains<T: PartialEq>(admitted: &[T], value: &T) -> bool {
    admitted.is_empty() || admitted.contains(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use twilio_edge_contract::{Claim, Identity};

    use super::*;
    use crate::{
        address::Address,
        operational_event::OperationalEventType,
        optout::{Keywords, Lexicon},
    };

    const ACCOUNTS: [&str; 2] =
        ["AC00000000000000000000000000000001", "AC00000000000000000000000000000002"];

    fn lexicon() -> Lexicon {
        crate::defaults::section::<Keywords>("optout").lexicon().unwrap()
    }

    fn webhook(class: Class, account: usize, status: Option<&str>, form: &str) -> Webhook {
        let identity = Identity {
            class,
            account_sid: ACCOUNTS[account].into(),
            message_sid: "SM1".into(),
            status: status.map(str::to_owned),
            error_code: None,
        };
        Webhook::from_claim(
            Claim::new("c1".into(), identity, "/in".into(), form.into()),
            &lexicon(),
        )
        .unwrap()
    }

    fn message(body: &str) -> Webhook {
        let form = format!("From=whatsapp%3A%2B15551234567&To=whatsapp%3A%2B15559&Body={body}");
        webhook(Class::Inbound, 0, None, &form)
    }

    fn callback(status: &str) -> Webhook {
        webhook(Class::Status, 0, Some(status), "From=%2B15559&To=%2B15551234567")
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn each_condition_admits_its_values_only() {
        let none = SinkFilter::default();
        let filters = [
            ("none", none.clone()),
            ("route", SinkFilter { routes: texts(&["/in"]), ..none.clone() }),
            ("other route", SinkFilter { routes: texts(&["/in/"]), ..none.clone() }),
            ("inbound", SinkFilter { classes: vec![Class::Inbound], ..none.clone() }),
            ("account", SinkFilter { accounts: texts(&ACCOUNTS[..1]), ..none.clone() }),
            ("other account", SinkFilter { accounts: texts(&ACCOUNTS[1..]), ..none.clone() }),
            ("number", SinkFilter { numbers: texts(&["+15559"]), ..none.clone() }),
            ("other number", SinkFilter { numbers: texts(&["+1555", "15559"]), ..none.clone() }),
            ("sms", SinkFilter { channels: texts(&["sms"]), ..none.clone() }),
            ("failed", SinkFilter { statuses: vec![Status::Failed], ..none.clone() }),
            ("stop", SinkFilter { opts: vec![Some(Opt::Stop)], ..none.clone() }),
            ("no keyword", SinkFilter { opts: vec![None], ..none.clone() }),
            (
                "number and sms",
                SinkFilter { numbers: texts(&["+15559"]), channels: texts(&["sms"]), ..none },
            ),
        ];
        let admitted = |webhook: &Webhook| {
            let names = filters.iter().filter(|(_, filter)| filter.admits(webhook));
            names.map(|(name, _)| *name).collect::<Vec<_>>()
        };
        let always = ["none", "route", "account", "number"];
        let with = |before: &[&'static str], after: &[&'static str]| [before, after].concat();
        let inbound = ["none", "route", "inbound", "account", "number"];
        assert_eq!(admitted(&message("hello")), with(&inbound, &["failed", "no keyword"]));
        assert_eq!(admitted(&message("STOP")), with(&inbound, &["failed", "stop"]));
        let sms = ["stop", "no keyword", "number and sms"];
        assert_eq!(
            admitted(&callback("failed")),
            with(&always, &[&["sms", "failed"][..], &sms].concat())
        );
        assert_eq!(admitted(&callback("sent")), with(&always, &[&["sms"][..], &sms].concat()));
        // A status of a later version of Twilio, and a status without addresses.
        assert_eq!(admitted(&callback("pondered")), with(&always, &[&["sms"][..], &sms].concat()));
        let bare = webhook(Class::Status, 1, Some("failed"), "MessageSid=SM1");
        assert_eq!(
            admitted(&bare),
            ["none", "route", "other account", "failed", "stop", "no keyword"]
        );
    }

    #[test]
    fn operational_event_meets_the_conditions_about_account_number_and_channel() {
        let event = OperationalEvent {
            event_id: "1".into(),
            event_type: OperationalEventType::WindowOpened,
            account_sid: ACCOUNTS[0].into(),
            contact: Address::parse("whatsapp:+15551234567"),
            sender: Address::parse("whatsapp:+15559"),
            subject: "SM1".into(),
            recorded_at_ms: 1,
            data: serde_json::Value::Null,
        };
        let none = SinkFilter { classes: Vec::new(), ..SinkFilter::default() };
        for (filter, is_admitted, is_admitted_without_sender_and_contact) in [
            (none.clone(), true, true),
            (SinkFilter { accounts: texts(&ACCOUNTS[..1]), ..none.clone() }, true, true),
            (SinkFilter { accounts: texts(&ACCOUNTS[1..]), ..none.clone() }, false, false),
            (SinkFilter { numbers: texts(&["+15559"]), ..none.clone() }, true, true),
            (SinkFilter { numbers: texts(&["+1555"]), ..none.clone() }, false, true),
            (SinkFilter { channels: texts(&["whatsapp"]), ..none.clone() }, true, true),
            (SinkFilter { channels: texts(&["sms"]), ..none.clone() }, false, true),
            (SinkFilter { routes: texts(&["/other"]), ..none.clone() }, true, true),
            (SinkFilter { statuses: vec![Status::Failed], opts: vec![None], ..none }, true, true),
        ] {
            let bare = OperationalEvent { contact: None, sender: None, ..event.clone() };
            assert_eq!(filter.admits_event(&event), is_admitted, "{filter:?}");
            let is_bare_admitted = filter.admits_event(&bare);
            assert_eq!(is_bare_admitted, is_admitted_without_sender_and_contact, "{filter:?}");
            // The number of a message that ended may be masked; its channel is known.
            let masked = OperationalEvent { contact: None, ..event.clone() };
            assert_eq!(filter.admits_event(&masked), is_admitted, "{filter:?}");
        }
    }

    proptest! {
        /// Property: a further condition never admits a webhook that the filter did not admit before.
        #[test]
        fn further_condition_only_narrows(
            base in filter(), more in filter(), class in 0_usize..2, account in 0_usize..2,
            status in 0_usize..3, body in 0_usize..3,
        ) {
            let webhook = match class {
                0 => message(["hello", "STOP", "HELP"][body]),
                _ => webhook(Class::Status, account, Some(["failed", "sent", "read"][status]), "From=%2B15559&To=%2B15551234567"),
            };
            let narrowed = SinkFilter {
                routes: if base.routes.is_empty() { more.routes } else { base.routes.clone() },
                classes: base.classes.iter().copied().filter(|class| more.classes.contains(class)).collect(),
                accounts: if base.accounts.is_empty() { more.accounts } else { base.accounts.clone() },
                numbers: if base.numbers.is_empty() { more.numbers } else { base.numbers.clone() },
                channels: if base.channels.is_empty() { more.channels } else { base.channels.clone() },
                statuses: if base.statuses.is_empty() { more.statuses } else { base.statuses.clone() },
                opts: if base.opts.is_empty() { more.opts } else { base.opts.clone() },
            };
            prop_assert!(!narrowed.admits(&webhook) || base.admits(&webhook));
            prop_assert!(SinkFilter::default().admits(&webhook));
        }
    }

    fn some<T: Clone + std::fmt::Debug + 'static>(
        of: &[T],
    ) -> impl Strategy<Value = Vec<T>> + use<T> {
        prop::sample::subsequence(of.to_vec(), 0..=of.len())
    }

    fn filter() -> impl Strategy<Value = SinkFilter> {
        let values = (
            some(&texts(&["/in", "/out"])),
            some(&[Class::Inbound, Class::Status]),
            some(&texts(&ACCOUNTS)),
            some(&texts(&["+15559", "+1"])),
            some(&texts(&["sms", "whatsapp"])),
            some(&[Status::Failed, Status::Sent]),
            some(&[None, Some(Opt::Stop), Some(Opt::Help)]),
        );
        values.prop_map(|(routes, classes, accounts, numbers, channels, statuses, opts)| {
            SinkFilter { routes, classes, accounts, numbers, channels, statuses, opts }
        })
    }
}
