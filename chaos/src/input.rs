//! The standard input of a process: what its supervisor orders. It ends with the supervisor.

use std::io::BufRead;

use tokio::sync::mpsc;

/// Orders that wait to be followed.
const ORDERS_MAX: usize = 64;

/// The lines, as they come.
pub(crate) fn lines() -> mpsc::Receiver<String> {
    let (lines, taken) = mpsc::channel(ORDERS_MAX);
    // A thread that nobody waits for: the process may end while it reads.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(std::result::Result::ok) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    taken
}
