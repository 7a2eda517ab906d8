//! Signed requests with random damage: changed, inserted, removed and repeated bytes, and cuts.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use tokio::time::timeout;
use twilio_edge_wasm_tests::client::Connection;
use twilio_edge_wasm_tests::stack::{Plan, SidecarPlan, Stack};
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form};

use crate::expect::arrived;
use crate::suite::{Scenario, Setting, scenarios};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios![Setting::Own(Plan::new(SidecarPlan::Sqlite));
        damaged_requests_neither_pass_nor_crash,
    ]
    .to_vec()
}

/// Xorshift: the damage differs in every run, and its seed is part of a failure.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap_or_default()
    }

    /// Changes, inserts, removes, repeats or cuts a few bytes.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 => bytes[at] = self.below(256).to_le_bytes()[0],
                1 => bytes.insert(at, b"\r\n\0:,;=&%+ \xff"[self.below(12)]),
                2 => drop(bytes.remove(at)),
                3 => {
                    let end = (at + self.below(40)).min(bytes.len());
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
                _ => bytes.truncate(at.max(1)),
            }
        }
    }
}

/// A damaged request may still be complete and signed; then it is a webhook. Nothing else reaches the backend as one.
async fn damaged_requests_neither_pass_nor_crash(stack: &Stack) -> Result<()> {
    const REQUESTS: usize = 400;
    /// Envoy waits for the rest of a cut request. The client does not.
    const WAIT: Duration = Duration::from_millis(200);
    let seed = u64::from(std::process::id()) << 20 | 1;
    let mut chance = Chance(seed);
    let mut attempts = Vec::new();
    for n in 0..REQUESTS {
        let form = if n % 2 == 0 { Form::inbound("damaged") } else { Form::status("delivered") };
        let request = stack.post(&form).await?;
        let mut bytes = match n % 3 {
            0 => request.chunked(50, b"x-checksum: 1\r\n"),
            _ => request.bytes(),
        };
        chance.damage(&mut bytes);
        attempts.push(async move {
            let mut connection = Connection::open(stack.envoy.address()).await?;
            if connection.write(&bytes).await.is_ok() {
                // Any answer will do, and none.
                let _ = timeout(WAIT, connection.response()).await;
            }
            anyhow::Ok(())
        });
        if attempts.len() == 40 {
            try_join_all(attempts.drain(..)).await?;
        }
    }
    let unproven: Vec<_> = stack
        .backend
        .all()
        .into_iter()
        .filter(|seen| seen.head.word(1).starts_with("/twilio/"))
        .filter(|seen| seen.trusted().get("verified").is_none_or(|account| account != ACCOUNT))
        .collect();
    ensure!(unproven.is_empty(), "seed {seed}: unproven at the backend: {unproven:?}");
    stack.envoy.check_no_trap().await.with_context(|| format!("seed {seed}"))?;
    let request = stack.post(&Form::inbound("whole")).await?;
    assert_eq!(stack.send(&request).await?.status, 200);
    arrived(stack, &request).await.map(drop)
}
