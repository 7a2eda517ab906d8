//! Log line of a panic. The standard hook of Rust prints the message of a panic, which may quote a body or a phone
//! number, and prints it as text between the lines of a JSON log.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    panic::PanicHookInfo,
    sync::Arc,
};

use crate::metrics::Metrics;

/// Logs and counts each panic of the process from now on, in place of the standard hook.
pub fn report_panics(metrics: Arc<Metrics>) {
    std::panic::set_hook(Box::new(move |panic| {
        metrics.tasks.panicked();
        let location = panic.location().map(ToString::to_string);
        // Enabled with RUST_BACKTRACE=1.
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
        tracing::error!(
            event = "process.panicked",
            location,
            reason = literal(panic),
            backtrace = backtrace.map(tracing::field::display),
            "the sidecar panicked; this is a defect of the program"
        );
    }));
}

/// Returns the message of a panic if it is a literal of the code, which contains no data.
fn literal(panic: &PanicHookInfo<'_>) -> Option<&'static str> {
    panic.payload().downcast_ref::<&'static str>().copied()
}
