//! Stop signals of the process.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves at SIGTERM (orchestrators) or SIGINT (Ctrl-C). The signals no longer end the process from this call on.
///
/// # Errors
///
/// The operating system refused the handler.
pub(super) fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
