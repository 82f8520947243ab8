//! What must not be seen: another bus on the same server, with the same topics and groups in a
//! namespace of its own, and events of this bus that the pattern of a group leaves out.

use std::sync::Arc;
use std::time::Duration;

use rumormill::{Bus, Context, Envelope, Event, HandlerError, Services};
use serde::{Deserialize, Serialize};
use tokio_util::task::TaskTracker;

use crate::args::ProcessArgs;
use crate::history::{What, Writer};
use crate::load::{Act, GROUPS, Made};
use crate::{Result, time};

/// Of the other bus.
const NAMESPACE: &str = "beside";
/// Handles the open half of a topic.
const NARROW: &str = "narrow";
const OPEN: &str = "side.open.>";

/// So many calls are one event.
const EVERY: u64 = 4;

/// Who may see an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scope {
    /// The other bus.
    Beside,
    /// The group with the pattern.
    Open,
    /// Nobody.
    Closed,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "side.open.told")]
struct Open {
    name: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "side.closed.told")]
struct Closed {
    name: String,
}

/// The other bus.
pub(crate) async fn connect(args: &ProcessArgs) -> Result<Bus> {
    let builder = Bus::builder().url(&args.url).services(Services::none()).source(&*args.name);
    Ok(builder.namespace(NAMESPACE).build().await?)
}

/// Handles what is to be seen, and writes down what is.
pub(crate) async fn subscribe(bus: &Bus, beside: &Bus, history: &Arc<Writer>) -> Result<()> {
    for group in GROUPS {
        let history = Arc::clone(history);
        let handler = move |event: Made, _: Context| {
            history.write(What::Seen { event: event.name, by: Scope::Beside });
            async { Ok::<_, HandlerError>(()) }
        };
        beside.subscribe(group, handler).await?;
    }
    let history = Arc::clone(history);
    let handler = move |envelope: Envelope, _: Context| {
        history.write(What::Seen { event: name(&envelope), by: Scope::Open });
        async { Ok::<_, HandlerError>(()) }
    };
    Ok(bus.subscribe_any(NARROW, OPEN, handler).await?)
}

/// The name of an event, which may be one that is not to be seen.
fn name(envelope: &Envelope) -> String {
    let open = envelope.event().map(|Open { name }| name);
    let closed = || envelope.event().map(|Closed { name }| name);
    let whatever = |_| format!("a {}", envelope.event_type());
    open.or_else(|_| closed()).unwrap_or_else(whatever)
}

/// Publishes what others must not see, now and then.
pub(crate) struct Publisher {
    bus: Bus,
    beside: Bus,
    history: Arc<Writer>,
    publisher: String,
    number: u64,
    calls: u64,
}

impl Publisher {
    pub(crate) fn new(bus: &Bus, beside: &Bus, history: &Arc<Writer>, publisher: &str) -> Self {
        let (bus, beside, history) = (bus.clone(), beside.clone(), Arc::clone(history));
        Self { bus, beside, history, publisher: format!("aside-{publisher}"), number: 0, calls: 0 }
    }

    /// Publishes one now and then, each time for somebody else. Whether it is stored matters to
    /// nobody.
    pub(crate) fn publish(&mut self, publishes: &TaskTracker) {
        self.calls += 1;
        if !self.calls.is_multiple_of(EVERY) {
            return;
        }
        let scope = [Scope::Beside, Scope::Open, Scope::Closed][(self.number % 3) as usize];
        let event = Made::new(&self.publisher, self.number, time::now(), Act::Fine, 50);
        self.number += 1;
        let name = event.name.clone();
        self.history.write(What::Aside { event: name.clone(), scope });
        let (bus, beside) = (self.bus.clone(), self.beside.clone());
        publishes.spawn(async move {
            let _answer = match scope {
                Scope::Beside => beside.publish(&event).await,
                Scope::Open => bus.publish(&Open { name }).await,
                Scope::Closed => bus.publish(&Closed { name }).await,
            };
        });
    }

    pub(crate) async fn drain(&self, deadline: Duration) {
        self.beside.drain(deadline).await;
    }
}
