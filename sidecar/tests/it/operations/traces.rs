//! Traces as a collector receives them over OTLP and HTTP, and the behaviour of the sidecar while the collector is unavailable.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{Span, span::SpanKind},
};
use prost::Message;
use twilio_edge_contract::{Decision, Outcome};

use crate::{
    support::servers::{eventually, free_port},
    support::sidecar::{Sidecar, TOKEN, inbound, settlement},
    support::world::{Kind, World},
};

/// Name of the span of a filter's callout.
const EXCHANGE: &str = "POST /edge/v1/exchange";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const ALICE: &str = "whatsapp:+15551230001";

/// All received spans, and the received bytes, in which tests search for secrets.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<(Vec<Span>, Vec<u8>)>>);

impl Collected {
    fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap().0.clone()
    }

    fn named(&self, name: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.name == name).collect()
    }
}

async fn take(State(collected): State<Collected>, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body.clone()).unwrap();
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    let mut all = collected.0.lock().unwrap();
    all.0.extend(scopes.flat_map(|scope| scope.spans));
    all.1.extend(body);
}

async fn collector() -> (Collected, String) {
    let collected = Collected::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/v1/traces", post(take)).with_state(collected.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (collected, format!("http://{address}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn exporting(world: &World, endpoint: &str) -> Sidecar {
    let settings =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), ("TWILIO_EDGE_TELEMETRY_EVERY_MS", "50")];
    world.sidecar_with(&settings).await
}

// The collector still accepts spans while the test waits for the end of the sidecar.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claim_is_in_the_trace_of_its_webhook() {
    let (collected, endpoint) = collector().await;
    let world = World::new(Kind::Sqlite).await;
    let sidecar = exporting(&world, &endpoint).await;
    let mut traced = inbound("c1", "SM1", ALICE, "this is confidential");
    traced.traceparent = Some(format!("00-{TRACE}-{PARENT}-01"));
    let mut unsampled = inbound("c2", "SM2", ALICE, "this is confidential");
    unsampled.traceparent = Some(format!("00-{}-{PARENT}-00", TRACE.replace('4', "5")));
    let untraced = inbound("c3", "SM3", ALICE, "this is confidential");
    let verdicts = sidecar.claim_all(vec![traced, unsampled, untraced]).await;
    assert!(verdicts.iter().all(|verdict| verdict.decision == Decision::Proceed));

    eventually("the claim and its callout are exported", || async {
        !collected.named("claim").is_empty() && !collected.named(EXCHANGE).is_empty()
    })
    .await;
    let claims = collected.named("claim");
    assert_eq!(claims.len(), 1, "an unsampled or untraced claim has no span");
    assert_eq!(hex(&claims[0].trace_id), TRACE);
    assert_eq!(hex(&claims[0].parent_span_id), PARENT);
    let callout = &collected.named(EXCHANGE)[0];
    assert_eq!(claims[0].links[0].span_id, callout.span_id, "the claim is linked to its callout");
    assert_ne!(callout.trace_id, claims[0].trace_id);
    assert_eq!(callout.kind, SpanKind::Server as i32);

    // Children of the claim are the store operations of the claims of its exchange, in order. The operations of settlements are
    // children of the callout.
    sidecar.commit(&inbound("c1", "SM1", ALICE, "this is confidential")).await;
    eventually("a settlement is exported", || async { collected.named(EXCHANGE).len() == 2 }).await;
    let settled = &collected.named(EXCHANGE)[1];
    let mut traced = inbound("c5", "SM5", ALICE, "this is confidential");
    traced.traceparent = Some(format!("00-{TRACE}-{PARENT}-01"));
    let commit = settlement(&inbound("c2", "SM2", ALICE, "this is confidential"), Outcome::Commit);
    sidecar.exchange(vec![traced], vec![commit]).await;
    eventually("the exchange of both is exported", || async {
        collected.named("claim").len() == 2 && collected.named(EXCHANGE).len() == 3
    })
    .await;
    let (both, second) = (&collected.named(EXCHANGE)[2], &collected.named("claim")[1]);
    assert_eq!(second.links[0].span_id, both.span_id);
    for (parent, names) in [
        (&claims[0], ["leases_claim", "ledger_look_up", "journal_note"].as_slice()),
        (settled, ["journal_note", "leases_commit"].as_slice()),
        (callout, &[]),
        (second, &["leases_claim", "ledger_look_up", "journal_note"]),
        (both, &["journal_note", "leases_commit"]),
    ] {
        let mut steps = collected.spans();
        steps.retain(|span| span.parent_span_id == parent.span_id);
        steps.sort_by_key(|span| span.start_time_unix_nano);
        let step_names: Vec<_> = steps.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(step_names, names, "{}", parent.name);
        for step in &steps {
            assert_eq!(step.trace_id, parent.trace_id);
            assert_eq!(step.kind, SpanKind::Client as i32);
            // The clock may be read to the microsecond only.
            let within = parent.start_time_unix_nano.saturating_sub(1_000_000)
                ..=parent.end_time_unix_nano + 1_000_000;
            assert!(within.contains(&step.start_time_unix_nano), "{step:?}");
            assert!(within.contains(&step.end_time_unix_nano), "{step:?}");
        }
    }

    // An API request with a `traceparent` is part of that trace.
    let key = format!("{}/v1/key", sidecar.base);
    let request = sidecar.client.get(key).header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    assert_eq!(request.bearer_auth(TOKEN).send().await.unwrap().status(), 403);
    eventually("the request is exported", || async { !collected.named("GET /v1/key").is_empty() })
        .await;
    let asked = &collected.named("GET /v1/key")[0];
    assert_eq!((hex(&asked.trace_id), hex(&asked.parent_span_id)), (TRACE.into(), PARENT.into()));

    // The sidecar exports waiting spans before it stops. No span contains personal data.
    sidecar.claim_all(vec![inbound("c4", "SM4", ALICE, "this is confidential")]).await;
    sidecar.stop();
    assert_eq!(collected.named(EXCHANGE).len(), 4);
    let bytes = String::from_utf8_lossy(&collected.0.lock().unwrap().1).into_owned();
    for secret in ["confidential", "5551230001", TOKEN] {
        assert!(!bytes.contains(secret), "{secret}");
    }
}

/// The trace shows the failed call of the unavailable store, and the call of the store that replaces it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_shows_a_failed_store() {
    let (collected, endpoint) = collector().await;
    let mut world = World::new(Kind::RedisPostgres).await;
    world.own_redis().await;
    let sidecar = exporting(&world, &endpoint).await;
    world.redis.as_mut().unwrap().kill();
    let mut traced = inbound("c1", "SM1", ALICE, "hi");
    traced.traceparent = Some(format!("00-{TRACE}-{PARENT}-01"));
    assert_eq!(sidecar.decide(traced).await, Decision::Proceed);
    sidecar.stop();
    let claim = &collected.named("claim")[0];
    let mut steps = collected.spans();
    steps.retain(|span| span.parent_span_id == claim.span_id);
    steps.sort_by_key(|span| span.start_time_unix_nano);
    let outcomes: Vec<_> = steps
        .iter()
        .map(|span| (span.name.as_str(), span.status.as_ref().map_or(0, |status| status.code)))
        .collect();
    // 2 is an error in OTLP.
    assert_eq!(outcomes, [("leases_claim", 2), ("ledger_claim", 0)]);
}

#[tokio::test]
async fn unavailable_collector_changes_nothing() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let closed = format!("http://127.0.0.1:{}", free_port());
    for endpoint in [silent, closed] {
        let world = World::new(Kind::Sqlite).await;
        let settings = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("TWILIO_EDGE_TELEMETRY_EVERY_MS", "20"),
            ("TWILIO_EDGE_TELEMETRY_TIMEOUT_MS", "300"),
        ];
        let sidecar = world.sidecar_with(&settings).await;
        for nth in 0..40 {
            let mut claim = inbound("c1", &format!("SM{nth}"), ALICE, "hi");
            claim.traceparent = Some(format!("00-{TRACE}-{PARENT}-01"));
            assert_eq!(sidecar.decide(claim).await, Decision::Proceed);
        }
        eventually("the failed exports are counted", || async {
            sidecar.metric("twilio_edge_trace_exports_failed_total").await > 0.0
        })
        .await;
        let log = sidecar.stop();
        assert_eq!(log.matches("the trace collector did not accept spans").count(), 1, "{log}");
        assert!(log.contains("sidecar.stopped"), "{log}");
    }
}
