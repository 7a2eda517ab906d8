//! Many at once: at any moment at most one claim has a webhook, and no webhook is left over.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use twilio_edge_contract::Decision;

use crate::{
    support::sidecar::{Sidecar, message},
    support::world::{World, on_every_shared_store, on_every_store},
};

on_every_store!(webhook_has_at_most_one_of_a_thousand_claims_at_a_time);
on_every_shared_store!(claims_at_two_sidecars_never_both_proceed);

const KEYS: usize = 50;
const CLAIMS: usize = 1000;
/// On a busy machine, a thousand connections wait long for their first request.
const PATIENT: [(&str, &str); 1] = [("TWILIO_EDGE_CONNECTIONS_HEADER_TIMEOUT_MS", "60000")];
/// Most requests of the storm on the wire. A sidecar closes connections above `connections.max`.
static WIRE: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(200);
/// One storm at a time: each takes all cores.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The backend's view: who is at work on what, and what was accepted.
#[derive(Default)]
pub(crate) struct Backend {
    at_work: HashMap<usize, usize>,
    pub(crate) accepted: HashMap<usize, usize>,
    pub(crate) together: usize,
}

async fn webhook_has_at_most_one_of_a_thousand_claims_at_a_time(world: World) {
    let _turn = TURN.lock().await;
    let sidecar = Arc::new(world.sidecar_with(&PATIENT).await);
    let backend = storm(vec![sidecar]).await;
    assert_eq!(backend.together, 0, "a webhook was with the backend twice at once");
    assert_eq!(backend.accepted, (0..KEYS).map(|key| (key, 1)).collect(), "accepted once each");
}

async fn claims_at_two_sidecars_never_both_proceed(world: World) {
    let _turn = TURN.lock().await;
    let (one, two) = tokio::join!(world.sidecar_with(&PATIENT), world.sidecar_with(&PATIENT));
    let backend = storm(vec![Arc::new(one), Arc::new(two)]).await;
    assert_eq!(backend.together, 0, "a webhook was with the backend twice at once");
    assert_eq!(backend.accepted, (0..KEYS).map(|key| (key, 1)).collect(), "accepted once each");
}

/// A thousand requests for fifty webhooks. Each asks until it may proceed or hears that it is a duplicate; of those
/// that proceed, the first two find a backend that fails, so that the webhook is handed on.
async fn storm(sidecars: Vec<Arc<Sidecar>>) -> Backend {
    let backend = Arc::new(Mutex::new(Backend::default()));
    let requests = (0..CLAIMS).map(|i| {
        let (sidecar, backend) = (sidecars[i % sidecars.len()].clone(), backend.clone());
        tokio::spawn(async move { one_request(&sidecar, &backend, i % KEYS, i).await })
    });
    for request in requests.collect::<Vec<_>>() {
        request.await.unwrap();
    }
    Arc::into_inner(backend).unwrap().into_inner().unwrap()
}

pub(crate) async fn one_request(
    sidecar: &Sidecar,
    backend: &Mutex<Backend>,
    key: usize,
    number: usize,
) {
    let claim = message(&format!("c{number}"), &format!("SM{key}"));
    // Twilio retries after seconds; a shorter, growing pause keeps the test short and the sidecar able to answer in time.
    let mut pause = std::time::Duration::from_millis(50);
    let attempt = loop {
        let place = WIRE.acquire().await.unwrap();
        let verdict = sidecar.claim(claim.clone()).await;
        drop(place);
        match verdict.decision {
            Decision::Proceed => break verdict.attempt.unwrap(),
            Decision::Duplicate => return,
            Decision::InFlight => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(std::time::Duration::from_secs(1));
            }
            other => panic!("{other:?} for {claim:?}"),
        }
    };
    {
        let mut backend = backend.lock().unwrap();
        let at_work = backend.at_work.entry(key).or_default();
        *at_work += 1;
        backend.together += usize::from(*at_work > 1);
    }
    tokio::task::yield_now().await;
    let accept = attempt > 2;
    {
        let mut backend = backend.lock().unwrap();
        *backend.at_work.get_mut(&key).unwrap() -= 1;
        if accept {
            *backend.accepted.entry(key).or_default() += 1;
        }
    }
    let _place = WIRE.acquire().await.unwrap();
    if accept {
        sidecar.commit(&claim).await
    } else {
        sidecar.release(&claim).await
    };
}
