//! Meaning of Twilio's error codes for a message that Twilio refuses or reports as failed: whether to retry, who must act, and
//! the remedy. The table is data (`errors.toml`), and the operator's own table overrides it. No entry causes a repeated post of
//! a message whose call has no answer. A message that Twilio accepted is posted again only for a code whose entry excludes
//! that it was delivered. This module reads no file.
//! Source of the codes: twilio.com/docs/api/errors.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Deserialize;
use toml::{Table, Value};

use crate::{actor::Actor, email::error_code::EmailErrorCode, refusal::RefusalCode};

/// Built-in table.
const BUILT_IN: &str = include_str!("../../errors.toml");

/// Highest number of codes in a table; Twilio has fewer.
const MAX_CODES: usize = 2000;

twilio_edge_contract::string_enum! {
    /// Action on a message that Twilio refused.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
    pub enum Action: serde {
        /// Retry the message later.
        Retry = "retry",
        /// Mark the message as refused.
        GiveUp = "give_up",
        /// Mark the message as refused, and send its fallback instead, if it has one.
        Switch = "switch",
    }
}

twilio_edge_contract::string_enum! {
    /// Kind of fallback that replaces a message.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize, utoipa::ToSchema)]

    pub enum FallbackTarget: serde {
        /// A template.
        Template = "template",
        /// A text on another channel.
        Channel = "channel",
        /// An e-mail.
        Email = "email",
    }
}

twilio_edge_contract::string_enum! {
    /// Evidence about the delivery of a message that Twilio accepted and later reports with a code.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
    pub enum DeliveryEvidence: serde {
        /// The message certainly was not delivered.
        NotDelivered = "no",
        /// The message may have been delivered.
        #[default]
        Unknown = "unknown",
    }
}

/// Entry of one error code.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorEntry {
    /// Title of the error.
    pub title: String,
    /// Action on the message.
    pub action: Action,
    /// Evidence about the delivery if a status callback has the code.
    #[serde(default)]
    pub delivered: DeliveryEvidence,
    /// Party that must act.
    pub actor: Actor,
    /// Remedy.
    pub remedy: String,
    /// Fallbacks of the action `switch`, in order of preference.
    #[serde(default)]
    pub to: Vec<FallbackTarget>,
}

/// Table of error codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorTable(BTreeMap<i64, ErrorEntry>);

impl ErrorTable {
    /// Merges the operator's table into the built-in one, code by code and field by field.
    ///
    /// # Errors
    /// Every problem of the operator's table.
    pub fn of(over: Table) -> Result<ErrorTable, Vec<String>> {
        let mut table =
            BUILT_IN.parse::<Table>().map_err(|error| vec![format!("errors.toml: {error}")])?;
        let mut problems = Vec::new();
        for (code, said) in over {
            let Value::Table(said) = said else {
                problems.push(format!("{code}: must be a table, as in [21610]"));
                continue;
            };
            let mut known = table.get(&code).and_then(Value::as_table).cloned().unwrap_or_default();
            known.extend(said);
            table.insert(code, Value::Table(known));
        }
        if table.len() > MAX_CODES {
            return Err(vec![format!("must have at most {MAX_CODES} codes")]);
        }
        let mut errors = BTreeMap::new();
        for (code, value) in table {
            let number = code.parse::<i64>().ok().filter(|number| number.to_string() == code);
            let number = number.filter(|number| (10_000..=99_999).contains(number));
            match (number, value.try_into::<ErrorEntry>()) {
                (None, _) => problems.push(format!(
                    "{code}: is not an error code of Twilio: it must have five digits"
                )),
                (_, Err(error)) => problems.push(format!("{code}: {}", error.message().trim())),
                (Some(number), Ok(entry)) => {
                    errors.insert(number, entry);
                }
            }
        }
        if problems.is_empty() { Ok(ErrorTable(errors)) } else { Err(problems) }
    }

    /// Returns the entry of a code.
    pub fn get(&self, code: i64) -> Option<&ErrorEntry> {
        self.0.get(&code)
    }

    /// Returns the fallbacks, in order of preference, of a message that ended with a code of Twilio or with `window_closed`.
    pub fn fallback_targets(&self, code: &str) -> &[FallbackTarget] {
        // Our rule refuses before the call what Twilio refuses with 63016 after it.
        let code = if code == RefusalCode::WindowClosed.as_str() { "63016" } else { code };
        let entry = code.parse().ok().and_then(|code| self.get(code));
        entry.filter(|entry| entry.action == Action::Switch).map_or(&[], |entry| &entry.to)
    }

    /// Returns the action for a code; unknown codes are not retried.
    pub fn action(&self, code: i64) -> Action {
        self.get(code).map_or(Action::GiveUp, |entry| entry.action)
    }

    /// Returns whether a message that Twilio accepted and then reported as failed with this code may be sent again.
    pub fn permits_resend(&self, code: &str) -> bool {
        let entry = code.parse().ok().and_then(|code| self.get(code));
        entry.is_some_and(|entry| {
            entry.action == Action::Retry && entry.delivered == DeliveryEvidence::NotDelivered
        })
    }

    /// Returns the label of a code for metrics: a code of the table or of e-mails, `other` for other codes, and `none` without a
    /// code.
    pub fn label<'a>(&self, code: &'a str) -> &'a str {
        match code.parse().ok().and_then(|code| self.get(code)) {
            Some(_) => code,
            None if code.is_empty() => "none",
            None if code.parse::<EmailErrorCode>().is_ok() => code,
            None => "other",
        }
    }
}

/// Explanation of an error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// Title; empty if the code is unknown.
    pub title: &'a str,
    /// Party that must act; `None` if the code is unknown.
    pub actor: Option<Actor>,
    /// Remedy; empty if the code is unknown.
    pub remedy: &'a str,
}

/// Explains an error code of Twilio, by the table, a code of e-mails, or a refusal code of this service.
pub fn explain<'a>(errors: Option<&'a ErrorTable>, code: &str) -> Explanation<'a> {
    let known = code.parse().ok().and_then(|code| errors?.get(code));
    if let Ok(code) = code.parse::<EmailErrorCode>() {
        return Explanation { title: "", actor: Some(code.actor()), remedy: code.remedy() };
    }
    match (known, RefusalCode::find(code)) {
        (Some(entry), _) => {
            Explanation { title: &entry.title, actor: Some(entry.actor), remedy: &entry.remedy }
        }
        (None, Some(own)) => {
            let row = own.row();
            Explanation { title: row.title, actor: Some(row.actor), remedy: row.remedy }
        }
        (None, None) => Explanation { title: "", actor: None, remedy: "" },
    }
}

/// Renders the table in Markdown, as in docs/ERRORS.md.
pub fn reference() -> String {
    let mut text =
        "| code | title | action | delivered | actor | remedy |\n|---|---|---|---|---|---|\n"
            .to_owned();
    let errors = ErrorTable::of(Table::new()).map(|errors| errors.0).unwrap_or_default();
    for (code, ErrorEntry { title, action, delivered, actor, remedy, to }) in errors {
        let (action, delivered, actor) = (action.as_str(), delivered.as_str(), actor.as_str());
        let to: Vec<&str> = to.into_iter().map(FallbackTarget::as_str).collect();
        let to = if to.is_empty() { String::new() } else { format!(": {}", to.join(", ")) };
        let _ = writeln!(
            text,
            "| {code} | {title} | `{action}`{to} | {delivered} | {actor} | {remedy} |"
        );
    }
    text
}

/// Built-in table.
#[cfg(test)]
pub fn built_in() -> ErrorTable {
    ErrorTable::of(Table::new()).unwrap()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Result<ErrorTable, Vec<String>> {
        ErrorTable::of(text.parse().unwrap())
    }

    #[test]
    fn errors_table_of_the_document_is_current() {
        let guide = include_str!("../../../../docs/ERRORS.md");
        assert!(guide.ends_with(&reference()), "print it with `twilio-edge reference errors`");
    }

    #[test]
    fn retried_codes_are_those_that_twilio_did_not_process() {
        let errors = built_in();
        let again: Vec<i64> =
            errors.0.keys().copied().filter(|code| errors.action(*code) == Action::Retry).collect();
        assert_eq!(again, [20429, 21611, 30001, 30022, 63017, 63018]);
        assert_eq!(errors.action(99_999), Action::GiveUp, "unknown codes are not retried");
        for (code, entry) in &errors.0 {
            assert_eq!(entry.action == Action::Switch, !entry.to.is_empty(), "{code}");
            let passes = entry.actor == Actor::None;
            assert_eq!(
                passes,
                entry.action == Action::Retry,
                "{code}: a party acts, or the error is temporary"
            );
            assert!(!entry.title.is_empty() && entry.remedy.ends_with('.'), "{code}");
        }
    }

    #[test]
    fn message_is_sent_again_only_if_it_certainly_was_not_delivered() {
        let errors = built_in();
        for (code, may_resend) in [
            ("63018", true),
            ("63017", true),
            ("30001", true),
            ("30022", true),
            ("30003", false),
            ("30008", false),
            ("63012", false),
            ("63024", false),
            ("99999", false),
            ("", false),
            ("x", false),
        ] {
            assert_eq!(errors.permits_resend(code), may_resend, "{code}");
        }
        let own = of("[30003]\naction = \"retry\"").unwrap();
        assert!(!own.permits_resend("30003"), "its delivery stays unknown");
        let own = of("[30003]\naction = \"retry\"\ndelivered = \"no\"").unwrap();
        assert!(own.permits_resend("30003"));
        let entry = "title = \"x\"\naction = \"retry\"\nactor = \"none\"\nremedy = \"x\"";
        let new = of(&format!("[39999]\n{entry}")).unwrap();
        assert!(!new.permits_resend("39999"), "an entry without the field excludes nothing");
    }

    #[test]
    fn refusals_of_a_channel_have_fallback_targets() {
        let errors = built_in();
        assert_eq!(
            errors.fallback_targets("63016"),
            [FallbackTarget::Template, FallbackTarget::Channel, FallbackTarget::Email]
        );
        assert_eq!(errors.fallback_targets("window_closed"), errors.fallback_targets("63016"));
        for code in ["63024", "63032", "63049"] {
            let targets = [FallbackTarget::Channel, FallbackTarget::Email];
            assert_eq!(errors.fallback_targets(code), targets, "{code}");
        }
        for code in ["21211", "30003", "30005", "63003"] {
            assert_eq!(errors.fallback_targets(code), [FallbackTarget::Email], "{code}");
        }
        assert_eq!(errors.fallback_targets("21610"), [], "they do not want it on any");
        let never = of("[63016]\naction = \"give_up\"").unwrap();
        assert_eq!(never.fallback_targets("window_closed"), []);
        let own = of("[63018]\naction = \"switch\"\nto = [\"channel\"]").unwrap();
        assert_eq!(own.fallback_targets("63018"), [FallbackTarget::Channel]);
    }

    #[test]
    fn code_of_an_email_is_explained() {
        let explanation = explain(None, "email_bounced");
        assert_eq!(explanation.actor, Some(Actor::Caller));
        assert!(explanation.remedy.ends_with('.'));
    }

    #[test]
    fn operator_table_overrides_single_fields() {
        let errors = of("[63018]\naction = \"give_up\"\nactor = \"operator\"").unwrap();
        let entry = errors.get(63018).unwrap();
        assert_eq!((entry.action, entry.actor), (Action::GiveUp, Actor::Operator));
        assert_eq!(entry.title, built_in().get(63018).unwrap().title);
        assert_eq!(errors.get(63017), built_in().get(63017));
        let problems =
            of("12 = 1\n[12345]\ntitle = \"x\"\n[63017]\nactoin = \"retry\"\n[x]").unwrap_err();
        let about = |code: &str| problems.iter().any(|problem| problem.starts_with(code));
        assert!(["12:", "12345:", "63017:", "x:"].into_iter().all(about), "{problems:?}");
    }

    proptest! {
        /// Any file gives a table, or a problem for each code that is wrong.
        #[test]
        fn table_of_any_text_is_read_or_refused(code in "[0-9a-z+ -]{0,8}", field in "title|action|actor|x", value: String) {
            let entry = Table::from_iter([(field, Value::String(value))]);
            let table = Table::from_iter([(code.clone(), Value::Table(entry))]);
            match ErrorTable::of(table) {
                Ok(errors) => prop_assert!(errors.get(code.parse().unwrap()).is_some()),
                Err(problems) => prop_assert!(problems.iter().all(|problem| problem.starts_with(&code))),
            }
        }
    }
}
