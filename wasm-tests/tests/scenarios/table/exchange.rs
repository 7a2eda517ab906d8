//! Exchanges with the sidecar: the claims and settlements that share one, and those that do not wait for each other.

use anyhow::{Result, ensure};
use twilio_edge_contract::Outcome;
use twilio_edge_wasm_tests::webhook::Form;

use super::{MakeScenario, Scenario, named, trusted};
use crate::request::Request;
use crate::sidecar::Behaviour;
use crate::world::{Record, Step};

pub(super) fn scenarios() -> Vec<(&'static str, MakeScenario)> {
    named![
        settlement_is_sent_with_the_next_claim,
        settlement_without_a_claim_is_sent_on_the_next_tick,
        waiting_claims_are_sent_together,
        late_reply_delays_no_later_claim,
        possible_opt_out_delays_no_other_claim,
        settlement_without_a_verdict_delays_no_claim,
        failed_exchange_fails_its_claims_and_repeats_its_settlements,
    ]
}

/// A message of many words, which is no opt-out.
fn question(words: &str) -> Result<Step> {
    Ok(Step::Send(Request::post(&Form::inbound(&format!("where is my order, {words}?")))?))
}

fn late(ms: u64) -> Behaviour {
    Behaviour::Late(ms, Box::new(Behaviour::Works))
}

fn exchanged(record: &Record, expected: &[(usize, usize)]) -> Result<()> {
    ensure!(record.exchanges == expected, "claims and settlements: {:?}", record.exchanges);
    Ok(())
}

fn forwarded_at(record: &Record, stream: usize, ms: u64) -> Result<()> {
    let backend = record.forwarded(stream)?;
    ensure!(trusted(backend, "dedupe") == "first", "stream {stream} was forwarded without a claim");
    ensure!(backend.since.ms == ms, "stream {stream} was forwarded at {} ms", backend.since.ms);
    Ok(())
}

fn settlement_is_sent_with_the_next_claim() -> Result<Scenario> {
    let script = [question("Alice")?, Step::Wait(5), question("Bob")?, Step::Wait(1_000)];
    Ok(Scenario::new(script, |record| {
        forwarded_at(record, 1, 5)?;
        ensure!(record.outcomes() == [Outcome::Commit; 2] && record.settlements[0].at_ms == 5);
        exchanged(record, &[(1, 0), (1, 1), (0, 1)])
    }))
}

fn settlement_without_a_claim_is_sent_on_the_next_tick() -> Result<Scenario> {
    Ok(Scenario::new([question("Alice")?, Step::Wait(1_000)], |record| {
        ensure!(record.outcomes() == [Outcome::Commit] && record.settlements[0].at_ms == 10);
        exchanged(record, &[(1, 0), (0, 1)])
    }))
}

fn waiting_claims_are_sent_together() -> Result<Scenario> {
    let script =
        [question("Alice")?, Step::Wait(1), question("Bob")?, Step::Wait(1), question("Carol")?];
    Ok(Scenario::new(script, |record| {
        for (stream, ms) in [(0, 4), (1, 4), (2, 4)] {
            forwarded_at(record, stream, ms)?;
        }
        exchanged(record, &[(1, 0), (2, 0), (0, 3)])
    })
    .claims([late(4)]))
}

fn late_reply_delays_no_later_claim() -> Result<Scenario> {
    let script = [question("Alice")?, Step::Wait(3), question("Bob")?, Step::Wait(1_000)];
    Ok(Scenario::new(script, |record| {
        forwarded_at(record, 0, 400)?;
        forwarded_at(record, 1, 10)
    })
    .claims([late(400)]))
}

fn possible_opt_out_delays_no_other_claim() -> Result<Scenario> {
    let stop = Step::Send(Request::post(&Form::inbound("STOP"))?);
    let script = [stop, question("Alice")?, question("Bob")?, Step::Wait(1_000)];
    Ok(Scenario::new(script, |record| {
        forwarded_at(record, 0, 200)?;
        forwarded_at(record, 1, 0)?;
        forwarded_at(record, 2, 0)
    })
    .claims([late(200)]))
}

/// The sidecar stores such a settlement in the database before it acknowledges it.
fn settlement_without_a_verdict_delays_no_claim() -> Result<Scenario> {
    let script = [question("Alice")?, Step::Wait(12), question("Bob")?, Step::Wait(1_000)];
    Ok(Scenario::new(script, |record| {
        ensure!(trusted(record.forwarded(0)?, "dedupe") == "unknown");
        ensure!(
            record.settlements[0].at_ms == 10
                && record.settlements[0].settlement.unclaimed.is_some()
        );
        forwarded_at(record, 1, 12)
    })
    .claims([Behaviour::Fails(503)])
    .settlements([late(200)]))
}

fn failed_exchange_fails_its_claims_and_repeats_its_settlements() -> Result<Scenario> {
    let script = [question("Alice")?, Step::Wait(5), question("Bob")?, Step::Wait(1_000)];
    Ok(Scenario::new(script, |record| {
        ensure!(trusted(record.forwarded(1)?, "dedupe") == "unknown");
        let settled = record.settlements.iter().map(|it| it.settlement.unclaimed.is_some());
        ensure!(settled.collect::<Vec<_>>() == [false, true, false], "{:?}", record.settlements);
        ensure!(record.outcomes() == [Outcome::Commit; 2]);
        ensure!(record.counter("callout_failed.claims") == 1, "{:?}", record.counters);
        ensure!(record.counter("callout_failed.settlements") == 1, "{:?}", record.counters);
        exchanged(record, &[(1, 0), (1, 1), (0, 1), (0, 1)])
    })
    .claims([Behaviour::Works, Behaviour::Fails(503)]))
}
