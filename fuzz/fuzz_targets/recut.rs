//! Attacks by the author of the texts of a genuine webhook, who knows its signature. The filter must accept no other cut.
//!
//! Each byte of an input is a choice. `tests/recut/model.rs` turns them into a webhook and cuts of its signed text.
#![no_main]

#[expect(dead_code, reason = "only the property test uses the rest")]
#[path = "../../tests/recut/model.rs"]
mod model;

use libfuzzer_sys::fuzz_target;
use model::{Choices, Genuine, attack, forged_text};

fuzz_target!(|bytes: &[u8]| {
    let mut choices = Choices(bytes);
    let genuine = Genuine::choose(&mut choices, forged_text);
    // As many cuts as the input has bytes for.
    while !choices.0.is_empty() {
        if let Some(finding) = attack(&genuine, &mut choices) {
            panic!("{finding}");
        }
    }
});
