//! A sidecar that keeps the contract, in memory, or breaks it in the way a scenario asks for, one callout after the
//! other. It writes down what it was asked and told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Context, Result, bail, ensure};
use twilio_edge_contract::{
    AccountKeys, CLAIMS_PATH, Claim, ClaimsReply, ClaimsRequest, Decision, Delivery,
    EDGE_CONFIG_PATH, KeyRing, MAX_BATCH, Outcome, PROTOCOL_VERSION, SETTLEMENTS_PATH, SavedAnswer,
    Settled, Settlement, SettlementResult, SettlementsReply, SettlementsRequest, Verdict,
};
use twilio_edge_wasm_tests::host::{Callout, Reply};
use twilio_edge_wasm_tests::stack::TOKEN;
use twilio_edge_wasm_tests::webhook::ACCOUNT;

use crate::world::Setting;

/// What it does about one callout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Does {
    /// Keeps the contract: one lease per webhook, duplicates of what was committed, tombstones.
    Works,
    /// Decides this about every claim, whatever it knows; cannot take settlements if that is `Unavailable`.
    Says(Decision),
    /// Answers every claim as a duplicate with this answer.
    Knows(SavedAnswer),
    /// Answers about another claim than the one it was asked about.
    AboutAnother,
    /// Works, but speaks another version of the protocol.
    WrongVersion,
    /// Works, but says it as text.
    AsText,
    /// Sends half of its answer.
    Half,
    /// Sends something else.
    Garbage,
    /// Answers with this status, as Envoy would if it cannot be reached.
    Fails(u16),
    /// Works, but its answer breaks off or is too large for Envoy: a reply without a single header.
    Breaks,
    /// Never answers.
    Silent,
    /// Does this, and its answer takes so many milliseconds.
    Late(u64, Box<Does>),
}

/// A settlement as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) at_ms: u64,
    pub(crate) settlement: Settlement,
    /// What the reply says was done about it; none if the reply says nothing that can be understood.
    pub(crate) result: Option<SettlementResult>,
    /// The reply came through, in time.
    pub(crate) heard: bool,
    token: u32,
}

impl Told {
    /// Whether the filter knows that the sidecar has taken it.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.heard && self.result.is_some_and(|it| it != SettlementResult::Unavailable)
    }
}

/// A reply to send, and when.
pub(crate) struct Due {
    pub(crate) after_ms: u64,
    pub(crate) reply: Reply,
}

/// The sidecar.
#[derive(Debug, Default)]
pub(crate) struct Sidecar {
    /// For the next callouts; then it works.
    claims_plan: VecDeque<Does>,
    settlements_plan: VecDeque<Does>,
    keys_plan: VecDeque<Does>,
    held: BTreeMap<String, String>,
    committed: BTreeMap<String, Option<SavedAnswer>>,
    tombstones: BTreeSet<String>,
    /// All claims, with when they came.
    pub(crate) asked: Vec<(u64, Claim)>,
    /// Claims that were granted a lease.
    pub(crate) granted: BTreeSet<String>,
    pub(crate) told: Vec<Told>,
    /// A header of every callout: they must all be authorized.
    pub(crate) unauthorized: usize,
}

impl Sidecar {
    /// One that does this about the first callouts of each kind.
    pub(crate) fn planning(setting: &Setting) -> Self {
        Self {
            claims_plan: setting.claims.clone().into(),
            settlements_plan: setting.settlements.clone().into(),
            keys_plan: setting.keys.clone().into(),
            ..Self::default()
        }
    }

    /// The reply to a callout came through.
    pub(crate) fn heard(&mut self, token: u32) {
        self.told.iter_mut().filter(|told| told.token == token).for_each(|told| told.heard = true);
    }

    /// From now on it works.
    pub(crate) fn recover(&mut self) {
        self.claims_plan.clear();
        self.settlements_plan.clear();
        self.keys_plan.clear();
    }

    /// Takes a callout in. None: there will be no answer.
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
        let does = plan.pop_front().unwrap_or(Does::Works);
        self.act(does, path, callout, now_ms)
    }

    fn act(
        &mut self,
        does: Does,
        path: &str,
        callout: &Callout,
        now_ms: u64,
    ) -> Result<Option<Due>> {
        if let Does::Late(after_ms, does) = does {
            let due = self.act(*does, path, callout, now_ms)?;
            return Ok(due.map(|due| Due { after_ms: after_ms + due.after_ms, ..due }));
        }
        let json = match path {
            CLAIMS_PATH => self.answer_claims(&does, &callout.body, now_ms)?,
            SETTLEMENTS_PATH => self.answer_settlements(&does, callout, now_ms)?,
            _ => serde_json::to_vec(&key_ring(path))?,
        };
        let reply = match does {
            Does::Half => json_reply(json.get(..json.len() / 2).unwrap_or_default()),
            Does::Garbage => json_reply(b"\xff\x00{\"v\":1,\"verdicts\":7}"),
            Does::AsText => Reply::made_by_envoy(200, std::str::from_utf8(&json)?),
            Does::Fails(status) => Reply::made_by_envoy(status, "no healthy upstream"),
            Does::Breaks => Reply::default(),
            Does::Silent => return Ok(None),
            _ => json_reply(&json),
        };
        Ok(Some(Due { after_ms: 0, reply }))
    }

    fn answer_claims(&mut self, does: &Does, body: &[u8], now_ms: u64) -> Result<Vec<u8>> {
        let request: ClaimsRequest = serde_json::from_slice(body).context("claims")?;
        check(request.v, request.claims.len())?;
        if matches!(does, Does::Fails(_) | Does::Garbage) {
            return Ok(Vec::new());
        }
        // They came at once, so who is first is not said by their order in the request; that of the answer is.
        let mut claims: Vec<_> = request.claims.into_iter().enumerate().collect();
        claims.sort_by(|(_, one), (_, other)| one.claim_id.cmp(&other.claim_id));
        let mut verdicts = BTreeMap::new();
        for (place, claim) in claims {
            verdicts.insert(place, self.verdict(does, &claim));
            self.asked.push((now_ms, claim));
        }
        let verdicts = verdicts.into_values().collect();
        Ok(serde_json::to_vec(&ClaimsReply { v: version(does), verdicts })?)
    }

    fn verdict(&mut self, does: &Does, claim: &Claim) -> Verdict {
        let key = claim.identity.dedupe_key();
        let (decision, answer) = match does {
            Does::Says(decision) => (*decision, None),
            Does::Knows(answer) => (Decision::Duplicate, Some(answer.clone())),
            _ if self.tombstones.contains(&claim.claim_id) => (Decision::Released, None),
            _ if claim.delivery == Delivery::Accept => (Decision::Accepted, None),
            _ => match (self.committed.get(&key), self.held.get(&key)) {
                (Some(answer), _) => (Decision::Duplicate, answer.clone()),
                (None, Some(holder)) if *holder != claim.claim_id => (Decision::InFlight, None),
                _ => (Decision::Proceed, None),
            },
        };
        let claim_id = match does {
            Does::AboutAnother => "somebody-elses".to_owned(),
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
        does: &Does,
        &Callout { token, ref body, .. }: &Callout,
        now_ms: u64,
    ) -> Result<Vec<u8>> {
        let answers = matches!(does, Does::Works | Does::Says(_) | Does::Knows(_));
        let request: SettlementsRequest = serde_json::from_slice(body).context("settlements")?;
        check(request.v, request.settlements.len())?;
        let mut results = Vec::new();
        for settlement in request.settlements {
            let claim_id = settlement.claim_id.clone();
            let refuses = *does == Does::Says(Decision::Unavailable);
            let unreachable = matches!(does, Does::Fails(_) | Does::Garbage);
            let result = match refuses || unreachable {
                true => SettlementResult::Unavailable,
                false => self.settle(&settlement),
            };
            results.push(Settled { claim_id, result });
            let result = answers.then_some(result);
            self.told.push(Told { at_ms: now_ms, settlement, result, heard: false, token });
        }
        if *does == Does::AboutAnother {
            results.iter_mut().for_each(|it| it.claim_id = "somebody-elses".to_owned());
        }
        Ok(serde_json::to_vec(&SettlementsReply { v: version(does), results })?)
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

fn version(does: &Does) -> u32 {
    if *does == Does::WrongVersion { PROTOCOL_VERSION + 1 } else { PROTOCOL_VERSION }
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
