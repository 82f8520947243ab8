//! Who publishes: a process of its own, which may crash with events under way.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use rumormill::{
    Codec, ContentType, Envelope, Event, EventId, PublishError, PublishOptions, Receipt,
};
use tokio::time::sleep;

use crate::handlers::{Note, Odd, Order};
use crate::history::{Answer, Fact};
use crate::plan::{Publication, What};
use crate::world::{Life, World, now};

/// Publishes all that one publisher has to.
pub async fn publish_all(world: Arc<World>, publisher: usize, seed: u64) {
    let mut random = Rng::with_seed(seed);
    let all = &world.plan.publications[publisher];
    let mut rest = &all[..];
    while !rest.is_empty() {
        let life = world.life(world.plan.faults(&mut random)).await;
        let crash = Duration::from_millis(random.u64(0..20_000));
        let done = &mut 0;
        tokio::select! {
            biased;
            () = course(&life, rest, done) => {}
            // waits: until the publisher crashes, on paused time
            () = sleep(crash) => life.stage.crash(),
        }
        rest = &rest[*done..];
    }
}

/// Those without a pause between them are published at once, in their order.
async fn course(life: &Life, all: &[Publication], done: &mut usize) {
    while let Some(first) = all.get(*done) {
        // waits: as long as the plan says, on paused time
        sleep(first.pause).await;
        let rest = &all[*done..];
        let count = 1 + rest[1..].iter().take_while(|next| next.pause.is_zero()).count();
        let (together, first) = (&rest[..count], *done);
        // What was published before a crash is not published again.
        *done = first + count;
        join_all(together.iter().map(|publication| publish(life, publication))).await;
    }
}

async fn publish(life: &Life, publication: &Publication) {
    let name: Arc<str> = publication.name.as_str().into();
    let (history, process) = (&life.stage.history, life.stage.process);
    let id = EventId::new(now());
    let mut twice = publication.twice;
    loop {
        history.note(Fact::Publishing(process, Arc::clone(&name)));
        let answer = once(life, publication, id).await;
        let answer = match answer {
            Ok(Receipt { position, deduplicated, .. }) => Answer::Stored { position, deduplicated },
            Err(PublishError::NotStored(_)) => Answer::NotStored,
            Err(PublishError::Unknown(_)) => Answer::Unknown,
        };
        let again = publication.deduplicate && !matches!(answer, Answer::Stored { .. });
        history.note(Fact::Published(process, Arc::clone(&name), answer));
        if !again && !std::mem::take(&mut twice) {
            return;
        }
    }
}

async fn once(life: &Life, own: &Publication, id: EventId) -> Result<Receipt, PublishError> {
    match own.what {
        What::Order => one(life, own, id, &Order {}).await,
        What::Note => one(life, own, id, &Note {}).await,
        What::Odd => one(life, own, id, &Odd {}).await,
    }
}

async fn one<E: Event>(
    life: &Life,
    own: &Publication,
    id: EventId,
    event: &E,
) -> Result<Receipt, PublishError> {
    if let Some(delay) = own.delay {
        let payload = Codec::MessagePack.encode(event).expect("it can be encoded");
        let content_type = ContentType::MESSAGE_PACK;
        let mut envelope = Envelope::builder(E::TYPE, content_type, payload, now())
            .id(id)
            .key(own.key)
            .header("name", own.name.clone());
        if let Some(expires) = own.expires {
            envelope = envelope.expires_after(expires);
        }
        let envelope = envelope.build().expect("an event");
        return life.bus.publisher().publish_envelope_after(envelope, delay).await;
    }
    let mut options = PublishOptions::default().id(id).header("name", own.name.clone());
    if let Some(key) = own.key {
        options = options.key(key);
    }
    if let Some(expires) = own.expires {
        options = options.expires_after(expires);
    }
    if own.deduplicate {
        options = options.deduplicate();
    }
    life.bus.publish_with(event, options).await
}
