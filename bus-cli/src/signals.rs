//! What asks this process to end.

/// Waits for ctrl-c, or for what a supervisor sends; its name.
///
/// Listening begins with the first poll; from then on neither ends the process by itself.
pub(crate) async fn interrupt() -> &'static str {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            return tokio::select! {
                _ = tokio::signal::ctrl_c() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            };
        }
    }
    let _ = tokio::signal::ctrl_c().await;
    "ctrl-c"
}
