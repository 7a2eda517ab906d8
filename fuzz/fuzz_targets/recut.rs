//! Whoever chose the texts of a genuine webhook and sees its signature cannot have the filter believe another cut.
//!
//! An input is choices, one a byte: `tests/recut/model.rs` makes of them a webhook and cuts of its signed text.
#![no_main]

#[allow(dead_code, reason = "the property test needs the rest")]
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
