//! One seed: a runtime of its own, its course, and what the audit finds.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

use tokio::runtime::Builder;

use crate::audit::audit;
use crate::handlers::SIMULATED;
use crate::history::History;
use crate::world::World;

/// What became of a seed.
pub struct Course {
    pub history: History,
    pub found: Vec<String>,
}

thread_local! {
    /// What panicked in this thread's world, beside what was to.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// A panic in a task of the library is swallowed with the task; here it is found.
fn listen_to_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let text = info.to_string();
            if text.contains(SIMULATED) {
                return;
            }
            PANICS.with(|panics| panics.borrow_mut().push(text));
            usual(info);
        }));
    });
}

pub fn run(seed: u64) -> Course {
    listen_to_panics();
    PANICS.take();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let (history, mut found) = runtime.block_on(async {
        let world = World::new(seed);
        let ended = world.run().await;
        let mut found = audit(&world).await;
        if !ended {
            found.insert(0, "the groups are not done an hour after all is calm".to_owned());
        }
        (world.history.clone(), found)
    });
    drop(runtime);
    found.extend(PANICS.take().into_iter().map(|text| format!("panic: {text}")));
    Course { history, found }
}
