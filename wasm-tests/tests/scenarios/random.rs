//! Random histories: requests of every kind and framing, a sidecar and a backend with any behaviour
//! at any time, clients that disconnect, configurations that change. The invariants hold in all of them, and both builds give the
//! same results. PROPTEST_CASES sets their number; the default is a few hundred.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, ensure};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use twilio_edge_contract::{Decision, SavedAnswer};
use twilio_edge_wasm_tests::host::{Cluster, HttpMessage};
use twilio_edge_wasm_tests::webhook::Form;

use crate::request::{Request, Shape};
use crate::sidecar::Behaviour;
use crate::table::{configuration, shadow, with_policy_reject, without_sidecar};
use crate::world::{Backend, Record, Setting, Step};
use crate::{compiled, laws, native};

const CASES: u32 = 150;

/// Checks the invariants of the compiled filter, and that it gives the same results as the native one.
pub(crate) fn both_builds_agree() -> Result<()> {
    run(CASES, |(setting, script)| {
        let one = compiled(setting, script)?;
        let other = native(setting, script)?;
        laws::check(&one)?;
        laws::check(&other)?;
        agree(&one, &other)
    })
}

/// Checks the invariants of the native build, which is faster.
pub(crate) fn laws_hold() -> Result<()> {
    run(CASES * 3, |(setting, script)| laws::check(&native(setting, script)?))
}

type History = (Setting, Vec<Step>);

fn run(cases: u32, holds: fn(&History) -> Result<()>) -> Result<()> {
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    let result = TestRunner::new(config).run(&histories()?, |history| {
        holds(&history).map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    result.map_err(|error| match error {
        TestError::Fail(why, (setting, script)) => {
            let steps: Vec<_> = script.iter().map(|step| format!("    {step:?}")).collect();
            anyhow!("{why}\n{setting:?}\n{}", steps.join("\n"))
        }
        TestError::Abort(why) => anyhow!("{why}"),
    })
}

fn histories() -> Result<impl Strategy<Value = History>> {
    let steps = proptest::collection::vec(steps(&requests()?), 1..24);
    Ok((settings(), steps))
}

/// Few enough that the same webhook often comes again.
fn requests() -> Result<Vec<Request>> {
    let inbound = ["hello", "STOP", "a third message"].map(Form::inbound);
    let mut requests = Vec::new();
    for form in &inbound {
        requests.extend([Request::post(form)?, Request::post(form)?]);
    }
    let status = Form::status("delivered");
    requests.extend([Request::post(&status)?, Request::get(&status)?]);
    requests.push(Request::post(&Form::other())?);
    requests.push(Request::post_with(&Form::inbound("forged"), "not-the-token")?);
    requests.push(Request::new("PUT", "/twilio/inbound", b"anything"));
    requests.push(Request::new("POST", "/twilio/inbound", b""));
    requests.push(Request::new("POST", "/twilio/inbound", &[b'a'; 70_000]));
    requests.push(Request::new("POST", "/app/orders", b"not ours"));
    requests.push(Request::new("GET", "/app/orders", b""));
    let disguise = |request: &Request| {
        request.clone().with("x-twilio-edge-verified", "AC").with("x_twilio_edge_opt", "stop")
    };
    let disguised: Vec<_> = requests.iter().map(disguise).collect();
    requests.extend(disguised);
    Ok(requests)
}

fn shaped(requests: &[Request]) -> impl Strategy<Value = Request> + use<> {
    let ends = [("x-checksum", "1"), ("x-twilio-edge-opt", "stop")];
    (select(requests.to_vec()), 0..6_usize, any::<prop::sample::Index>()).prop_map(
        move |(request, shape, size)| match shape {
            0 if !request.body.is_empty() => request.shaped(Shape::OnePart),
            1 if !request.body.is_empty() => request.shaped(Shape::ThenNothing),
            2 if !request.body.is_empty() => {
                let size = 1 + size.index(request.body.len());
                request.shaped(Shape::Parts(size.max(16)))
            }
            3 => request.trailers(&ends),
            _ => request,
        },
    )
}

fn settings() -> impl Strategy<Value = Setting> {
    let plain: fn(&mut serde_json::Value) = |_| ();
    let changes = select(vec![plain, plain, plain, without_sidecar, shadow, with_policy_reject]);
    let claims = proptest::collection::vec(behaviour(), 0..6);
    let settlements = proptest::collection::vec(behaviour(), 0..6);
    let reports = proptest::collection::vec(behaviour(), 0..4);
    let backend = proptest::collection::vec(backends(), 0..8);
    let up = Some(Cluster::Up);
    let cluster = select(vec![up, up, up, up, up, Some(Cluster::NoEndpoint), None]);
    (changes, claims, settlements, reports, backend, cluster).prop_map(
        |(change, claims, settlements, reports, backend, cluster)| {
            let mut configuration = configuration();
            change(&mut configuration);
            let keys = Vec::new();
            Setting { configuration, claims, settlements, keys, reports, backend, cluster }
        },
    )
}

fn behaviour() -> impl Strategy<Value = Behaviour> {
    let saved = |status| SavedAnswer {
        status,
        content_type: "text/xml".to_owned(),
        body: "<Response><Message>check</Message></Response>".to_owned(),
    };
    let at_once = prop_oneof![
        6 => Just(Behaviour::Works),
        1 => select(vec![
            Decision::Duplicate,
            Decision::InFlight,
            Decision::Released,
            Decision::Unavailable,
            Decision::Accepted,
        ]).prop_map(Behaviour::Decides),
        1 => select(vec![200, 500]).prop_map(move |status| Behaviour::AnswersDuplicate(saved(status))),
        3 => select(vec![
            Behaviour::NamesAnotherClaim,
            Behaviour::WrongVersion,
            Behaviour::AsText,
            Behaviour::AsJson,
            Behaviour::Truncates,
            Behaviour::Garbage,
            Behaviour::Fails(503),
            Behaviour::OmitsHeaders,
            Behaviour::Silent,
        ]),
    ];
    (at_once, prop_oneof![3 => Just(0), 1 => 1..700_u64]).prop_map(|(behaviour, ms)| match ms {
        0 => behaviour,
        ms => Behaviour::Late(ms, Box::new(behaviour)),
    })
}

fn backends() -> impl Strategy<Value = Backend> {
    let at_once = prop_oneof![
        3 => select(vec![200, 201, 302, 404, 429, 500, 503]).prop_map(Backend::status),
        3 => select(vec!["<Response/>".to_owned(), "<Response>".repeat(600)])
            .prop_map(|body| Backend::twiml(&body)),
        1 => select(vec![200, 500]).prop_map(|it| Backend::WithTrailers(Box::new(Backend::status(it)))),
        2 => select(vec![
            Backend::Empty(204),
            Backend::Empty(500),
            Backend::Resets,
            Backend::ResetsInBody,
            Backend::Silent,
            Backend::EnvoyAnswers(504, "response_timeout"),
            Backend::EnvoyAnswers(200, "direct_response"),
        ]),
    ];
    (at_once, prop_oneof![2 => Just(0), 1 => 1..1_500_u64]).prop_map(|(backend, ms)| match ms {
        0 => backend,
        ms => backend.after(ms),
    })
}

fn steps(requests: &[Request]) -> impl Strategy<Value = Step> + use<> {
    let stream = 0..8_usize;
    let trailers = vec![("x-checksum".to_owned(), b"1".to_vec())];
    let configurations =
        vec![configuration(), changed(without_sidecar), changed(shadow), serde_json::json!({})];
    let own = select(vec![(408, "request_overall_timeout"), (413, "request_payload_too_large")]);
    let single = prop_oneof![
        6 => shaped(requests).prop_map(Step::Send),
        // The codec enforces the content length of a client.
        2 => shaped(requests).prop_map(|request| Step::Begin(request.without("content-length"))),
        3 => (stream.clone(), select(requests.to_vec()), any::<bool>())
            .prop_map(|(stream, request, ends)| Step::Part(stream, request.body.into(), ends)),
        1 => stream.clone().prop_map(move |stream| Step::Trailers(stream, trailers.clone())),
        3 => stream.clone().prop_map(Step::Disconnect),
        1 => (stream.clone(), own).prop_map(|(stream, (status, why))| Step::EnvoyAnswer(stream, status, why)),
        1 => stream.prop_map(Step::Reset),
        1 => Just(Step::Broken),
        1 => select(configurations).prop_map(Step::Configure),
        1 => Just(Step::Retire),
    ];
    let single = single.boxed();
    let pass = prop_oneof![4 => 0..60_u64, 3 => 60..700_u64, 1 => 7_000..11_000_u64];
    prop_oneof![
        6 => single.clone(),
        3 => pass.prop_map(Step::Wait),
        1 => proptest::collection::vec(single, 2..5).prop_map(Step::Together),
    ]
}

fn changed(change: fn(&mut serde_json::Value)) -> serde_json::Value {
    let mut configuration = configuration();
    change(&mut configuration);
    configuration
}

/// Observable result of a message, without the order of its lines.
fn agree(one: &Record, other: &Record) -> Result<()> {
    for (number, (one, other)) in one.streams.iter().zip(&other.streams).enumerate() {
        let (a, b) = (got(one.backend.as_ref()), got(other.backend.as_ref()));
        ensure!(a == b, "the backend got of stream {number}: {a:?}, natively {b:?}");
        let (a, b) = (got(one.client.as_ref()), got(other.client.as_ref()));
        ensure!(a == b, "the client of stream {number} got: {a:?}, natively {b:?}");
        ensure!(
            one.access_log == other.access_log,
            "note of stream {number}: {:?}, {:?}",
            one.access_log,
            other.access_log
        );
    }
    let (a, b) = (claims(one), claims(other));
    ensure!(a == b, "the sidecar received the claims {a:?}, natively {b:?}");
    let (a, b) = (settlements(one), settlements(other));
    ensure!(a == b, "the sidecar received the settlements {a:?}, natively {b:?}");
    let (a, b) = (&one.exchanges, &other.exchanges);
    ensure!(a == b, "the sidecar received exchanges of {a:?}, natively {b:?}");
    for (name, count) in &other.counters {
        let counter = one.counters.get(name);
        ensure!(counter == Some(count), "{name} is {counter:?}, natively {count}");
    }
    ensure!(one.taken == other.taken, "different configurations were taken");
    Ok(())
}

type Got = (u64, BTreeMap<String, Vec<Vec<u8>>>, Vec<u8>, Vec<(String, Vec<u8>)>, bool);

fn got(passed: Option<&HttpMessage>) -> Option<Got> {
    passed.map(|passed| {
        let mut lines = BTreeMap::<_, Vec<_>>::new();
        for (name, value) in &passed.headers {
            lines.entry(name.clone()).or_default().push(value.clone());
        }
        (passed.since.ms, lines, passed.body.clone(), passed.trailers.clone(), passed.ended)
    })
}

fn claims(record: &Record) -> Vec<String> {
    let claims = record.claims.iter();
    let mut lines: Vec<_> = claims
        .map(|(at_ms, claim)| format!("{at_ms} {} {}", claim.identity.dedupe_key(), claim.form))
        .collect();
    lines.sort();
    lines
}

fn settlements(record: &Record) -> Vec<String> {
    let mut lines: Vec<_> = record
        .settlements
        .iter()
        .map(|received| {
            let settlement = &received.settlement;
            let key = settlement.identity.dedupe_key();
            let (outcome, result) =
                (settlement.outcome, (received.result, received.is_reply_delivered));
            let (unclaimed, answer) = (&settlement.unclaimed, &settlement.answer);
            format!("{} {key} {outcome:?} {result:?} {unclaimed:?} {answer:?}", received.at_ms)
        })
        .collect();
    lines.sort();
    lines
}
