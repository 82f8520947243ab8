//! What asks this process to end.

use std::io;

/// Ctrl-c, and what a supervisor sends. While it lives neither ends the process by itself.
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// Begins to listen.
    pub(crate) fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let interrupt = signal(SignalKind::interrupt())?;
            Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next one; its name.
    ///
    /// # Cancel safety
    /// Dropped before it is done, no signal is lost.
    pub(crate) async fn next(&mut self) -> &'static str {
        #[cfg(unix)]
        return tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        };
        #[cfg(not(unix))]
        {
            let _ = tokio::signal::ctrl_c().await;
            "ctrl-c"
        }
    }
}

/// Waits for one of them. Listening begins with the first poll.
pub(crate) async fn interrupt() {
    match Signals::listen() {
        Ok(mut signals) => drop(signals.next().await),
        // Then they end the process by themselves.
        Err(_) => std::future::pending().await,
    }
}
