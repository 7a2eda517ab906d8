use super::*;

fn item(origin: u32) -> QueuedItem<u32> {
    QueuedItem::new(origin, format!("record {origin}").into_bytes())
}

fn callouts(max_bytes: usize) -> Callouts<u32, u32> {
    Callouts::new(max_bytes, max_bytes)
}

fn origins(items: &[QueuedItem<u32>]) -> Vec<u32> {
    items.iter().map(|item| item.origin).collect()
}

/// Returns the origins of the claims and settlements of the next batch.
fn next(
    callouts: &mut Callouts<u32, u32>,
    now_ms: u64,
    occasion: Occasion,
) -> (Vec<u32>, Vec<u32>) {
    let batch = callouts.next_batch(now_ms, occasion);
    batch.map(|batch| (origins(&batch.claims), origins(&batch.settlements))).unwrap_or_default()
}

const NOTHING: (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());

#[test]
fn first_claim_is_sent_alone_and_waiting_claims_together() {
    let mut callouts = callouts(1000);
    callouts.post_claim(item(1)).unwrap();
    let batch = callouts.next_batch(0, Occasion::Change).unwrap();
    callouts.record_sent(7, batch, 0);
    callouts.post_claim(item(2)).unwrap();
    callouts.post_claim(item(3)).unwrap();
    assert_eq!(next(&mut callouts, 1, Occasion::Change), NOTHING);
    assert_eq!(origins(&callouts.complete(7, 1).unwrap().claims), [1]);
    assert_eq!(next(&mut callouts, 1, Occasion::Change), (vec![2, 3], vec![]));
    assert_eq!(callouts.complete(7, 1), None);
}

#[test]
fn settlements_are_sent_with_the_next_claim_or_on_the_tick() {
    let mut callouts = callouts(1000);
    callouts.post_settlement(item(1), false).unwrap();
    assert_eq!(next(&mut callouts, 0, Occasion::Change), NOTHING);
    callouts.post_claim(item(2)).unwrap();
    assert_eq!(next(&mut callouts, 0, Occasion::Change), (vec![2], vec![1]));
    callouts.post_settlement(item(3), false).unwrap();
    assert_eq!(next(&mut callouts, 0, Occasion::Tick), (vec![], vec![3]));
    callouts.post_settlement(item(4), true).unwrap();
    assert_eq!(next(&mut callouts, 0, Occasion::Change), (vec![], vec![4]));
    callouts.post_settlement(item(5), false).unwrap();
    assert_eq!(next(&mut callouts, 0, Occasion::Change), NOTHING, "the urgent one was sent");
}

#[test]
fn late_reply_does_not_delay_other_claims() {
    let mut callouts = callouts(1000);
    for (token, now_ms) in [(1, 0), (2, 5), (3, 10), (4, 15)] {
        callouts.post_claim(item(token)).unwrap();
        let batch = callouts.next_batch(now_ms, Occasion::Change).expect("the last reply is late");
        callouts.record_sent(token, batch, now_ms);
    }
    callouts.post_claim(item(5)).unwrap();
    assert_eq!(next(&mut callouts, 10_000, Occasion::Tick), NOTHING, "at most MAX_IN_FLIGHT");
    callouts.complete(2, 16);
    assert_eq!(next(&mut callouts, 10_000, Occasion::Tick), (vec![5], vec![]));
}

#[test]
fn reply_is_late_after_twice_the_usual_time() {
    let mut callouts = callouts(1000);
    for exchange in 0..100 {
        let now_ms = exchange * 20;
        callouts.post_claim(item(1)).unwrap();
        let batch = callouts.next_batch(now_ms, Occasion::Change).unwrap();
        callouts.record_sent(1, batch, now_ms);
        callouts.complete(1, now_ms + 20);
    }
    callouts.post_claim(item(1)).unwrap();
    let batch = callouts.next_batch(2_000, Occasion::Change).unwrap();
    callouts.record_sent(1, batch, 2_000);
    callouts.post_claim(item(2)).unwrap();
    assert_eq!(next(&mut callouts, 2_030, Occasion::Change), NOTHING);
    assert_eq!(next(&mut callouts, 2_040, Occasion::Change), (vec![2], vec![]));
}

#[test]
fn batches_and_queues_are_bounded() {
    let mut callouts = Callouts::new(usize::MAX, usize::MAX);
    for origin in 0..600 {
        callouts.post_claim(item(origin)).unwrap();
        callouts.post_settlement(item(origin), false).unwrap();
    }
    let batch = callouts.next_batch(0, Occasion::Change).unwrap();
    assert_eq!((batch.claims.len(), batch.settlements.len()), (MAX_BATCH, MAX_BATCH));
    let large = || QueuedItem::new(0, vec![0; BATCH_BYTES + 1]);
    let mut callouts = self::callouts((BATCH_BYTES + 1) * 2);
    callouts.post_claim(large()).unwrap();
    callouts.post_claim(large()).unwrap();
    assert!(callouts.post_claim(item(1)).is_err());
    callouts.post_settlement(item(2), false).unwrap();
    assert_eq!(
        next(&mut callouts, 0, Occasion::Change),
        (vec![0], vec![]),
        "a large item is alone"
    );
    callouts.post_claim(item(1)).unwrap();
}

#[test]
fn failed_settlements_are_retried_in_order_after_growing_pauses() {
    let mut callouts = callouts(1000);
    callouts.post_settlement(item(1), false).unwrap();
    let batch = callouts.next_batch(0, Occasion::Tick).unwrap();
    callouts.post_settlement(item(2), false).unwrap();
    callouts.retry(batch.settlements, 0);
    assert_eq!(next(&mut callouts, RETRY_MS - 1, Occasion::Tick), NOTHING);
    callouts.post_claim(item(9)).unwrap();
    assert_eq!(
        next(&mut callouts, RETRY_MS - 1, Occasion::Tick),
        (vec![9], vec![]),
        "claims go on"
    );
    let batch = callouts.next_batch(RETRY_MS, Occasion::Tick).unwrap();
    assert_eq!(origins(&batch.settlements), [1, 2]);
    callouts.retry(batch.settlements, RETRY_MS);
    assert_eq!(next(&mut callouts, RETRY_MS * 2, Occasion::Tick), NOTHING);
    callouts.end_pauses();
    assert_eq!(next(&mut callouts, RETRY_MS * 2, Occasion::Tick), (vec![], vec![1, 2]));
}

#[test]
fn refused_settlements_share_no_exchange_with_claims_and_are_still_retried() {
    let mut callouts = callouts(1000);
    callouts.post_settlement(item(1), false).unwrap();
    callouts.post_claim(item(2)).unwrap();
    let batch = callouts.next_batch(0, Occasion::Change).unwrap();
    assert_eq!((origins(&batch.claims), origins(&batch.settlements)), (vec![2], vec![1]));
    callouts.retry(batch.settlements, 0);
    for (token, now_ms) in [(1, RETRY_MS), (2, RETRY_MS + 20)] {
        callouts.post_claim(item(3)).unwrap();
        let batch = callouts.next_batch(now_ms, Occasion::Change).unwrap();
        match token {
            1 => {
                assert_eq!((origins(&batch.claims), origins(&batch.settlements)), (vec![], vec![1]))
            }
            _ => assert_eq!(
                (origins(&batch.claims), origins(&batch.settlements)),
                (vec![3, 3], vec![])
            ),
        }
        callouts.record_sent(token, batch, now_ms);
    }
    callouts.complete(1, RETRY_MS + 30).unwrap();
    callouts.end_pauses();
    callouts.complete(2, RETRY_MS + 30).unwrap();
    callouts.post_settlement(item(4), false).unwrap();
    callouts.post_claim(item(5)).unwrap();
    assert_eq!(next(&mut callouts, RETRY_MS + 40, Occasion::Change), (vec![5], vec![4]));
}

#[test]
fn answered_claims_shorten_the_pause_of_settlements() {
    let mut callouts = callouts(1000);
    callouts.post_settlement(item(1), true).unwrap();
    for now_ms in [0, 1_000, 2_000] {
        let batch = callouts.next_batch(now_ms, Occasion::Tick).unwrap();
        callouts.retry(batch.settlements, now_ms);
    }
    assert_eq!(next(&mut callouts, 2_000 + RETRY_MS, Occasion::Tick), NOTHING);
    callouts.shorten_pause();
    assert_eq!(next(&mut callouts, 2_000 + RETRY_MS - 1, Occasion::Tick), NOTHING);
    assert_eq!(next(&mut callouts, 2_000 + RETRY_MS, Occasion::Tick), (vec![], vec![1]));
}

#[test]
fn withdrawn_claim_is_not_sent() {
    let mut callouts = callouts(1000);
    callouts.post_claim(item(1)).unwrap();
    callouts.post_claim(item(2)).unwrap();
    assert_eq!(origins(&callouts.take_claims(|item| item.origin == 1)), [1]);
    assert_eq!(next(&mut callouts, 0, Occasion::Change), (vec![2], vec![]));
}

#[test]
fn age_begins_with_the_first_recorded_time() {
    let mut callouts = callouts(1000);
    callouts.post_settlement(item(1), false).unwrap();
    callouts.record_time(100);
    callouts.record_time(120);
    let batch = callouts.next_batch(150, Occasion::Tick).unwrap();
    assert_eq!(batch.settlements[0].age_ms(150), 50);
}

#[test]
fn slow_durable_items_do_not_delay_prompt_ones() {
    let mut lanes: Lanes<u32, u32> = Lanes::new(1000, 1000);
    lanes.lane(Lane::Durable).post_claim(item(1)).unwrap();
    let (lane, batch) = lanes.next_batch(0, Occasion::Change).unwrap();
    lanes.lane(lane).record_sent(1, batch, 0);
    lanes.lane(Lane::Durable).post_claim(item(2)).unwrap();
    lanes.lane(Lane::Prompt).post_claim(item(3)).unwrap();
    let (lane, batch) = lanes.next_batch(0, Occasion::Change).unwrap();
    assert_eq!((lane, origins(&batch.claims)), (Lane::Prompt, vec![3]));
    assert_eq!(lanes.next_batch(0, Occasion::Change), None);
    let (lane, batch) = lanes.complete(1, 20).unwrap();
    assert_eq!((lane, origins(&batch.claims)), (Lane::Durable, vec![1]));
}

#[test]
fn claims_of_an_abandoned_exchange_are_sent_before_later_ones() {
    let mut lanes: Lanes<u32, u32> = Lanes::new(1000, 1000);
    for origin in [1, 2] {
        lanes.lane(Lane::Prompt).post_claim(item(origin)).unwrap();
    }
    let (lane, batch) = lanes.next_batch(0, Occasion::Change).unwrap();
    lanes.lane(lane).record_sent(5, batch, 0);
    lanes.lane(Lane::Prompt).post_claim(item(3)).unwrap();
    let (lane, batch) = lanes.abandon(5).unwrap();
    lanes.lane(lane).return_claims(batch.claims);
    assert_eq!(lanes.abandon(5), None);
    // Nothing is in flight any more, so they are due at once.
    let (_, batch) = lanes.next_batch(1, Occasion::Change).unwrap();
    assert_eq!(origins(&batch.claims), [1, 2, 3]);
}

#[test]
fn drained_settlements_are_those_in_flight_and_those_that_wait() {
    let mut lanes: Lanes<u32, u32> = Lanes::new(1000, 1000);
    lanes.lane(Lane::Durable).post_settlement(item(1), true).unwrap();
    let (lane, batch) = lanes.next_batch(0, Occasion::Change).unwrap();
    lanes.lane(lane).record_sent(1, batch, 0);
    lanes.lane(Lane::Durable).post_settlement(item(2), false).unwrap();
    lanes.lane(Lane::Prompt).post_settlement(item(3), false).unwrap();
    let drained: Vec<_> =
        lanes.drain_settlements().into_iter().map(|(l, it)| (l, it.origin)).collect();
    assert_eq!(drained, [(Lane::Prompt, 3), (Lane::Durable, 1), (Lane::Durable, 2)]);
    assert_eq!(lanes.settlements(), 0);
}
