//! Refresh of the accounts' keys from the sidecar.
//!
//! Decides when the next request is due, jittered so that the workers of a fleet do not send it together. A ring is
//! applied as a whole or not at all; after a failure the last good ring stays in use. Must not know: the host.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::rc::Rc;

use twilio_edge_contract::{EDGE_CONFIG_PATH, KeyRing, PROTOCOL_VERSION};

use crate::config::Config;
use crate::keys::Account;
use crate::metrics::Refresh;

/// First pause after a failure, in milliseconds; it doubles up to the period.
const RETRY_MS: u64 = 1_000;

/// State of the refresh of one worker.
#[derive(Debug)]
pub struct KeyRefresh {
    /// The configuration as given, without a ring.
    given: Rc<Config>,
    /// Generation of the ring in use.
    generation: Option<String>,
    period_ms: u64,
    /// Time of the next request; `None` if it is due at the first tick.
    next_ms: Option<u64>,
    failures: u32,
    /// Callout token of the request in flight.
    token: Option<u32>,
    worker: u64,
    asked: u64,
}

/// Result of a request.
#[derive(Debug)]
pub enum Answered {
    /// The sidecar returned other keys, to be used from now on.
    Updated {
        /// The configuration with them.
        config: Config,
        /// The generation of the ring.
        generation: String,
    },
    /// The ring in use is the current one.
    Unchanged,
    /// The reply is not usable; contains the reason for the operator.
    Failed(String),
}

impl Answered {
    /// Returns the counter of the result.
    pub fn outcome(&self) -> Refresh {
        match self {
            Self::Updated { .. } => Refresh::Updated,
            Self::Unchanged => Refresh::Unchanged,
            Self::Failed(_) => Refresh::Failed,
        }
    }
}

impl KeyRefresh {
    /// Creates the refresh; `None` if the configuration does not enable it. `worker` seeds the jitter.
    pub fn of(given: &Rc<Config>, worker: u64) -> Option<Self> {
        let period_ms = given.sidecar.as_ref()?.accounts_refresh_ms?;
        Some(Self {
            given: Rc::clone(given),
            generation: None,
            period_ms,
            next_ms: None,
            failures: 0,
            token: None,
            worker,
            asked: 0,
        })
    }

    /// Returns the path to request now, if a request is due.
    pub fn due(&mut self, now_ms: u64) -> Option<String> {
        if self.token.is_some() || self.next_ms.is_some_and(|next| now_ms < next) {
            return None;
        }
        Some(match &self.generation {
            Some(generation) => format!("{EDGE_CONFIG_PATH}?have={generation}"),
            None => EDGE_CONFIG_PATH.to_owned(),
        })
    }

    /// Records that the request was sent under `token`.
    pub fn sent(&mut self, token: u32) {
        self.token = Some(token);
    }

    /// Reports whether `token` is that of the request in flight.
    pub fn is_mine(&self, token: u32) -> bool {
        self.token == Some(token)
    }

    /// Evaluates the reply; `None` stands for a failed callout.
    pub fn answered(&mut self, reply: Option<&[u8]>, now_ms: u64) -> Answered {
        self.token = None;
        let answered = self.read(reply);
        if let Answered::Updated { generation, .. } = &answered {
            self.generation = Some(generation.clone());
        }
        let pause_ms = match answered {
            Answered::Failed(_) => {
                let pause_ms = RETRY_MS.saturating_mul(1 << self.failures.min(16));
                self.failures = self.failures.saturating_add(1);
                pause_ms.min(self.period_ms)
            }
            Answered::Updated { .. } | Answered::Unchanged => {
                self.failures = 0;
                self.period_ms
            }
        };
        self.next_ms = Some(now_ms.saturating_add(self.jittered(pause_ms)));
        answered
    }

    fn read(&self, reply: Option<&[u8]>) -> Answered {
        let Some(reply) = reply else {
            return Answered::Failed(
                "the sidecar did not answer with keys; is it there, and has it an accounts file?"
                    .to_owned(),
            );
        };
        let ring = serde_json::from_slice::<KeyRing>(reply).ok();
        let Some(ring) = ring.filter(|ring| ring.v == PROTOCOL_VERSION) else {
            return Answered::Failed("the answer is no key ring of this version".to_owned());
        };
        let Some(accounts) = ring.accounts else {
            return match self.generation == Some(ring.generation) {
                true => Answered::Unchanged,
                false => Answered::Failed("the answer names a ring that was never sent".to_owned()),
            };
        };
        match Account::all(&accounts) {
            Ok(accounts) => {
                let config = self.given.with_ring(accounts);
                Answered::Updated { config, generation: ring.generation }
            }
            Err(complaint) => Answered::Failed(complaint.to_string()),
        }
    }

    /// Varies a pause by a tenth at most. This is no secret, so any hash of distinct input will do.
    fn jittered(&mut self, pause_ms: u64) -> u64 {
        self.asked = self.asked.wrapping_add(1);
        let hash =
            BuildHasherDefault::<DefaultHasher>::default().hash_one((self.worker, self.asked));
        let tenth = pause_ms / 10;
        pause_ms - tenth + hash % (2 * tenth + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SID: &str = "AC00112233445566778899aabbccddeeff";
    const OWN: &str = "AC99999999999999999999999999999999";

    fn refresh() -> KeyRefresh {
        let json = serde_json::json!({
            "origins": ["https://h"],
            "accounts": [{"sid": OWN, "auth_tokens": ["own"]}],
            "routes": [{"path": "/in", "class": "inbound"}],
            "sidecar": {"cluster": "s", "token": "t", "accounts_refresh_ms": 10_000},
        });
        let config = Config::parse(json.to_string().as_bytes(), &|_| None).unwrap();
        KeyRefresh::of(&Rc::new(config), 7).unwrap()
    }

    fn ring(generation: &str, tokens: &str) -> Vec<u8> {
        format!(
            r#"{{"v":1,"generation":"{generation}","accounts":[{{"sid":"{SID}","auth_tokens":{tokens}}}]}}"#
        )
        .into_bytes()
    }

    fn keys(answered: Answered) -> Vec<(String, usize)> {
        let Answered::Updated { config, .. } = answered else { return Vec::new() };
        config.accounts.iter().map(|it| (it.sid.clone(), it.keys.len())).collect()
    }

    #[test]
    fn a_rotation_is_taken_over_and_what_is_configured_stays() {
        let mut refresh = refresh();
        assert_eq!(refresh.due(5).as_deref(), Some("/edge/v1/config"));
        refresh.sent(1);
        assert_eq!(refresh.due(6), None, "one question at a time");
        assert!(refresh.is_mine(1) && !refresh.is_mine(2));
        let first = refresh.answered(Some(&ring("g1", r#"["a"]"#)), 10);
        assert_eq!(keys(first), [(SID.to_owned(), 1), (OWN.to_owned(), 1)]);
        assert_eq!(refresh.due(9_009), None);
        assert_eq!(refresh.due(11_011).as_deref(), Some("/edge/v1/config?have=g1"));
        let rotated = refresh.answered(Some(&ring("g2", r#"["a","b"]"#)), 11_011);
        assert_eq!(keys(rotated), [(SID.to_owned(), 2), (OWN.to_owned(), 1)]);
        let same = refresh.answered(Some(br#"{"v":1,"generation":"g2"}"#), 30_000);
        assert_eq!(same.outcome(), Refresh::Unchanged);
    }

    /// Workers that start together do not keep sending requests together.
    #[test]
    fn workers_ask_at_moments_of_their_own() {
        let moments: std::collections::BTreeSet<u64> =
            (0..64).map(|worker| KeyRefresh { worker, ..refresh() }.jittered(10_000)).collect();
        assert!(moments.len() > 32, "{moments:?}");
        assert!(moments.iter().all(|pause_ms| (9_000..=11_000).contains(pause_ms)), "{moments:?}");
    }

    #[test]
    fn what_cannot_be_used_changes_nothing_and_is_asked_again_soon() {
        let mut refresh = refresh();
        refresh.answered(Some(&ring("g1", r#"["a"]"#)), 0);
        for reply in [
            None,
            Some(&b"<html>"[..]),
            Some(br#"{"v":2,"generation":"g2","accounts":[]}"#),
            Some(br#"{"v":1,"generation":"g7"}"#),
            Some(br#"{"v":1,"generation":"g2","accounts":[]}"#),
            Some(br#"{"v":1,"generation":"g2","accounts":[{"sid":"AC1","auth_tokens":["x"]}]}"#),
        ] {
            let answered = refresh.answered(reply, 20_000);
            assert_eq!(answered.outcome(), Refresh::Failed, "{answered:?}");
        }
        assert_eq!(refresh.due(31_001).as_deref(), Some("/edge/v1/config?have=g1"));
        let mut refresh = self::refresh();
        refresh.answered(None, 0);
        assert_eq!(refresh.due(899), None);
        assert!(refresh.due(1_101).is_some(), "after a second, not after a period");
    }
}
