//! Panics on demand, for the tests of panics. Without the feature `panic-test` there are none.

/// Panics if the environment variable `TWILIO_EDGE_PANIC_IN` names this hook.
#[cfg(feature = "panic-test")]
#[expect(clippy::panic, reason = "the test is about panics")]
pub(crate) fn panic_in(hook: &str) {
    static NAMED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let named = NAMED.get_or_init(|| std::env::var("TWILIO_EDGE_PANIC_IN").ok());
    if named.as_deref() == Some(hook) {
        panic!("a test wants this panic");
    }
}

/// Does nothing.
#[cfg(not(feature = "panic-test"))]
pub(crate) fn panic_in(_: &str) {}
