//! Sixty-four claimers compete for the same ten thousand webhooks, directly at the stores. Each webhook has one winner, and
//! the ledger agrees with the results of its settlements. Eight claimers claim each webhook at once. If
//! TWILIO_EDGE_ALL_CLAIMERS is set, all sixty-four do, which takes a minute for each combination of stores.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use twilio_edge_contract::{Outcome, SettlementResult};
use twilio_edge_domain::{lease::ClaimOutcome, optout::Lexicon, webhook::Webhook};
use twilio_edge_store::{SettlementInput, Stores};

use crate::{
    inbound::claim_model::stores_with,
    support::servers::eventually,
    support::sidecar::message,
    support::world::{World, on_every_store},
};

on_every_store!(sixty_four_claimers_of_ten_thousand_keys_have_one_winner_each);

const CLAIMERS: usize = 64;
const KEYS: usize = 10_000;
const BATCH: usize = 250;

/// Requests of one webhook that the backend handles, refuses and accepts.
#[derive(Default)]
struct Backend {
    at_work: AtomicU32,
    refused: AtomicU32,
    accepted: AtomicU32,
    together: AtomicU32,
}

async fn sixty_four_claimers_of_ten_thousand_keys_have_one_winner_each(world: World) {
    // The leases are long, because a busy machine may be slow between a claim and its settlement.
    let stores = stores_with(&world, 60_000).await;
    let webhooks: Arc<[Webhook]> = (0..KEYS)
        .map(|key| {
            let claim = message("c", &format!("SM{key}"));
            Webhook::from_claim(claim, &Lexicon::default()).unwrap()
        })
        .collect();
    let backend: Arc<[Backend]> = (0..KEYS).map(|_| Backend::default()).collect();
    let all = std::env::var_os("TWILIO_EDGE_ALL_CLAIMERS").is_some();
    let claimers = (0..CLAIMERS).map(|claimer| {
        let (stores, webhooks, backend) = (stores.clone(), webhooks.clone(), backend.clone());
        let batches = (0..KEYS / BATCH).filter(move |batch| all || batch % 8 == claimer % 8);
        tokio::spawn(async move {
            for batch in batches {
                let keys: Vec<usize> = (batch * BATCH..(batch + 1) * BATCH).collect();
                claim_and_settle(&stores, &webhooks, &backend, claimer, keys).await;
            }
        })
    });
    for claimer in claimers.collect::<Vec<_>>() {
        claimer.await.unwrap();
    }
    // Claims the webhooks that were released after all claimers had tried.
    let left = (0..KEYS).filter(|key| backend[*key].accepted.load(Ordering::Relaxed) == 0);
    claim_and_settle(&stores, &webhooks, &backend, CLAIMERS, left.collect()).await;

    for (key, seen) in backend.iter().enumerate() {
        let count = |count: &AtomicU32| count.load(Ordering::Relaxed);
        assert_eq!(count(&seen.together), 0, "key {key} was with the backend twice at once");
        let counts = (count(&seen.accepted), count(&seen.refused));
        assert_eq!(counts, (1, u32::from(is_refused_first(key))), "key {key}");
    }
    let rows = "SELECT CAST(count(*) AS TEXT) || ' ' || CAST(sum(attempts) AS TEXT) FROM events
        WHERE outcome = 'accepted'";
    let refused = (0..KEYS).filter(|key| is_refused_first(*key)).count();
    let expected = [format!("{KEYS} {}", KEYS + refused)];
    eventually("the ledger agrees", || async { world.stored(rows).await == expected }).await;
}

fn is_refused_first(key: usize) -> bool {
    key.is_multiple_of(4)
}

async fn claim_and_settle(
    stores: &Stores,
    webhooks: &[Webhook],
    backend: &[Backend],
    claimer: usize,
    keys: Vec<usize>,
) {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let claims: Vec<Webhook> = keys
        .iter()
        .map(|key| Webhook { claim_id: format!("c{claimer}-{key}"), ..webhooks[*key].clone() })
        .collect();
    let grants = stores.claim(&claims.iter().collect::<Vec<_>>(), now_ms).await;
    let mut settles = Vec::new();
    let mut won = Vec::new();
    for ((key, claim), grant) in keys.into_iter().zip(&claims).zip(grants) {
        let attempt = match grant.unwrap().claimed {
            ClaimOutcome::Proceed { attempt, .. } => attempt,
            ClaimOutcome::Duplicate(_) | ClaimOutcome::InFlight | ClaimOutcome::Released => {
                continue;
            }
        };
        let seen = &backend[key];
        seen.together.fetch_add(seen.at_work.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let outcome = match is_refused_first(key) && attempt == 1 {
            true => Outcome::Release,
            false => Outcome::Commit,
        };
        won.push((key, outcome));
        settles.push(SettlementInput {
            identity: claim.identity.clone(),
            key: claim.key.clone(),
            claim_id: claim.claim_id.clone(),
            outcome,
            answer: None,
            unclaimed: None,
        });
    }
    tokio::task::yield_now().await;
    for (key, outcome) in &won {
        let seen = &backend[*key];
        seen.at_work.fetch_sub(1, Ordering::Relaxed);
        let count = if *outcome == Outcome::Commit { &seen.accepted } else { &seen.refused };
        count.fetch_add(1, Ordering::Relaxed);
    }
    let results = stores.settle(settles, now_ms).await;
    assert_eq!(results.len(), won.len());
    assert!(results.iter().all(|result| *result == Some(SettlementResult::Settled)), "{results:?}");
}
