//! Consents: evidence that a contact agreed to a category of messages, or withdrew that. This module defines the stored
//! fields, validates them, and selects the record in effect. Records are only added. [`crate::check`] decides whether a
//! consent is enough for a message.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{address::Address, policy::Category};

/// Maximum lengths of texts, in characters.
const MAX_SOURCE_CHARS: usize = 100;
const MAX_PROOF_CHARS: usize = 4_000;
const MAX_USER_AGENT_CHARS: usize = 500;

/// Tolerance for a recorder's clock that is ahead of ours, in milliseconds.
const AHEAD_MS: i64 = 5 * 60 * 1000;

twilio_edge_contract::string_enum! {
    /// State of a consent to messages of a category.
    #[derive(
        Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
    )]
    #[schema(as = ConsentState)]
    pub enum State: serde {
        /// The contact agreed.
        Granted = "granted",
        /// The contact withdrew their consent.
        Withdrawn = "withdrawn",
    }
}

/// One piece of evidence. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// The account, which is the tenant.
    pub account_sid: String,
    /// The contact, with the channel.
    pub address: Address,
    /// Category of messages.
    pub category: Category,
    /// Granted or withdrawn.
    pub state: State,
    /// Time when the contact agreed or withdrew.
    pub at_ms: i64,
    /// Origin: a form, a call, a contract.
    pub source: String,
    /// Text that the contact saw and agreed to.
    pub proof: Option<String>,
    /// IP address of the contact.
    pub ip: Option<String>,
    /// User agent of the contact.
    pub user_agent: Option<String>,
    /// Time when it was recorded.
    pub recorded_at_ms: i64,
    /// API key or command that recorded it.
    pub recorded_by: String,
    /// Id of the stored record; absent until it is stored.
    pub stored_id: Option<String>,
}

impl Consent {
    /// Returns the id of the stored record, or else a digest of the content: the same evidence, recorded twice, is one
    /// record. A stored record keeps its id, so that a page can continue after it.
    pub fn id(&self) -> String {
        if let Some(stored) = &self.stored_id {
            return stored.clone();
        }
        let at = self.at_ms.to_string();
        let parts = [
            Some(self.account_sid.as_str()),
            Some(&self.address.channel),
            Some(&self.address.number),
            Some(self.category.as_str()),
            Some(self.state.as_str()),
            Some(&at),
            Some(&self.source),
            self.proof.as_deref(),
            self.ip.as_deref(),
            self.user_agent.as_deref(),
        ];
        // JSON keeps the boundaries of the parts, so no two lists of parts give the same text.
        let text = serde_json::to_vec(&parts).unwrap_or_default();
        Sha256::digest(text).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Validates the consent. The error begins with the name of the field.
    pub fn check(&self, now_ms: i64) -> Result<(), String> {
        let text = |field: &str, text: &str, most: usize| {
            let is_fine = text.chars().count() <= most && !text.contains('\0');
            if is_fine {
                Ok(())
            } else {
                Err(format!("{field}: must have at most {most} characters, and no NUL"))
            }
        };
        if self.source.trim().is_empty() {
            return Err("source: must name where the contact agreed or withdrew, for example a form or a call".to_owned());
        }
        text("source", &self.source, MAX_SOURCE_CHARS)?;
        text("proof", self.proof.as_deref().unwrap_or_default(), MAX_PROOF_CHARS)?;
        text("user_agent", self.user_agent.as_deref().unwrap_or_default(), MAX_USER_AGENT_CHARS)?;
        if let Some(ip) = self.ip.as_deref().filter(|ip| ip.parse::<IpAddr>().is_err()) {
            return Err(format!(
                "ip: {:?} is not an IP address",
                ip.chars().take(50).collect::<String>()
            ));
        }
        if self.at_ms > now_ms.saturating_add(AHEAD_MS) {
            return Err("at: must not be in the future".to_owned());
        }
        Ok(())
    }

    /// Returns the position in time: of the same contact, channel and category, the last record is in effect, and a
    /// withdrawal if two have the same time.
    fn place(&self) -> (i64, State, String) {
        (self.at_ms, self.state, self.id())
    }
}

/// Returns the record in effect, from all records of one contact about one category.
pub fn current(said: impl IntoIterator<Item = Consent>) -> Option<Consent> {
    said.into_iter().max_by_key(Consent::place)
}

/// Returns the records in effect, one for each contact, channel and category.
pub fn current_of_each(said: impl IntoIterator<Item = Consent>) -> Vec<Consent> {
    let mut current = BTreeMap::new();
    for consent in said {
        let Address { channel, number } = consent.address.clone();
        let key = (number, channel, consent.category);
        let is_overtaken =
            current.get(&key).is_some_and(|known: &Consent| known.place() > consent.place());
        if !is_overtaken {
            current.insert(key, consent);
        }
    }
    current.into_values().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn consent(state: State, at_ms: i64) -> Consent {
        Consent {
            account_sid: "AC1".into(),
            address: Address::parse("whatsapp:+15551230001").unwrap(),
            category: Category::Marketing,
            state,
            at_ms,
            source: "form".into(),
            proof: None,
            ip: None,
            user_agent: None,
            recorded_at_ms: at_ms,
            recorded_by: "key 1".into(),
            stored_id: None,
        }
    }

    #[test]
    fn consent_id_identifies_equal_evidence() {
        let one = consent(State::Granted, 1000);
        let later = Consent { recorded_at_ms: 9, recorded_by: "key 2".into(), ..one.clone() };
        assert_eq!(one.id(), later.id());
        for other in [
            Consent { proof: Some("form".into()), ..one.clone() },
            Consent { ip: Some("form".into()), ..one.clone() },
            Consent { at_ms: 1001, ..one.clone() },
            Consent { category: Category::Utility, ..one.clone() },
            Consent { account_sid: "AC2".into(), ..one.clone() },
        ] {
            assert_ne!(one.id(), other.id(), "{other:?}");
        }
    }

    #[test]
    fn consent_problem_names_its_field() {
        let good = consent(State::Granted, 1000);
        assert_eq!(good.check(1000), Ok(()));
        for (bad, problem) in [
            (Consent { source: " ".into(), ..good.clone() }, "source:"),
            (Consent { source: "s".repeat(101), ..good.clone() }, "source: must have at most 100"),
            (
                Consent { proof: Some("a\0b".into()), ..good.clone() },
                "proof: must have at most 4000",
            ),
            (Consent { ip: Some("1.2.3".into()), ..good.clone() }, "ip: \"1.2.3\" is no"),
            (
                Consent { at_ms: 1000 + AHEAD_MS + 1, ..good.clone() },
                "at: must not be in the future",
            ),
        ] {
            assert!(bad.check(1000).unwrap_err().starts_with(problem), "{problem}");
        }
    }

    proptest! {
        #[test]
        fn current_consent_is_independent_of_recording_order(
            mut said in prop::collection::vec((any::<bool>(), 0..4_i64), 1..6), turn in 0..6_usize,
        ) {
            let read = |said: &[(bool, i64)]| {
                let of = |(granted, at): &(bool, i64)| {
                    consent(if *granted { State::Granted } else { State::Withdrawn }, *at)
                };
                current(said.iter().map(of)).map(|consent| (consent.state, consent.at_ms))
            };
            let before = read(&said);
            let turn = turn % said.len();
            said.rotate_left(turn);
            prop_assert_eq!(read(&said), before);
            let latest = said.iter().map(|(_, at)| *at).max().unwrap();
            let withdrawn = said.contains(&(false, latest));
            prop_assert_eq!(before.map(|(state, _)| state == State::Withdrawn), Some(withdrawn));
        }
    }
}
