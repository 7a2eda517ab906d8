//! The end-to-end suite: signed webhooks through the real Envoy, the filter, the sidecar, to a backend. Each scenario
//! checks the results at the client, the backend and the sidecar's ledger; one file per subject.
//!
//! `cargo test -p twilio-edge-wasm-tests --test e2e -- newest/dedupe` runs those with that in their name. With the variable
//! `TWILIO_EDGE_NATIVE=1` the filter is the native module.
#![expect(
    clippy::indexing_slicing,
    reason = "a test that reads beyond the end has failed, and may report it by a panic"
)]

mod accept;
mod damaged;
mod dedupe;
mod disguise;
mod event;
mod expect;
mod failures;
mod flood;
mod forge;
mod keys;
mod leave;
mod load;
mod native;
mod observe;
mod outage;
mod push;
mod redirect;
mod refused;
mod reject;
mod rewrite;
mod settle;
mod shipped;
mod start;
mod suite;
mod trap;
mod upload;
mod verify;
mod wire;

fn main() -> std::process::ExitCode {
    let subjects = [
        ("verify", verify::scenarios()),
        ("reject", reject::scenarios()),
        ("forge", forge::scenarios()),
        ("redirect", redirect::scenarios()),
        ("refused", refused::scenarios()),
        ("dedupe", dedupe::scenarios()),
        ("settle", settle::scenarios()),
        ("leave", leave::scenarios()),
        ("outage", outage::scenarios()),
        ("wire", wire::scenarios()),
        ("damaged", damaged::scenarios()),
        ("upload", upload::scenarios()),
        ("flood", flood::scenarios()),
        ("disguise", disguise::scenarios()),
        ("rewrite", rewrite::scenarios()),
        ("push", push::scenarios()),
        ("trap", trap::scenarios()),
        ("native", native::scenarios()),
        ("keys", keys::scenarios()),
        ("event", event::scenarios()),
        ("accept", accept::scenarios()),
        ("observe", observe::scenarios()),
        ("shipped", shipped::scenarios()),
        ("start", start::scenarios()),
        ("load", load::scenarios()),
    ];
    suite::run(subjects, [("failures", failures::series())])
}
