//! `kill -9` at any moment: what a filter was told stands. Whatever got its answer is in the ledger afterwards, with every
//! parameter and its outcome, and is handed out again to nobody.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use reqwest::Client;
use serde::{Serialize, de::DeserializeOwned};
use twilio_edge_contract::{
    CLAIMS_PATH, Claim, ClaimsReply, ClaimsRequest, Decision, Outcome, PROTOCOL_VERSION,
    SETTLEMENTS_PATH, SettlementResult, SettlementsReply, SettlementsRequest,
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

/// What the filters were told, by message: all that must be true afterwards.
#[derive(Default)]
struct Told {
    by_message: Mutex<BTreeMap<String, Word>>,
    answers: AtomicUsize,
    next: AtomicUsize,
    /// Nobody begins anything new.
    over: AtomicBool,
}

#[derive(Debug, Clone)]
struct Word {
    claim: Claim,
    /// The sidecar that was asked.
    base: String,
    settled: Option<Outcome>,
    /// Settled, and nobody heard whether: either is true.
    unsure: bool,
}

/// A small generator whose seed is printed: what it decides can be had again, if not the moments of the kernel.
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

/// One worker of a filter: claims batches and settles two of three, until nobody answers any more.
struct Filter {
    client: Client,
    base: String,
    told: Arc<Told>,
    chance: Chance,
}

impl Filter {
    async fn work(mut self) {
        while !self.told.over.load(Ordering::Relaxed)
            && self.told.next.load(Ordering::Relaxed) < CLAIMS
        {
            let count = 1 + usize::try_from(self.chance.below(16)).unwrap();
            let first = self.told.next.fetch_add(count, Ordering::Relaxed);
            let claims: Vec<Claim> = (first..first + count)
                .map(|i| message(&format!("c{i}"), &format!("SM{i}")))
                .collect();
            let request = ClaimsRequest { v: PROTOCOL_VERSION, claims: claims.clone() };
            let Some(reply) = self.ask::<ClaimsReply>(CLAIMS_PATH, &request).await else { return };
            self.told.answers.fetch_add(reply.verdicts.len(), Ordering::Relaxed);
            for (claim, verdict) in claims.iter().zip(reply.verdicts) {
                assert_eq!(verdict.decision, Decision::Proceed, "nobody else asked for it");
                self.change(claim, |word| word);
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
            self.change(claim, |word| Word { unsure: true, settled: Some(outcome), ..word });
            settlements.push(settlement(claim, outcome));
        }
        if settlements.is_empty() {
            return true;
        }
        let request = SettlementsRequest { v: PROTOCOL_VERSION, settlements };
        let reply = self.ask::<SettlementsReply>(SETTLEMENTS_PATH, &request).await;
        let Some(reply) = reply else { return false };
        for (settlement, settled) in request.settlements.iter().zip(reply.results) {
            assert_eq!(settled.result, SettlementResult::Settled);
            let mut told = self.told.by_message.lock().unwrap();
            told.get_mut(&settlement.identity.message_sid).unwrap().unsure = false;
        }
        true
    }

    fn change(&self, claim: &Claim, change: impl FnOnce(Word) -> Word) {
        let mut told = self.told.by_message.lock().unwrap();
        let (claim, base) = (claim.clone(), self.base.clone());
        let new = Word { claim: claim.clone(), base, settled: None, unsure: false };
        let word = told.entry(claim.identity.message_sid.clone()).or_insert(new);
        *word = change(word.clone());
    }

    /// None once the sidecar is gone.
    async fn ask<T: DeserializeOwned>(&self, path: &str, request: &impl Serialize) -> Option<T> {
        let request = serde_json::to_vec(request).unwrap();
        let post =
            self.client.post(format!("{}{path}", self.base)).bearer_auth(TOKEN).body(request);
        let reply = post.send().await.ok()?;
        let status = reply.status();
        let body = reply.bytes().await.ok()?;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        Some(serde_json::from_slice(&body).unwrap())
    }
}

async fn two_thousand_claims_under_kills_leave_no_answered_event_missing(world: World) {
    let (told, mut chance) = (Arc::new(Told::default()), Chance::new());
    for kill in 0..=KILLS {
        let sidecar = world.sidecar().await;
        let filters = filters(&sidecar, &told, &mut chance);
        let until = told.answers.load(Ordering::Relaxed)
            + CLAIMS / KILLS / 2
            + usize::try_from(chance.below((CLAIMS / KILLS / 2) as u64)).unwrap();
        if kill < KILLS {
            until_answers(&told, until).await;
            sidecar.kill();
            join(filters).await;
        } else {
            join(filters).await;
            sidecar.stop();
        }
    }
    assert!(told.answers.load(Ordering::Relaxed) > CLAIMS / 2, "most claims were answered");
    let sidecar = world.sidecar().await;
    everything_told_is_true(&world, &told).await;
    nothing_is_handed_out_again(&sidecar, &told, "").await;
}

/// One of two is killed; what it was told and had not written is written by its next start, and meanwhile the other one
/// hands out nothing of it.
#[tokio::test]
async fn one_of_two_sidecars_on_redis_and_postgres_is_killed() {
    let world = World::new(Kind::RedisPostgres).await;
    let (told, mut chance) = (Arc::new(Told::default()), Chance::new());
    let other = world.sidecar().await;
    for _ in 0..KILLS {
        let killed = world.sidecar().await;
        let (dying, others) =
            (filters(&killed, &told, &mut chance), filters(&other, &told, &mut chance));
        let until = told.answers.load(Ordering::Relaxed)
            + 100
            + usize::try_from(chance.below(100)).unwrap();
        until_answers(&told, until).await;
        let base = killed.base.clone();
        killed.kill();
        join(dying).await;
        nothing_is_handed_out_again(&other, &told, &base).await;
        told.over.store(true, Ordering::Relaxed);
        join(others).await;
        told.over.store(false, Ordering::Relaxed);
    }
    drop(world.sidecar().await);
    other.stop();
    everything_told_is_true(&world, &told).await;
}

/// The last moments of a sidecar, made long: nothing of it has been written when it is killed.
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
        // There nothing was answered before it was written.
        assert!(sidecar.metric("twilio_edge_spool_replayed_total").await >= 99.0);
    }
    let again: Vec<Claim> =
        (0..100).map(|i| message(&format!("d{i}"), &format!("SM{i}"))).collect();
    let verdicts = sidecar.claim_all(again).await;
    let decisions: Vec<_> = verdicts.iter().map(|v| (v.decision, v.attempt)).collect();
    assert_eq!(decisions[..2], [(Decision::Proceed, Some(2)), (Decision::Duplicate, None)]);
    assert!(decisions[2..].iter().all(|decided| *decided == (Decision::InFlight, None)));
}

/// The same with what the operator chose to lose: the test above can fail.
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
    // No file of it may have more than 4 kB, as if the disk were full.
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

/// A living sidecar's spool is nobody else's; a dead one's is whoever's finds it, also of those that run already.
#[tokio::test]
async fn a_spool_is_adopted_once_its_sidecar_is_dead() {
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
    eventually("the spool of the dead one is adopted by one of the living", || async {
        living.metric("twilio_edge_spool_replayed_total").await + replayed().await == 1.0
    })
    .await;
    let rows =
        "SELECT message_sid || ' ' || coalesce(outcome, '-') FROM events ORDER BY message_sid";
    assert_eq!(world.stored(rows).await, ["SM2 -"], "and nothing of the living");
    assert_eq!(living.commit(&message("c1", "SM1")).await, SettlementResult::Settled);
    assert_eq!(world.stored(rows).await, ["SM1 accepted", "SM2 -"]);
    assert_eq!(other.decide(message("c3", "SM2")).await, Decision::InFlight);
}

fn filters(
    sidecar: &Sidecar,
    told: &Arc<Told>,
    chance: &mut Chance,
) -> Vec<tokio::task::JoinHandle<()>> {
    let start = |_| {
        let filter = Filter {
            client: sidecar.client.clone(),
            base: sidecar.base.clone(),
            told: told.clone(),
            chance: Chance(chance.below(u64::MAX)),
        };
        tokio::spawn(filter.work())
    };
    (0..FILTERS).map(start).collect()
}

async fn until_answers(told: &Told, count: usize) {
    eventually("the filters were answered", || async {
        told.answers.load(Ordering::Relaxed) >= count || told.next.load(Ordering::Relaxed) >= CLAIMS
    })
    .await;
}

async fn join(filters: Vec<tokio::task::JoinHandle<()>>) {
    for filter in filters {
        filter.await.unwrap();
    }
}

async fn everything_told_is_true(world: &World, told: &Told) {
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
    for (sid, word) in told.by_message.lock().unwrap().iter() {
        let (outcome, form) = rows.get(sid.as_str()).unwrap_or_else(|| panic!("{sid} is missing"));
        assert_eq!(*form, word.claim.form, "{sid}");
        let expected = match word.settled {
            Some(Outcome::Commit) => "accepted",
            Some(Outcome::Release) => "refused",
            None => "-",
        };
        assert!(
            *outcome == expected || word.unsure && *outcome == "-",
            "{sid}: {outcome}, {word:?}"
        );
    }
}

/// Of what the sidecar at `base` was asked, if one is named.
async fn nothing_is_handed_out_again(sidecar: &Sidecar, told: &Told, base: &str) {
    let words: Vec<Word> = told.by_message.lock().unwrap().values().cloned().collect();
    // What was released may be handed out again, and what nobody heard of may have been released.
    let words: Vec<Word> = words
        .into_iter()
        .filter(|word| word.base.starts_with(base))
        .filter(|word| word.settled != Some(Outcome::Release))
        .collect();
    for words in words.chunks(128) {
        let ask = |word: &Word| {
            let identity = &word.claim.identity;
            message(&format!("again-{}", word.claim.claim_id), &identity.message_sid)
        };
        let verdicts = sidecar.claim_all(words.iter().map(ask).collect()).await;
        for (word, verdict) in words.iter().zip(verdicts) {
            let expected = match (word.settled, word.unsure) {
                (Some(_), false) => &[Decision::Duplicate][..],
                (Some(_), true) => &[Decision::InFlight, Decision::Duplicate],
                (None, _) => &[Decision::InFlight],
            };
            assert!(expected.contains(&verdict.decision), "{word:?}: {verdict:?}");
        }
    }
}
