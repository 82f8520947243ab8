//! Notes on suspects: who is about to run, and how often it was found running by those who took
//! it over. What was found three times is what kills its process.

use super::member::Member;
use super::reply;
use super::script::{BEGIN, Call};
use crate::delivery::{Delivery, Queue};
use crate::error::{Error, ErrorKind};

/// Notes that a suspect of the retry stream is about to run; `None` where it is not this
/// consumer's any more.
pub(super) async fn begin(member: &Member, delivery: &Delivery) -> Result<Option<u32>, Error> {
    let entry = &delivery.entry;
    if entry.queue == Queue::Log {
        let text = format!("entry {} of a log is split before its events run", entry.id);
        return Err(Error::invalid(text));
    }
    let stream = (entry.partition.clone(), entry.queue);
    let keys = member.keys(&entry.partition);
    let mut call = Call::new(&BEGIN, vec![keys.retry, keys.running]);
    call.arg(member.group.as_str()).arg(member.consumer.as_str());
    call.number(&entry.id).number(&entry.token.0);
    let (commands, what) = (&member.shared.commands, format!("begin suspect {}", entry.id));
    let answer = commands.call(&what, &[call]).await?.pop().unwrap_or_default();
    let found = reply::int(answer).map_err(|fault| commands.error(&what, &fault))?;
    let is_held = member.flight.token(&stream, entry.id) == Some(entry.token);
    if found == Some(-2) && is_held {
        // It is not settled. The next renewal takes it back, or says that it is lost.
        let text = format!("cannot {what}: it is pending for nobody");
        return Err(Error::new(ErrorKind::Conflict, text));
    }
    let found = found.and_then(|found| u32::try_from(found).ok());
    if found.is_none() {
        member.flight.lose(&stream, entry.id, entry.token);
    }
    Ok(if planted!(NoCrashNotes) { found.map(|_| 0) } else { found })
}
