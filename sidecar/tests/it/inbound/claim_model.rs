//! Compares random histories of claims, commits, releases and pauses with a model of the guarantees. The tests call every
//! combination of stores directly, so that they can set the time.

use std::{collections::BTreeMap, ffi::OsString, sync::Arc};

use proptest::{prelude::*, test_runner::TestRunner};
use twilio_edge_contract::{Outcome, SettlementResult};
use twilio_edge_domain::{lease::ClaimOutcome, optout::Lexicon, webhook::Webhook};
use twilio_edge_platform::{config::Merged, tasks::Supervisor};
use twilio_edge_store::{SettlementInput, Stores};

use crate::{
    support::servers::Redis,
    support::sidecar::message,
    support::world::{Kind, World},
};

const PERIOD_MS: i64 = 1000;

#[derive(Debug, Clone)]
enum Step {
    Claim(u8, u8),
    Commit(u8, u8),
    Release(u8, u8),
    Pass(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let (key, claim) = (0..2u8, 0..4u8);
    prop_oneof![
        5 => (key.clone(), claim.clone()).prop_map(|(key, claim)| Step::Claim(key, claim)),
        1 => (key.clone(), claim.clone()).prop_map(|(key, claim)| Step::Commit(key, claim)),
        3 => (key, claim).prop_map(|(key, claim)| Step::Release(key, claim)),
        3 => (1..PERIOD_MS * 3 / 2).prop_map(Step::Pass),
    ]
}

/// Guarantees about one webhook, derived from its history.
#[derive(Default)]
struct Promise {
    accepted: bool,
    holder: Option<(u8, i64)>,
    granted: u32,
    /// Results that a repeated release of a claim without a lease returns, by claim.
    released: BTreeMap<u8, SettlementResult>,
}

impl Promise {
    fn claim(&mut self, claim: u8, now: i64) -> &'static str {
        use SettlementResult::{Settled, Tombstoned};
        if self.accepted {
            return "duplicate";
        }
        if matches!(self.released.get(&claim), Some(Settled | Tombstoned)) {
            return "released";
        }
        match self.holder {
            Some((holder, until)) if holder != claim && now < until => return "in flight",
            Some((holder, _)) if holder == claim => {}
            overtaken => {
                self.granted += 1;
                self.released
                    .extend(overtaken.map(|(late, _)| (late, SettlementResult::Superseded)));
            }
        }
        self.holder = Some((claim, now + PERIOD_MS));
        "proceed"
    }

    fn commit(&mut self) -> SettlementResult {
        self.accepted = true;
        SettlementResult::Settled
    }

    fn release(&mut self, claim: u8) -> SettlementResult {
        if self.accepted {
            return SettlementResult::Superseded;
        }
        if self.holder.is_some_and(|(holder, _)| holder == claim) {
            self.holder = None;
            self.released.insert(claim, SettlementResult::Settled);
        }
        *self.released.entry(claim).or_insert(SettlementResult::Tombstoned)
    }
}

/// Opens the stores as the sidecar does, with leases of `period_ms`.
pub(crate) async fn stores_with(world: &World, period_ms: i64) -> Stores {
    let redis = world.redis.as_ref().map(Redis::url).unwrap_or_default();
    let period = period_ms.to_string();
    let settings = [
        ("DATABASE_URL", world.database_url.clone()),
        ("REDIS_URL", redis),
        ("TWILIO_EDGE_LEASES_PERIOD_MS", period),
        (
            "TWILIO_EDGE_EVENTS_SPOOL_DIR",
            world.directory.path().join("spool").display().to_string(),
        ),
        // The stores write some events during a history and some after it.
        ("TWILIO_EDGE_EVENTS_LINGER_MS", "3".into()),
        ("TWILIO_EDGE_REDIS_TIMEOUT_MS", "30000".into()),
        ("TWILIO_EDGE_DATABASE_TIMEOUT_MS", "60000".into()),
    ];
    let settings = settings.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let config = Merged::read(None, settings.into_iter()).check().unwrap();
    {
        let tasks = Supervisor::new(Arc::default());
        Stores::open(&config, Default::default(), Arc::default(), &tasks).await.unwrap()
    }
}

/// Plays a history. Returns an error at the first step where the stores break a guarantee.
async fn play(stores: &Stores, run: u32, steps: &[Step]) -> Result<(), String> {
    let mut promises = BTreeMap::<u8, Promise>::new();
    let mut now = 1_000_000;
    for (place, step) in steps.iter().enumerate() {
        let webhook = |key: u8, claim: u8| {
            let claim = message(&format!("c{claim}"), &format!("SM{run}-{key}"));
            Webhook::from_claim(claim, &Lexicon::default()).unwrap()
        };
        let settle = |key, claim, outcome| {
            let Webhook { key, claim_id, identity, .. } = webhook(key, claim);
            vec![SettlementInput {
                identity,
                key,
                claim_id,
                outcome,
                answer: None,
                unclaimed: None,
            }]
        };
        let (promised, happened) = match *step {
            Step::Pass(time) => {
                now += time;
                continue;
            }
            Step::Claim(key, claim) => {
                let promise = promises.entry(key).or_default();
                let promised = match promise.claim(claim, now) {
                    "proceed" => format!("proceed {}", promise.granted),
                    other => other.to_owned(),
                };
                let grant = stores.claim(&[&webhook(key, claim)], now).await.remove(0).unwrap();
                let happened = match grant.claimed {
                    ClaimOutcome::Proceed { attempt, .. } => format!("proceed {attempt}"),
                    ClaimOutcome::Duplicate(_) => "duplicate".into(),
                    ClaimOutcome::InFlight => "in flight".into(),
                    ClaimOutcome::Released => "released".into(),
                };
                (promised, happened)
            }
            Step::Commit(key, claim) => {
                let promised = promises.entry(key).or_default().commit();
                let happened = stores.settle(settle(key, claim, Outcome::Commit), now).await;
                (format!("{promised:?}"), format!("{:?}", happened[0].unwrap()))
            }
            Step::Release(key, claim) => {
                let promised = promises.entry(key).or_default().release(claim);
                let happened = stores.settle(settle(key, claim, Outcome::Release), now).await;
                (format!("{promised:?}"), format!("{:?}", happened[0].unwrap()))
            }
        };
        if promised != happened {
            return Err(format!("step {place}, {step:?}: promised {promised}, got {happened}"));
        }
    }
    Ok(())
}

fn every_history_keeps_its_promises(kind: Kind) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::new(kind));
    let stores = runtime.block_on(stores_with(&world, PERIOD_MS));
    let runs = std::cell::Cell::new(0);
    let histories = prop::collection::vec(step(), 1..40);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) };
    let played = TestRunner::new(config).run(&histories, |steps| {
        runs.set(runs.get() + 1);
        runtime.block_on(play(&stores, runs.get(), &steps)).map_err(TestCaseError::fail)
    });
    played.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn every_history_keeps_its_promises_on_sqlite() {
    every_history_keeps_its_promises(Kind::Sqlite);
}

#[test]
fn every_history_keeps_its_promises_on_postgres() {
    every_history_keeps_its_promises(Kind::Postgres);
}

#[test]
fn every_history_keeps_its_promises_on_redis_before_sqlite() {
    every_history_keeps_its_promises(Kind::RedisSqlite);
}

#[test]
fn every_history_keeps_its_promises_on_redis_before_postgres() {
    every_history_keeps_its_promises(Kind::RedisPostgres);
}
