//! Where the driver's tasks run: a thread of their own, or the caller's runtime.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Io;
use crate::error::{Error, ErrorKind};

/// The name of the driver's thread.
const THREAD: &str = "rumormill-io";

/// A runtime for the driver's tasks, and the word that ends them.
pub(super) struct Runtime {
    handle: Handle,
    tasks: TaskTracker,
    stop: CancellationToken,
    thread: Mutex<Option<Thread>>,
}

struct Thread {
    handle: thread::JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

impl Runtime {
    /// Starts the thread, or takes the runtime that this is called on.
    pub(super) fn start(io: Io) -> Result<Self, Error> {
        let stop = CancellationToken::new();
        let (handle, thread) = match io {
            Io::Thread => {
                let (handle, thread) = start_thread(stop.clone())?;
                (handle, Some(thread))
            }
            Io::Current => (current()?, None),
        };
        Ok(Self { handle, tasks: TaskTracker::new(), stop, thread: Mutex::new(thread) })
    }

    /// Runs a task until it ends; it watches [`Runtime::stop`] itself.
    pub(super) fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn_on(task, &self.handle)
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Cancelled when the driver ends.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Tells the tasks to end and waits for them and for the thread.
    pub(super) async fn join(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The thread says so as its last act: joining it then does not block.
            let _ended = thread.ended.await;
            if thread.handle.join().is_err() {
                tracing::error!("the thread {THREAD} panicked");
            }
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn start_thread(stop: CancellationToken) -> Result<(Handle, Thread), Error> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Unsupported, format!("cannot start the thread {THREAD}: {error}"))
    };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let handle = runtime.handle().clone();
    let (end, ended) = oneshot::channel();
    let run = move || {
        runtime.block_on(stop.cancelled());
        drop(runtime);
        let _nobody_may_wait = end.send(());
    };
    let thread = thread::Builder::new().name(THREAD.to_owned()).spawn(run).map_err(failed)?;
    Ok((handle, Thread { handle: thread, ended }))
}

fn current() -> Result<Handle, Error> {
    Handle::try_current().map_err(|error| {
        Error::invalid("`Io::Current` outside a tokio runtime")
            .with_source(error)
            .with_help("connect from within a runtime, or use `Io::Thread`")
    })
}
