//! Sidecar in memory. It follows the contract, or violates it as the scenario specifies for each callout,
//! and records its claims and settlements.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Result, bail, ensure};
use twilio_edge_contract::{
    AccountKeys, Claim, Decision, Delivery, EDGE_CONFIG_PATH, EXCHANGE_MEDIA_TYPE, EXCHANGE_PATH,
    ExchangeReply, ExchangeRequest, KeyRing, MAX_BATCH, MAX_REPORTED, Outcome, PROTOCOL_VERSION,
    REFUSALS_PATH, RefusalReport, RefusalReportReply, SavedAnswer, Settlement, SettlementAck,
    SettlementResult, Verdict,
};
use twilio_edge_wasm_tests::host::{Callout, Reply};
use twilio_edge_wasm_tests::stack::TOKEN;
use twilio_edge_wasm_tests::webhook::ACCOUNT;

use crate::world::Setting;

const JSON: &str = "application/json";

/// Behaviour for one callout. The contents of a reply change for the kind of the plan that the behaviour comes from; the other
/// kind is answered as `Works`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Follows the contract: one lease per webhook, duplicates after a commit, tombstones.
    Works,
    /// Gives this decision for every claim; as the behaviour of settlements it refuses them if it is `Unavailable`.
    Decides(Decision),
    /// Answers every claim as a duplicate with this answer.
    AnswersDuplicate(SavedAnswer),
    /// Answers with the id of another claim.
    NamesAnotherClaim,
    /// Works, but with another protocol version.
    WrongVersion,
    /// Works, but with content type text.
    AsText,
    /// Works, but answers in JSON.
    AsJson,
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

/// Kind of an item of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Claim,
    Settlement,
}

/// The sidecar.
#[derive(Debug, Default)]
pub(crate) struct Sidecar {
    /// Behaviours for the next callouts; afterwards it works. An exchange with claims takes its behaviour from the claims plan,
    /// another one from the settlements plan.
    claims_plan: VecDeque<Behaviour>,
    settlements_plan: VecDeque<Behaviour>,
    keys_plan: VecDeque<Behaviour>,
    reports_plan: VecDeque<Behaviour>,
    held: BTreeMap<String, String>,
    committed: BTreeMap<String, Option<SavedAnswer>>,
    tombstones: BTreeSet<String>,
    /// All claims, with the times of their arrival.
    pub(crate) claims: Vec<(u64, Claim)>,
    /// Claims that were granted a lease.
    pub(crate) granted: BTreeSet<String>,
    pub(crate) settlements: Vec<ReceivedSettlement>,
    /// Numbers of claims and settlements of each exchange.
    pub(crate) exchanges: Vec<(usize, usize)>,
    /// Reports of refused requests, with the times of their arrival.
    pub(crate) reports: Vec<(u64, RefusalReport)>,
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
            reports_plan: setting.reports.clone().into(),
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
        self.reports_plan.clear();
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
        match path {
            EXCHANGE_PATH => {
                let is_binary = callout.headers.iter().any(|(name, value)| {
                    name == "content-type" && value == EXCHANGE_MEDIA_TYPE.as_bytes()
                });
                ensure!(is_binary, "the filter sends exchanges in their binary form");
                let request = ExchangeRequest::decode(&callout.body)?;
                let counts = (request.claims.len(), request.settlements.len());
                ensure!((1..=MAX_BATCH).contains(&counts.0.max(counts.1)), "{counts:?} in a batch");
                self.exchanges.push(counts);
                let (plan, kind) = match request.claims.is_empty() {
                    false => (&mut self.claims_plan, Kind::Claim),
                    true => (&mut self.settlements_plan, Kind::Settlement),
                };
                let (after_ms, behaviour) = next(plan);
                let reply = self.exchange(&behaviour, kind, request, callout.token, now_ms);
                let body = encoded(&behaviour, &reply)?;
                Ok(due(after_ms, &behaviour, EXCHANGE_MEDIA_TYPE, &body))
            }
            REFUSALS_PATH => {
                let report = RefusalReport::decode(&callout.body)?;
                let accepted = report.requests.len();
                ensure!((1..=MAX_REPORTED).contains(&accepted), "{accepted} requests in a report");
                self.reports.push((now_ms, report));
                let (after_ms, behaviour) = next(&mut self.reports_plan);
                let accepted = u32::try_from(accepted)?;
                let reply = RefusalReportReply { v: PROTOCOL_VERSION, accepted };
                Ok(due(after_ms, &behaviour, JSON, &serde_json::to_vec(&reply)?))
            }
            _ if path.starts_with(EDGE_CONFIG_PATH) => {
                let (after_ms, behaviour) = next(&mut self.keys_plan);
                let body = serde_json::to_vec(&key_ring(path))?;
                Ok(due(after_ms, &behaviour, JSON, &body))
            }
            _ => bail!("the sidecar has no {path}"),
        }
    }

    /// Processes an exchange; `kind` is the kind of the plan that `behaviour` comes from.
    fn exchange(
        &mut self,
        behaviour: &Behaviour,
        kind: Kind,
        request: ExchangeRequest,
        token: u32,
        now_ms: u64,
    ) -> ExchangeReply {
        let behaviour_for = |one| match behaviour.changes_contents() && one != kind {
            true => &Behaviour::Works,
            false => behaviour,
        };
        let ExchangeRequest { claims, settlements, .. } = request;
        let verdicts = self.answer_claims(behaviour_for(Kind::Claim), claims, now_ms);
        let results =
            self.answer_settlements(behaviour_for(Kind::Settlement), settlements, token, now_ms);
        ExchangeReply::new(verdicts, results)
    }

    fn answer_claims(
        &mut self,
        behaviour: &Behaviour,
        claims: Vec<Claim>,
        now_ms: u64,
    ) -> Vec<Verdict> {
        if matches!(behaviour, Behaviour::Fails(_) | Behaviour::Garbage) {
            return Vec::new();
        }
        // Simultaneous claims have no order in the request; the order of the answers is that of the request.
        let mut claims: Vec<_> = claims.into_iter().enumerate().collect();
        claims.sort_by(|(_, one), (_, other)| one.claim_id.cmp(&other.claim_id));
        let mut verdicts = BTreeMap::new();
        for (place, claim) in claims {
            verdicts.insert(place, self.verdict(behaviour, &claim));
            self.claims.push((now_ms, claim));
        }
        verdicts.into_values().collect()
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
        let attempt = (decision == Decision::Proceed).then_some(1);
        Verdict { attempt, answer, ..Verdict::new(claim_id, decision) }
    }

    fn answer_settlements(
        &mut self,
        behaviour: &Behaviour,
        settlements: Vec<Settlement>,
        token: u32,
        now_ms: u64,
    ) -> Vec<SettlementAck> {
        let answers = matches!(
            behaviour,
            Behaviour::Works | Behaviour::Decides(_) | Behaviour::AnswersDuplicate(_)
        );
        let mut results = Vec::new();
        for settlement in settlements {
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
        results
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

impl Behaviour {
    /// Reports whether the behaviour is about the contents of a reply, not about the reply as such.
    fn changes_contents(&self) -> bool {
        matches!(
            self,
            Behaviour::Decides(_) | Behaviour::AnswersDuplicate(_) | Behaviour::NamesAnotherClaim
        )
    }
}

/// Returns the next behaviour of a plan, and its delay.
fn next(plan: &mut VecDeque<Behaviour>) -> (u64, Behaviour) {
    let mut behaviour = plan.pop_front().unwrap_or(Behaviour::Works);
    let mut after_ms = 0;
    while let Behaviour::Late(ms, late) = behaviour {
        after_ms += ms;
        behaviour = *late;
    }
    (after_ms, behaviour)
}

fn encoded(behaviour: &Behaviour, reply: &ExchangeReply) -> Result<Vec<u8>> {
    if *behaviour == Behaviour::AsJson {
        return Ok(serde_json::to_vec(reply)?);
    }
    let mut body = reply.encode();
    if *behaviour == Behaviour::WrongVersion
        && let Some(version) = body.get_mut(2)
    {
        *version += 1;
    }
    Ok(body)
}

/// Returns the reply with this body, and its delay; `None` if there is no reply.
fn due(after_ms: u64, behaviour: &Behaviour, media_type: &str, body: &[u8]) -> Option<Due> {
    let reply = match behaviour {
        Behaviour::Truncates => {
            made_by_sidecar(media_type, body.get(..body.len() / 2).unwrap_or_default())
        }
        Behaviour::Garbage => {
            made_by_sidecar(media_type, b"TE\x01\x07\xff\x00{\"v\":1,\"verdicts\":7}")
        }
        Behaviour::AsText => made_by_sidecar("text/plain", body),
        Behaviour::AsJson => made_by_sidecar(JSON, body),
        Behaviour::Fails(status) => Reply::made_by_envoy(*status, "no healthy upstream"),
        Behaviour::OmitsHeaders => Reply::default(),
        Behaviour::Silent => return None,
        _ => made_by_sidecar(media_type, body),
    };
    Some(Due { after_ms, reply })
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

fn made_by_sidecar(media_type: &str, body: &[u8]) -> Reply {
    let headers = [(":status", "200"), ("content-type", media_type)];
    Reply {
        headers: headers.map(|(name, it)| (name.to_owned(), it.as_bytes().to_vec())).to_vec(),
        body: body.to_vec(),
    }
}
