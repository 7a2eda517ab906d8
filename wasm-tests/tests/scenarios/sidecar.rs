//! Sidecar in memory. It follows the contract, or violates it as the scenario specifies for each callout,
//! and records its claims and settlements.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Context, Result, bail, ensure};
use twilio_edge_contract::{
    AccountKeys, CLAIMS_PATH, Claim, ClaimsReply, ClaimsRequest, Decision, Delivery,
    EDGE_CONFIG_PATH, KeyRing, MAX_BATCH, Outcome, PROTOCOL_VERSION, SETTLEMENTS_PATH, SavedAnswer,
    Settlement, SettlementAck, SettlementResult, SettlementsReply, SettlementsRequest, Verdict,
};
use twilio_edge_wasm_tests::host::{Callout, Reply};
use twilio_edge_wasm_tests::stack::TOKEN;
use twilio_edge_wasm_tests::webhook::ACCOUNT;

use crate::world::Setting;

/// Behaviour for one callout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Follows the contract: one lease per webhook, duplicates after a commit, tombstones.
    Works,
    /// Gives this decision for every claim; refuses settlements if it is `Unavailable`.
    Decides(Decision),
    /// Answers every claim as a duplicate with this answer.
    AnswersDuplicate(SavedAnswer),
    /// Answers with the id of another claim.
    NamesAnotherClaim,
    /// Works, but with another protocol version.
    WrongVersion,
    /// Works, but with content type text.
    AsText,
    /// Sends half of its answer.
    Truncates,
    /// Sends other bytes.
    Garbage,
    /// Answers with this status, as Envoy does if the sidecar is unreachable.
    Fails(u16),
    /// Works, but its answer is cut off or too large for Envoy: a reply without headers.
    OmitsHeaders,
    /// Never answers.
    Silent,
    /// The same, but the answer takes this number of milliseconds.
    Late(u64, Box<Behaviour>),
}

/// Settlement that the sidecar received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReceivedSettlement {
    pub(crate) at_ms: u64,
    pub(crate) settlement: Settlement,
    /// Result in the reply; `None` if the reply is invalid.
    pub(crate) result: Option<SettlementResult>,
    /// True if the filter received the reply in time.
    pub(crate) is_reply_delivered: bool,
    token: u32,
}

impl ReceivedSettlement {
    /// Reports whether the filter knows that the sidecar has recorded it.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.is_reply_delivered && self.result.is_some_and(|it| it != SettlementResult::Unavailable)
    }
}

/// Reply and its delay.
pub(crate) struct Due {
    pub(crate) after_ms: u64,
    pub(crate) reply: Reply,
}

/// The sidecar.
#[derive(Debug, Default)]
pub(crate) struct Sidecar {
    /// Behaviours for the next callouts; afterwards it works.
    claims_plan: VecDeque<Behaviour>,
    settlements_plan: VecDeque<Behaviour>,
    keys_plan: VecDeque<Behaviour>,
    held: BTreeMap<String, String>,
    committed: BTreeMap<String, Option<SavedAnswer>>,
    tombstones: BTreeSet<String>,
    /// All claims, with the times of their arrival.
    pub(crate) claims: Vec<(u64, Claim)>,
    /// Claims that were granted a lease.
    pub(crate) granted: BTreeSet<String>,
    pub(crate) settlements: Vec<ReceivedSettlement>,
    /// Number of callouts without the right token.
    pub(crate) unauthorized: usize,
}

impl Sidecar {
    /// Creates a sidecar with these behaviours for the first callouts of each kind.
    pub(crate) fn with_plan(setting: &Setting) -> Self {
        Self {
            claims_plan: setting.claims.clone().into(),
            settlements_plan: setting.settlements.clone().into(),
            keys_plan: setting.keys.clone().into(),
            ..Self::default()
        }
    }

    /// Records that the filter received the reply to a callout.
    pub(crate) fn is_reply_delivered(&mut self, token: u32) {
        self.settlements
            .iter_mut()
            .filter(|settlement| settlement.token == token)
            .for_each(|settlement| settlement.is_reply_delivered = true);
    }

    /// Removes the planned behaviours, so that the sidecar works.
    pub(crate) fn recover(&mut self) {
        self.claims_plan.clear();
        self.settlements_plan.clear();
        self.keys_plan.clear();
    }

    /// Handles a callout; returns `None` if there is no answer.
    pub(crate) fn take(
        &mut self,
        callout: &Callout,
        token: &str,
        now_ms: u64,
    ) -> Result<Option<Due>> {
        let bearer = format!("Bearer {token}").into_bytes();
        let authorized =
            callout.headers.iter().any(|(name, value)| name == "authorization" && *value == bearer);
        self.unauthorized += usize::from(!authorized);
        let path = std::str::from_utf8(callout.path())?;
        let plan = match path {
            CLAIMS_PATH => &mut self.claims_plan,
            SETTLEMENTS_PATH => &mut self.settlements_plan,
            _ if path.starts_with(EDGE_CONFIG_PATH) => &mut self.keys_plan,
            _ => bail!("the sidecar has no {path}"),
        };
        let behaviour = plan.pop_front().unwrap_or(Behaviour::Works);
        self.act(behaviour, path, callout, now_ms)
    }

    fn act(
        &mut self,
        behaviour: Behaviour,
        path: &str,
        callout: &Callout,
        now_ms: u64,
    ) -> Result<Option<Due>> {
        if let Behaviour::Late(after_ms, behaviour) = behaviour {
            let due = self.act(*behaviour, path, callout, now_ms)?;
            return Ok(due.map(|due| Due { after_ms: after_ms + due.after_ms, ..due }));
        }
        let json = match path {
            CLAIMS_PATH => self.answer_claims(&behaviour, &callout.body, now_ms)?,
            SETTLEMENTS_PATH => self.answer_settlements(&behaviour, callout, now_ms)?,
            _ => serde_json::to_vec(&key_ring(path))?,
        };
        let reply = match behaviour {
            Behaviour::Truncates => json_reply(json.get(..json.len() / 2).unwrap_or_default()),
            Behaviour::Garbage => json_reply(b"\xff\x00{\"v\":1,\"verdicts\":7}"),
            Behaviour::AsText => Reply::made_by_envoy(200, std::str::from_utf8(&json)?),
            Behaviour::Fails(status) => Reply::made_by_envoy(status, "no healthy upstream"),
            Behaviour::OmitsHeaders => Reply::default(),
            Behaviour::Silent => return Ok(None),
            _ => json_reply(&json),
        };
        Ok(Some(Due { after_ms: 0, reply }))
    }

    fn answer_claims(
        &mut self,
        behaviour: &Behaviour,
        body: &[u8],
        now_ms: u64,
    ) -> Result<Vec<u8>> {
        let request: ClaimsRequest = serde_json::from_slice(body).context("claims")?;
        check(request.v, request.claims.len())?;
        if matches!(behaviour, Behaviour::Fails(_) | Behaviour::Garbage) {
            return Ok(Vec::new());
        }
        // Simultaneous claims have no order in the request; the order of the answers is that of the request.
        let mut claims: Vec<_> = request.claims.into_iter().enumerate().collect();
        claims.sort_by(|(_, one), (_, other)| one.claim_id.cmp(&other.claim_id));
        let mut verdicts = BTreeMap::new();
        for (place, claim) in claims {
            verdicts.insert(place, self.verdict(behaviour, &claim));
            self.claims.push((now_ms, claim));
        }
        let verdicts = verdicts.into_values().collect();
        Ok(serde_json::to_vec(&ClaimsReply { v: version(behaviour), verdicts })?)
    }

    fn verdict(&mut self, behaviour: &Behaviour, claim: &Claim) -> Verdict {
        let key = claim.identity.dedupe_key();
        let (decision, answer) = match behaviour {
            Behaviour::Decides(decision) => (*decision, None),
            Behaviour::AnswersDuplicate(answer) => (Decision::Duplicate, Some(answer.clone())),
            _ if self.tombstones.contains(&claim.claim_id) => (Decision::Released, None),
            _ if claim.delivery == Delivery::Accept => (Decision::Accepted, None),
            _ => match (self.committed.get(&key), self.held.get(&key)) {
                (Some(answer), _) => (Decision::Duplicate, answer.clone()),
                (None, Some(holder)) if *holder != claim.claim_id => (Decision::InFlight, None),
                _ => (Decision::Proceed, None),
            },
        };
        let claim_id = match behaviour {
            Behaviour::NamesAnotherClaim => "another-claim".to_owned(),
            _ => claim.claim_id.clone(),
        };
        if decision == Decision::Proceed {
            self.held.insert(key, claim.claim_id.clone());
            self.granted.insert(claim.claim_id.clone());
        }
        Verdict {
            claim_id,
            decision,
            attempt: (decision == Decision::Proceed).then_some(1),
            opt: None,
            suppressed: false,
            window_expires: None,
            answer,
            step: None,
        }
    }

    fn answer_settlements(
        &mut self,
        behaviour: &Behaviour,
        &Callout { token, ref body, .. }: &Callout,
        now_ms: u64,
    ) -> Result<Vec<u8>> {
        let answers = matches!(
            behaviour,
            Behaviour::Works | Behaviour::Decides(_) | Behaviour::AnswersDuplicate(_)
        );
        let request: SettlementsRequest = serde_json::from_slice(body).context("settlements")?;
        check(request.v, request.settlements.len())?;
        let mut results = Vec::new();
        for settlement in request.settlements {
            let claim_id = settlement.claim_id.clone();
            let refuses = *behaviour == Behaviour::Decides(Decision::Unavailable);
            let unreachable = matches!(behaviour, Behaviour::Fails(_) | Behaviour::Garbage);
            let result = match refuses || unreachable {
                true => SettlementResult::Unavailable,
                false => self.settle(&settlement),
            };
            results.push(SettlementAck { claim_id, result });
            let result = answers.then_some(result);
            self.settlements.push(ReceivedSettlement {
                at_ms: now_ms,
                settlement,
                result,
                is_reply_delivered: false,
                token,
            });
        }
        if *behaviour == Behaviour::NamesAnotherClaim {
            results.iter_mut().for_each(|it| it.claim_id = "another-claim".to_owned());
        }
        Ok(serde_json::to_vec(&SettlementsReply { v: version(behaviour), results })?)
    }

    fn settle(&mut self, settlement: &Settlement) -> SettlementResult {
        let key = settlement.identity.dedupe_key();
        let holder = self.held.get(&key);
        if holder.is_some_and(|holder| *holder != settlement.claim_id) {
            return SettlementResult::Superseded;
        }
        let was_held = self.held.remove(&key).is_some();
        match settlement.outcome {
            Outcome::Commit => {
                self.committed.entry(key).or_insert_with(|| settlement.answer.clone());
                SettlementResult::Settled
            }
            Outcome::Release if was_held => SettlementResult::Settled,
            Outcome::Release => {
                self.tombstones.insert(settlement.claim_id.clone());
                SettlementResult::Tombstoned
            }
        }
    }
}

fn check(version: u32, entries: usize) -> Result<()> {
    ensure!(version == PROTOCOL_VERSION, "protocol version {version}");
    ensure!((1..=MAX_BATCH).contains(&entries), "{entries} in one batch");
    Ok(())
}

fn version(behaviour: &Behaviour) -> u32 {
    if *behaviour == Behaviour::WrongVersion { PROTOCOL_VERSION + 1 } else { PROTOCOL_VERSION }
}

/// One account with one token; nothing to a filter that has it.
fn key_ring(path: &str) -> KeyRing {
    let generation = "0123456789abcdef".to_owned();
    let is_known = path.ends_with(&generation);
    let account = AccountKeys {
        sid: ACCOUNT.to_owned(),
        auth_tokens: vec![TOKEN.to_owned()],
        shared_keys: Vec::new(),
    };
    KeyRing { v: PROTOCOL_VERSION, generation, accounts: (!is_known).then(|| vec![account]) }
}

fn json_reply(body: &[u8]) -> Reply {
    let headers = [(":status", "200"), ("content-type", "application/json")];
    Reply {
        headers: headers.map(|(name, it)| (name.to_owned(), it.as_bytes().to_vec())).to_vec(),
        body: body.to_vec(),
    }
}
