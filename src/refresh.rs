//! Refresh of the accounts' keys from the sidecar.
//!
//! Decides when the next request is due, jittered so that the workers of a fleet do not send it together. A ring is
//! applied as a whole or not at all; after a failure the last good ring stays in use. Must not know: the host.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::rc::Rc;

use serde_json::Value;
use twilio_edge_contract::{
    AccountKeys, EDGE_CONFIG_PATH, KeyAlgorithm, KeyRing, PROTOCOL_VERSION, SharedKeySecret,
};

use crate::config::Config;
use crate::keys::Account;
use crate::metrics::Refresh;

/// First pause after a failure, in milliseconds; it doubles up to the period.
const RETRY_MS: u64 = 1_000;

/// State of the refresh of one worker.
#[derive(Debug)]
pub struct KeyRefresh {
    /// The configuration as given, without a ring.
    configured: Rc<Config>,
    /// Generation of the ring in use.
    generation: Option<String>,
    period_ms: u64,
    /// Time of the next request; `None` if it is due at the first tick.
    next_ms: Option<u64>,
    failures: u32,
    /// Callout token of the request in flight.
    token: Option<u32>,
    worker: u64,
    requests: u64,
}

/// Result of a request.
#[derive(Debug)]
pub enum RefreshResult {
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

impl RefreshResult {
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
    pub fn new(configured: &Rc<Config>, worker: u64) -> Option<Self> {
        let period_ms = configured.sidecar.as_ref()?.accounts_refresh_ms?;
        Some(Self {
            configured: Rc::clone(configured),
            generation: None,
            period_ms,
            next_ms: None,
            failures: 0,
            token: None,
            worker,
            requests: 0,
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
    pub fn record_sent(&mut self, token: u32) {
        self.token = Some(token);
    }

    /// Reports whether `token` is that of the request in flight.
    pub fn is_in_flight(&self, token: u32) -> bool {
        self.token == Some(token)
    }

    /// Evaluates the reply; `None` stands for a failed callout.
    pub fn handle_reply(&mut self, reply: Option<&[u8]>, now_ms: u64) -> RefreshResult {
        self.token = None;
        let result = self.read(reply);
        if let RefreshResult::Updated { generation, .. } = &result {
            self.generation = Some(generation.clone());
        }
        let pause_ms = match result {
            RefreshResult::Failed(_) => {
                let pause_ms = RETRY_MS.saturating_mul(1 << self.failures.min(16));
                self.failures = self.failures.saturating_add(1);
                pause_ms.min(self.period_ms)
            }
            RefreshResult::Updated { .. } | RefreshResult::Unchanged => {
                self.failures = 0;
                self.period_ms
            }
        };
        self.next_ms = Some(now_ms.saturating_add(self.jittered(pause_ms)));
        result
    }

    fn read(&self, reply: Option<&[u8]>) -> RefreshResult {
        let Some(reply) = reply else {
            return RefreshResult::Failed(
                "no usable reply: check that the sidecar is available and that TWILIO_EDGE_ACCOUNTS_FILE is set there"
                    .to_owned(),
            );
        };
        let Some(ring) = read_ring(reply).filter(|ring| ring.v == PROTOCOL_VERSION) else {
            return RefreshResult::Failed("the reply is not a key ring of this protocol version: use the filter and the sidecar of one release".to_owned());
        };
        let Some(accounts) = ring.accounts else {
            return match self.generation == Some(ring.generation) {
                true => RefreshResult::Unchanged,
                false => RefreshResult::Failed(
                    "the reply names a key ring that the sidecar has not sent to this worker"
                        .to_owned(),
                ),
            };
        };
        match Account::all(&accounts) {
            Ok(accounts) => {
                let config = self.configured.with_key_ring(accounts);
                RefreshResult::Updated { config, generation: ring.generation }
            }
            Err(problem) => RefreshResult::Failed(problem.to_string()),
        }
    }

    /// Varies a pause by a tenth at most. This is no secret, so any hash of distinct input will do.
    fn jittered(&mut self, pause_ms: u64) -> u64 {
        self.requests = self.requests.wrapping_add(1);
        let hash =
            BuildHasherDefault::<DefaultHasher>::default().hash_one((self.worker, self.requests));
        let tenth = pause_ms / 10;
        pause_ms - tenth + hash % (2 * tenth + 1)
    }
}

/// Reads a key ring. The filter reads its configuration as JSON values anyway; a derived reader of the same format would be a
/// tenth of its file, because its errors can print floating-point numbers.
fn read_ring(json: &[u8]) -> Option<KeyRing> {
    let ring: Value = serde_json::from_slice(json).ok()?;
    let accounts = match ring.get("accounts") {
        None | Some(Value::Null) => None,
        Some(accounts) => Some(read_list(accounts, read_account)?),
    };
    Some(KeyRing {
        v: ring.get("v").and_then(Value::as_u64)?.try_into().ok()?,
        generation: read_text(&ring, "generation")?,
        accounts,
    })
}

fn read_account(account: &Value) -> Option<AccountKeys> {
    let token = |token: &Value| token.as_str().map(str::to_owned);
    Some(AccountKeys {
        sid: read_text(account, "sid")?,
        auth_tokens: account
            .get("auth_tokens")
            .map_or(Some(Vec::new()), |it| read_list(it, token))?,
        shared_keys: account
            .get("shared_keys")
            .map_or(Some(Vec::new()), |it| read_list(it, read_shared_key))?,
    })
}

fn read_shared_key(key: &Value) -> Option<SharedKeySecret> {
    Some(SharedKeySecret {
        id: read_text(key, "id")?,
        secret: read_text(key, "secret")?,
        algorithm: key.get("algorithm").and_then(Value::as_str).and_then(KeyAlgorithm::named)?,
    })
}

fn read_list<T>(list: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    list.as_array()?.iter().map(read).collect()
}

fn read_text(object: &Value, name: &str) -> Option<String> {
    object.get(name).and_then(Value::as_str).map(str::to_owned)
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
        KeyRefresh::new(&Rc::new(config), 7).unwrap()
    }

    fn ring(generation: &str, tokens: &str) -> Vec<u8> {
        format!(
            r#"{{"v":1,"generation":"{generation}","accounts":[{{"sid":"{SID}","auth_tokens":{tokens}}}]}}"#
        )
        .into_bytes()
    }

    fn keys(result: RefreshResult) -> Vec<(String, usize)> {
        let RefreshResult::Updated { config, .. } = result else { return Vec::new() };
        config.accounts.iter().map(|it| (it.sid.clone(), it.keys.len())).collect()
    }

    #[test]
    fn rotation_replaces_keys_and_leaves_configured_accounts() {
        let mut refresh = refresh();
        assert_eq!(refresh.due(5).as_deref(), Some("/edge/v1/config"));
        refresh.record_sent(1);
        assert_eq!(refresh.due(6), None, "one request at a time");
        assert!(refresh.is_in_flight(1) && !refresh.is_in_flight(2));
        let first = refresh.handle_reply(Some(&ring("g1", r#"["a"]"#)), 10);
        assert_eq!(keys(first), [(SID.to_owned(), 1), (OWN.to_owned(), 1)]);
        assert_eq!(refresh.due(9_009), None);
        assert_eq!(refresh.due(11_011).as_deref(), Some("/edge/v1/config?have=g1"));
        let rotated = refresh.handle_reply(Some(&ring("g2", r#"["a","b"]"#)), 11_011);
        assert_eq!(keys(rotated), [(SID.to_owned(), 2), (OWN.to_owned(), 1)]);
        let same = refresh.handle_reply(Some(br#"{"v":1,"generation":"g2"}"#), 30_000);
        assert_eq!(same.outcome(), Refresh::Unchanged);
    }

    /// Workers that start together do not keep sending requests together.
    #[test]
    fn workers_request_keys_at_different_times() {
        let moments: std::collections::BTreeSet<u64> =
            (0..64).map(|worker| KeyRefresh { worker, ..refresh() }.jittered(10_000)).collect();
        assert!(moments.len() > 32, "{moments:?}");
        assert!(moments.iter().all(|pause_ms| (9_000..=11_000).contains(pause_ms)), "{moments:?}");
    }

    #[test]
    fn unusable_reply_changes_nothing_and_is_requested_again_soon() {
        let mut refresh = refresh();
        refresh.handle_reply(Some(&ring("g1", r#"["a"]"#)), 0);
        for reply in [
            None,
            Some(&b"<html>"[..]),
            Some(br#"{"v":2,"generation":"g2","accounts":[]}"#),
            Some(br#"{"v":1,"generation":"g7"}"#),
            Some(br#"{"v":1,"generation":"g2","accounts":[]}"#),
            Some(br#"{"v":1,"generation":"g2","accounts":[{"sid":"AC1","auth_tokens":["x"]}]}"#),
        ] {
            let result = refresh.handle_reply(reply, 20_000);
            assert_eq!(result.outcome(), Refresh::Failed, "{result:?}");
        }
        assert_eq!(refresh.due(31_001).as_deref(), Some("/edge/v1/config?have=g1"));
        let mut refresh = self::refresh();
        refresh.handle_reply(None, 0);
        assert_eq!(refresh.due(899), None);
        assert!(refresh.due(1_101).is_some(), "after a second, not after a period");
    }

    #[test]
    fn key_ring_is_read_as_the_contract_writes_it() {
        let secret = |algorithm| SharedKeySecret {
            id: "webhooks_sharedkey_a".to_owned(),
            secret: "hush".to_owned(),
            algorithm,
        };
        let account = AccountKeys {
            sid: SID.to_owned(),
            auth_tokens: vec!["a".to_owned(), "b".to_owned()],
            shared_keys: vec![secret(KeyAlgorithm::HmacSha256), secret(KeyAlgorithm::HmacSha1)],
        };
        let generation = "g1".to_owned();
        for accounts in [None, Some(vec![]), Some(vec![account])] {
            let ring = KeyRing { v: 1, generation: generation.clone(), accounts };
            assert_eq!(read_ring(&serde_json::to_vec(&ring).unwrap()), Some(ring));
        }
        for invalid in [
            "",
            "[]",
            r#"{"generation":"g"}"#,
            r#"{"v":1}"#,
            r#"{"v":-1,"generation":"g"}"#,
            r#"{"v":1,"generation":1}"#,
            r#"{"v":1,"generation":"g","accounts":{}}"#,
            r#"{"v":1,"generation":"g","accounts":[{}]}"#,
            r#"{"v":1,"generation":"g","accounts":[{"sid":"AC1","auth_tokens":["a",1]}]}"#,
            r#"{"v":1,"generation":"g","accounts":[{"sid":"AC1","shared_keys":[{"id":"a","secret":"b","algorithm":"NONE"}]}]}"#,
        ] {
            assert_eq!(read_ring(invalid.as_bytes()), None, "{invalid}");
            assert!(serde_json::from_str::<KeyRing>(invalid).is_err(), "{invalid}");
        }
    }
}
