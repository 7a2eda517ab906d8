//! Captured requests in every form: any bytes are read or refused, whether the form is recognized or forced.

#![no_main]

use libfuzzer_sys::fuzz_target;
use twilio_edge_diagnosis::{Capture, Format};

fuzz_target!(|data: &[u8]| {
    let _ = Capture::read(data, None, None);
    for format in Format::ALL {
        if let Ok(capture) = Capture::read(data, Some(format), None) {
            assert_eq!(capture.format, format);
            // The body of a chunked, parsed or escaped capture is not longer than its text; a form that is encoded again has at
            // most three bytes for each byte, and the name of an outer field for each inner one.
            let bound = data.len().saturating_mul(data.len().max(4)).saturating_add(64);
            assert!(capture.body.len() <= bound);
        }
    }
});
