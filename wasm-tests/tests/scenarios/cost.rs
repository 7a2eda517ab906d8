//! Cost of a webhook in the compiled filter, in instructions and in calls to the host. The numbers are the same on every
//! machine, so a change that increases them fails this test. docs/PERFORMANCE.md gives the times.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use twilio_edge_wasm_tests::host::Cost;
use twilio_edge_wasm_tests::webhook::Form;

use super::{compiled, failed};
use crate::request::Request;
use crate::table::{Scenario, without_sidecar};
use crate::world::{Setting, Step};

/// Number of webhooks for the average.
const WEBHOOKS: u64 = 64;

/// Maximum per webhook. Raise it only for a reason.
struct Budget {
    name: &'static str,
    /// Number of webhooks at the same time.
    together: usize,
    sidecar: bool,
    most: Cost,
}

/// Measured values and 4 %. An instruction is a unit of wasmi's fuel; a copied block costs more than one. A claim also has
/// the digest of its URL, and a settlement the plain text that the backend answered.
const BUDGETS: [Budget; 3] = [
    Budget {
        name: "proven, without a sidecar",
        together: 1,
        sidecar: false,
        most: Cost { instructions: 111_000, host_calls: 12 },
    },
    Budget {
        name: "claimed and settled, one at a time",
        together: 1,
        sidecar: true,
        most: Cost { instructions: 188_000, host_calls: 33 },
    },
    Budget {
        name: "claimed and settled, 64 at once",
        together: 64,
        sidecar: true,
        most: Cost { instructions: 178_000, host_calls: 20 },
    },
];

pub(crate) fn trials() -> impl Iterator<Item = Trial> {
    BUDGETS.into_iter().map(|budget| {
        let name = format!("cost/{}", budget.name.replace([' ', ','], "_"));
        Trial::test(name, move || keep(&budget).map_err(failed))
    })
}

fn keep(budget: &Budget) -> Result<()> {
    let webhook = || Ok(Step::Send(Request::post(&Form::inbound("Where is my order?"))?));
    let all: Vec<Step> = (0..WEBHOOKS).map(|_| webhook()).collect::<Result<_>>()?;
    let script: Vec<Step> =
        all.chunks(budget.together).map(|some| Step::Together(some.to_vec())).collect();
    let mut scenario = Scenario::new(script, |_| Ok(()));
    if !budget.sidecar {
        without_sidecar(&mut scenario.setting.configuration);
    }
    let spent = spent(&scenario.setting, &scenario.script)?;
    let nothing = self::spent(&scenario.setting, &[])?;
    let each = Cost {
        instructions: (spent.instructions - nothing.instructions) / WEBHOOKS,
        host_calls: (spent.host_calls - nothing.host_calls).div_ceil(WEBHOOKS),
    };
    eprintln!("{}: {each:?} per webhook", budget.name);
    let Cost { instructions, host_calls } = budget.most;
    ensure!(
        each.instructions <= instructions && each.host_calls <= host_calls,
        "a webhook {} costs {each:?}, which is more than {:?}",
        budget.name,
        budget.most
    );
    Ok(())
}

fn spent(setting: &Setting, script: &[Step]) -> Result<Cost> {
    compiled(setting, script)?.cost.context("the compiled filter reports no cost")
}
