//! `kill -9` at any moment does not invalidate an answer that a filter received. Afterwards the ledger has every answered
//! webhook, with all parameters and the outcome, and the sidecar grants no second claim of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use reqwest::Client;
use twilio_edge_contract::{
    Claim, Decision, EXCHANGE_MEDIA_TYPE, EXCHANGE_PATH, ExchangeReply, ExchangeRequest, Outcome,
    SettlementResult,
};

use crate::{
    support::servers::eventually,
    support::sidecar::{Sidecar, TOKEN, message, settlement},
    support::world::{Kind, World, on_every_store},
};

on_every_store!(
    two_thousand_claims_under_kills_leave_no_answered_event_missing,
    claim_granted_just_before_a_kill_is_not_granted_again,
);

const CLAIMS: usize = 2000;
const FILTERS: usize = 8;
const KILLS: usize = 5;

/// Answers that the filters received, by message. The ledger must agree with them afterwards.
#[derive(Default)]
struct ReceivedAnswers {
    by_message: Mutex<BTreeMap<String, GrantedClaim>>,
    answers: AtomicUsize,
    next: AtomicUsize,
    /// The filters begin no new batch.
    is_stopping: AtomicBool,
}

#[derive(Debug, Clone)]
struct GrantedClaim {
    claim: Claim,
    /// Address of the sidecar that granted the claim.
    base: String,
    settled: Option<Outcome>,
    /// The filter sent a settlement and received no answer, so the ledger may have it or not.
    is_unconfirmed: bool,
}

/// Small random generator. It prints its seed, so that its decisions are repeatable; the scheduling of the kernel is not.
struct Chance(u64);

impl Chance {
    fn new() -> Chance {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).unwrap();
        let seed = u64::from_le_bytes(seed);
        println!("seed {seed}");
        Chance(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33) % limit
    }
}

/// One worker of a filter: claims batches and settles two of three, until the sidecar no longer answers.
struct Filter {
    client: Client,
    base: String,
    received: Arc<ReceivedAnswers>,
    chance: Chance,
}

impl Filter {
    async fn work(mut self) {
        while !self.received.is_stopping.load(Ordering::Relaxed)
            && self.received.next.load(Ordering::Relaxed) < CLAIMS
        {
            let count = 1 + usize::try_from(self.chance.below(16)).unwrap();
            let first = self.received.next.fetch_add(count, Ordering::Relaxed);
            let claims: Vec<Claim> = (first..first + count)
                .map(|i| message(&format!("c{i}"), &format!("SM{i}")))
                .collect();
            let request = ExchangeRequest::new(claims.clone(), Vec::new());
            let Some(reply) = self.exchange(&request).await else { return };
            assert_eq!(reply.verdicts.len(), claims.len());
            self.received.answers.fetch_add(reply.verdicts.len(), Ordering::Relaxed);
            for (claim, verdict) in claims.iter().zip(reply.verdicts) {
                assert_eq!(
                    verdict.decision,
                    Decision::Proceed,
                    "no other filter claims this message"
                );
                self.change(claim, |granted| granted);
            }
            if !self.settle(&claims).await {
                return;
            }
        }
    }

    async fn settle(&mut self, claims: &[Claim]) -> bool {
        let mut settlements = Vec::new();
        for claim in claims {
            let outcome = match self.chance.below(3) {
                0 => Outcome::Commit,
                1 => Outcome::Release,
                _ => continue,
            };
            self.change(claim, |granted| GrantedClaim {
                is_unconfirmed: true,
                settled: Some(outcome),
                ..granted
            });
            settlements.push(settlement(claim, outcome));
        }
        if settlements.is_empty() {
            return true;
        }
        let request = ExchangeRequest::new(Vec::new(), settlements);
        let Some(reply) = self.exchange(&request).await else { return false };
        assert_eq!(reply.results.len(), request.settlements.len());
        for (settlement, settled) in request.settlements.iter().zip(reply.results) {
            assert_eq!(settled.result, SettlementResult::Settled);
            let mut by_message = self.received.by_message.lock().unwrap();
            by_message.get_mut(&settlement.identity.message_sid).unwrap().is_unconfirmed = false;
        }
        true
    }

    fn change(&self, claim: &Claim, change: impl FnOnce(GrantedClaim) -> GrantedClaim) {
        let mut by_message = self.received.by_message.lock().unwrap();
        let (claim, base) = (claim.clone(), self.base.clone());
        let new = GrantedClaim { claim: claim.clone(), base, settled: None, is_unconfirmed: false };
        let granted = by_message.entry(claim.identity.message_sid.clone()).or_insert(new);
        *granted = change(granted.clone());
    }

    /// Returns `None` once the sidecar has been killed.
    async fn exchange(&self, request: &ExchangeRequest) -> Option<ExchangeReply> {
        let post = self.client.post(format!("{}{EXCHANGE_PATH}", self.base)).bearer_auth(TOKEN);
        let post = post.header("content-type", EXCHANGE_MEDIA_TYPE).body(request.encode());
        let reply = post.send().await.ok()?;
        let status = reply.status();
        let body = reply.bytes().await.ok()?;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        Some(ExchangeReply::decode(&body).unwrap())
    }
}

async fn two_thousand_claims_under_kills_leave_no_answered_event_missing(world: World) {
    let (received, mut chance) = (Arc::new(ReceivedAnswers::default()), Chance::new());
    for kill in 0..=KILLS {
        let sidecar = world.sidecar().await;
        let filters = filters(&sidecar, &received, &mut chance);
        let until = received.answers.load(Ordering::Relaxed)
            + CLAIMS / KILLS / 2
            + usize::try_from(chance.below((CLAIMS / KILLS / 2) as u64)).unwrap();
        if kill < KILLS {
            wait_for_answers(&received, until).await;
            sidecar.kill();
            join(filters).await;
        } else {
            join(filters).await;
            sidecar.stop();
        }
    }
    assert!(received.answers.load(Ordering::Relaxed) > CLAIMS / 2, "most claims were answered");
    let sidecar = world.sidecar().await;
    assert_ledger_agrees(&world, &received).await;
    assert_no_claim_is_granted_again(&sidecar, &received, "").await;
}

/// One of two sidecars is killed. Its next start writes the answered claims that it had not written; meanwhile the other
/// sidecar grants none of them.
#[tokio::test]
async fn one_of_two_sidecars_on_redis_and_postgres_is_killed() {
    let world = World::new(Kind::RedisPostgres).await;
    let (received, mut chance) = (Arc::new(ReceivedAnswers::default()), Chance::new());
    let other = world.sidecar().await;
    for _ in 0..KILLS {
        let killed = world.sidecar().await;
        let (dying, others) =
            (filters(&killed, &received, &mut chance), filters(&other, &received, &mut chance));
        let until = received.answers.load(Ordering::Relaxed)
            + 100
            + usize::try_from(chance.below(100)).unwrap();
        wait_for_answers(&received, until).await;
        let base = killed.base.clone();
        killed.kill();
        join(dying).await;
        assert_no_claim_is_granted_again(&other, &received, &base).await;
        received.is_stopping.store(true, Ordering::Relaxed);
        join(others).await;
        received.is_stopping.store(false, Ordering::Relaxed);
    }
    drop(world.sidecar().await);
    other.stop();
    assert_ledger_agrees(&world, &received).await;
}

/// The sidecar delays its writes, so that it has written none of its answers when it is killed.
async fn claim_granted_just_before_a_kill_is_not_granted_again(world: World) {
    let late = [("TWILIO_EDGE_EVENTS_LINGER_MS", "20000")];
    let sidecar = world.sidecar_with(&late).await;
    let claims: Vec<Claim> =
        (0..100).map(|i| message(&format!("c{i}"), &format!("SM{i}"))).collect();
    sidecar.claim_all(claims.clone()).await;
    sidecar.release(&claims[0]).await;
    sidecar.commit(&claims[1]).await;
    sidecar.kill();
    if let Some(redis) = &world.redis {
        redis.ask("FLUSHDB").await.unwrap();
    }
    let sidecar = world.sidecar_with(&late).await;
    let rows = "SELECT message_sid || ' ' || form FROM events";
    assert_eq!(world.stored(rows).await.len(), claims.len());
    if world.kind != Kind::Postgres {
        // With PostgreSQL alone the sidecar answers only after it has written the event.
        assert!(sidecar.metric("twilio_edge_spool_replayed_total").await >= 99.0);
    }
    let again: Vec<Claim> =
        (0..100).map(|i| message(&format!("d{i}"), &format!("SM{i}"))).collect();
    let verdicts = sidecar.claim_all(again).await;
    let decisions: Vec<_> = verdicts.iter().map(|v| (v.decision, v.attempt)).collect();
    assert_eq!(decisions[..2], [(Decision::Proceed, Some(2)), (Decision::Duplicate, None)]);
    assert!(decisions[2..].iter().all(|decided| *decided == (Decision::InFlight, None)));
}

/// Proves that the test above can fail: without a spool, a kill loses the events that were not written.
#[tokio::test]
async fn sidecar_without_a_spool_loses_its_last_moments() {
    let world = World::new(Kind::Sqlite).await;
    let off = [("TWILIO_EDGE_EVENTS_LINGER_MS", "20000"), ("TWILIO_EDGE_EVENTS_SPOOL_DIR", "off")];
    let sidecar = world.sidecar_with(&off).await;
    sidecar.claim(message("c1", "SM1")).await;
    sidecar.kill();
    let sidecar = world.sidecar_with(&off).await;
    assert_eq!(world.stored("SELECT message_sid FROM events").await, [""; 0]);
    assert_eq!(sidecar.decide(message("c2", "SM1")).await, Decision::Proceed);
}

#[tokio::test]
async fn claims_wait_for_the_database_when_the_disk_takes_no_spool() {
    let world = World::new(Kind::RedisPostgres).await;
    // The limit of 4 kB for each file acts as a full disk.
    let full = "trap '' XFSZ && ulimit -f 8";
    let sidecar = world.sidecar_under(full, &[("TWILIO_EDGE_EVENTS_LINGER_MS", "20000")]).await;
    let sids: Vec<String> = (0..40).map(|i| format!("SM{i:02}")).collect();
    for sid in &sids {
        assert_eq!(sidecar.decide(message(sid, sid)).await, Decision::Proceed);
    }
    assert_eq!(sidecar.metric("twilio_edge_spool_unavailable").await, 1.0);
    assert!(sidecar.log().contains("claims wait for the database"), "{}", sidecar.log());
    sidecar.kill();
    let _next = world.sidecar().await;
    let written = world.stored("SELECT message_sid FROM events ORDER BY message_sid").await;
    assert_eq!(written, sids);
}

/// No other sidecar adopts the spool of a running sidecar. Any sidecar, also one that runs already, adopts the spool of a
/// dead one.
#[tokio::test]
async fn spool_is_adopted_once_its_sidecar_is_dead() {
    let world = World::new(Kind::RedisPostgres).await;
    let late = [("TWILIO_EDGE_EVENTS_LINGER_MS", "20000")];
    let living = world.sidecar_with(&late).await;
    living.claim(message("c1", "SM1")).await;
    let other = world.sidecar_with(&late).await;
    let killed = world.sidecar_with(&late).await;
    let replayed = async || other.metric("twilio_edge_spool_replayed_total").await;
    killed.claim(message("c2", "SM2")).await;
    assert_eq!(replayed().await, 0.0);
    killed.kill();
    eventually("one of the running sidecars adopts the spool of the dead one", || async {
        living.metric("twilio_edge_spool_replayed_total").await + replayed().await == 1.0
    })
    .await;
    let rows =
        "SELECT message_sid || ' ' || coalesce(outcome, '-') FROM events ORDER BY message_sid";
    assert_eq!(world.stored(rows).await, ["SM2 -"], "the spool of the running sidecar stays");
    assert_eq!(living.commit(&message("c1", "SM1")).await, SettlementResult::Settled);
    living.stop();
    assert_eq!(world.stored(rows).await, ["SM1 accepted", "SM2 -"]);
    assert_eq!(other.decide(message("c3", "SM2")).await, Decision::InFlight);
}

fn filters(
    sidecar: &Sidecar,
    received: &Arc<ReceivedAnswers>,
    chance: &mut Chance,
) -> Vec<tokio::task::JoinHandle<()>> {
    let start = |_| {
        let filter = Filter {
            client: sidecar.client.clone(),
            base: sidecar.base.clone(),
            received: received.clone(),
            chance: Chance(chance.below(u64::MAX)),
        };
        tokio::spawn(filter.work())
    };
    (0..FILTERS).map(start).collect()
}

async fn wait_for_answers(received: &ReceivedAnswers, count: usize) {
    eventually("the filters have received enough answers", || async {
        received.answers.load(Ordering::Relaxed) >= count
            || received.next.load(Ordering::Relaxed) >= CLAIMS
    })
    .await;
}

async fn join(filters: Vec<tokio::task::JoinHandle<()>>) {
    for filter in filters {
        filter.await.unwrap();
    }
}

async fn assert_ledger_agrees(world: &World, received: &ReceivedAnswers) {
    let rows = world
        .stored("SELECT message_sid || ' ' || coalesce(outcome, '-') || ' ' || form FROM events")
        .await;
    let rows: BTreeMap<&str, (&str, &str)> = rows
        .iter()
        .map(|row| {
            let (sid, rest) = row.split_once(' ').unwrap();
            (sid, rest.split_once(' ').unwrap())
        })
        .collect();
    for (sid, granted) in received.by_message.lock().unwrap().iter() {
        let (outcome, form) = rows.get(sid.as_str()).unwrap_or_else(|| panic!("{sid} is missing"));
        assert_eq!(*form, granted.claim.form, "{sid}");
        let expected = match granted.settled {
            Some(Outcome::Commit) => "accepted",
            Some(Outcome::Release) => "refused",
            None => "-",
        };
        assert!(
            *outcome == expected || granted.is_unconfirmed && *outcome == "-",
            "{sid}: {outcome}, {granted:?}"
        );
    }
}

/// Checks the claims of the sidecar at `base`, or all claims if `base` is empty.
async fn assert_no_claim_is_granted_again(
    sidecar: &Sidecar,
    received: &ReceivedAnswers,
    base: &str,
) {
    let claims: Vec<GrantedClaim> = received.by_message.lock().unwrap().values().cloned().collect();
    // A released message may be granted again; so may one whose release was not confirmed.
    let claims: Vec<GrantedClaim> = claims
        .into_iter()
        .filter(|granted| granted.base.starts_with(base))
        .filter(|granted| granted.settled != Some(Outcome::Release))
        .collect();
    for chunk in claims.chunks(128) {
        let ask = |granted: &GrantedClaim| {
            let identity = &granted.claim.identity;
            message(&format!("again-{}", granted.claim.claim_id), &identity.message_sid)
        };
        let verdicts = sidecar.claim_all(chunk.iter().map(ask).collect()).await;
        for (granted, verdict) in chunk.iter().zip(verdicts) {
            let expected = match (granted.settled, granted.is_unconfirmed) {
                (Some(_), false) => &[Decision::Duplicate][..],
                (Some(_), true) => &[Decision::InFlight, Decision::Duplicate],
                (None, _) => &[Decision::InFlight],
            };
            assert!(expected.contains(&verdict.decision), "{granted:?}: {verdict:?}");
        }
    }
}
