//! What the filter does, told as scenarios that only a host under our control can play at will: one table, run on the
//! compiled filter in our own host and on the native build of the same decisions. Then histories that nobody would write
//! down, against the laws that hold in all of them.
//!
//! Each scenario says what the world does and what client, backend and sidecar saw; nothing is said of host calls.
//! `cargo test -p twilio-edge-wasm-tests --test scenarios -- compiled/` runs those with that in their name.

#![expect(clippy::print_stderr, reason = "results and seeds of tests")]
#![expect(
    clippy::indexing_slicing,
    reason = "a test that reads beyond what it was given has failed, and may say so by a panic"
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
use self::table::Plot;
use self::world::{Setting, Step, Story, World, proxy};

/// Tells one story with one build of the filter.
type Build = fn(&Setting, &[Step]) -> Result<Story>;

fn compiled(setting: &Setting, script: &[Step]) -> Result<Story> {
    World::tell(Compiled::start(proxy(setting))?, setting, script)
}

fn native(setting: &Setting, script: &[Step]) -> Result<Story> {
    World::tell(Native::start(proxy(setting)), setting, script)
}

fn play(plot: Plot, build: Build) -> Result<(), Failed> {
    let scenario = plot().map_err(failed)?;
    let story = build(&scenario.setting, &scenario.script).map_err(failed)?;
    let held = laws::check(&story).and_then(|()| (scenario.then)(&story));
    held.map_err(|error| format!("{error:#}\n{story:#?}").into())
}

fn failed(error: anyhow::Error) -> Failed {
    format!("{error:#}").into()
}

fn main() -> ExitCode {
    let builds: [(&str, Build); 2] = [("compiled", compiled), ("native", native)];
    let mut trials = Vec::new();
    for (name, plot) in table::scenarios() {
        for (build_name, build) in builds {
            let name = format!("{build_name}/{name}");
            trials.push(Trial::test(name, move || play(plot, build)));
        }
    }
    trials.extend(cost::trials());
    let both = || random::both_builds_agree().map_err(failed);
    trials.push(Trial::test("random/both_builds_agree", both));
    trials.push(Trial::test("random/laws_hold", || random::laws_hold().map_err(failed)));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
