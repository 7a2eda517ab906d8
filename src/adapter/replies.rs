//! Replies of the sidecar: which item of a batch each verdict and each acknowledgement belongs to.

use twilio_edge_contract::{SettlementAck, SettlementResult, Verdict};

use super::worker::{ClaimOrigin, SettlementOrigin};
use crate::callouts::{Callouts, QueuedItem};
use crate::metrics::Counter;

/// Returns the verdict on each claim of a batch, in the order of the claims; `None` for a claim without one.
pub fn match_verdicts(
    claims: Vec<QueuedItem<ClaimOrigin>>,
    verdicts: Vec<Verdict>,
) -> impl Iterator<Item = (ClaimOrigin, Option<Verdict>)> {
    let mut verdicts: Vec<Option<Verdict>> = verdicts.into_iter().map(Some).collect();
    claims.into_iter().enumerate().map(move |(index, QueuedItem { origin, .. })| {
        let matches = |it: &Option<Verdict>| {
            it.as_ref().is_some_and(|verdict| verdict.claim_id == origin.claim_id)
        };
        let verdict = find_reply(index, &mut verdicts, matches).and_then(Option::take);
        (origin, verdict)
    })
}

/// Evaluates the acknowledgements of a batch of settlements. Those without one are sent again later. Returns the requests whose
/// responses wait for an acknowledgement that has come.
pub fn acknowledge<C, R>(
    callouts: &mut Callouts<C, SettlementOrigin<R>>,
    settlements: Vec<QueuedItem<SettlementOrigin<R>>>,
    mut results: Vec<SettlementAck>,
    now_ms: u64,
    mut count: impl FnMut(Counter),
) -> Vec<R> {
    if settlements.is_empty() {
        return Vec::new();
    }
    let (mut waiting, mut retried) = (Vec::new(), Vec::new());
    for (index, item) in settlements.into_iter().enumerate() {
        let matches = |it: &SettlementAck| it.claim_id == item.origin.claim_id;
        let result = find_reply(index, &mut results, matches).map(|ack| ack.result);
        if let Some(result) = result {
            count(Counter::Settlement(result));
        }
        match result {
            None | Some(SettlementResult::Unavailable) => retried.push(item),
            Some(_) => waiting.extend(item.origin.stream),
        }
    }
    if retried.is_empty() {
        callouts.end_pauses();
    } else {
        retry(callouts, retried, now_ms, count);
    }
    waiting
}

/// Returns settlements to the queue, because the callout failed.
pub fn retry<C, R>(
    callouts: &mut Callouts<C, SettlementOrigin<R>>,
    settlements: Vec<QueuedItem<SettlementOrigin<R>>>,
    now_ms: u64,
    mut count: impl FnMut(Counter),
) {
    if !settlements.is_empty() {
        count(Counter::SettlementsFailed);
        callouts.retry(settlements, now_ms);
    }
}

/// Returns the answer to the item at `index`. Answers come in the order of the items, and each names its item.
fn find_reply<A>(index: usize, answers: &mut [A], matches: impl Fn(&A) -> bool) -> Option<&mut A> {
    let index = match answers.get(index).is_some_and(&matches) {
        true => Some(index),
        false => answers.iter().position(matches),
    };
    answers.get_mut(index?)
}
