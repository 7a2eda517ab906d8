//! Behaviour of the filter in scenarios that need a host under our control: one table, run on the
//! compiled filter in our own host and on the native build of the same decisions. Then random histories,
//! checked against the invariants of all histories.
//!
//! Each scenario describes its environment and what client, backend and sidecar receive, but no host calls.
//! `cargo test -p twilio-edge-wasm-tests --test scenarios -- compiled/` runs those with that in their name.

#![expect(clippy::print_stderr, reason = "results and seeds of tests")]
#![expect(
    clippy::indexing_slicing,
    reason = "a test that reads beyond the end has failed, and may report it by a panic"
)]

mod cost;
mod laws;
mod native;
mod random;
mod request;
mod sidecar;
mod table;
mod world;

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use twilio_edge_wasm_tests::host::Compiled;

use self::native::Native;
use self::table::MakeScenario;
use self::world::{Record, Setting, Step, World, proxy};

/// Runs one script with one build of the filter.
type Build = fn(&Setting, &[Step]) -> Result<Record>;

fn compiled(setting: &Setting, script: &[Step]) -> Result<Record> {
    World::run(Compiled::start(proxy(setting))?, setting, script)
}

fn native(setting: &Setting, script: &[Step]) -> Result<Record> {
    World::run(Native::start(proxy(setting)), setting, script)
}

fn play(make: MakeScenario, build: Build) -> Result<(), Failed> {
    let scenario = make().map_err(failed)?;
    let record = build(&scenario.setting, &scenario.script).map_err(failed)?;
    let held = laws::check(&record).and_then(|()| (scenario.check)(&record));
    held.map_err(|error| format!("{error:#}\n{record:#?}").into())
}

fn failed(error: anyhow::Error) -> Failed {
    format!("{error:#}").into()
}

fn main() -> ExitCode {
    let builds: [(&str, Build); 2] = [("compiled", compiled), ("native", native)];
    let mut trials = Vec::new();
    for (name, make) in table::scenarios() {
        for (build_name, build) in builds {
            let name = format!("{build_name}/{name}");
            trials.push(Trial::test(name, move || play(make, build)));
        }
    }
    trials.extend(cost::trials());
    let both = || random::both_builds_agree().map_err(failed);
    trials.push(Trial::test("random/both_builds_agree", both));
    trials.push(Trial::test("random/laws_hold", || random::laws_hold().map_err(failed)));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
