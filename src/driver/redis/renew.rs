//! Renewing leases, and taking back what a stranger took off the books.

use tokio::time::Instant;

use super::claim::tell_gone;
use super::flight::Stream;
use super::member::Member;
use super::reply;
use super::script::{Call, RENEW};
use crate::delivery::{EntryId, Token};
use crate::error::Error;

/// Entries per renewal script.
const RENEWED_MAX: usize = 100;

type Held = (EntryId, Token);

/// What became of the lease of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lease {
    Lost,
    Renewed,
    /// The entry is pending for nobody.
    Vanished,
    TakenBack,
    /// It cannot be taken back: its message was deleted.
    Gone,
    /// Its group was made again or moved back, and will hand it out anew.
    Waits,
}

impl Lease {
    fn read(answer: redis::Value) -> Self {
        match reply::int(answer) {
            Ok(Some(1)) => Self::Renewed,
            Ok(Some(2)) => Self::Vanished,
            Ok(Some(3)) => Self::TakenBack,
            Ok(Some(4)) => Self::Gone,
            Ok(Some(5)) => Self::Waits,
            _ => Self::Lost,
        }
    }
}

/// Renews everything in flight; false where that has to be tried again.
pub(super) async fn renew(member: &Member) -> bool {
    let (mut calls, mut asked) = (Vec::new(), Vec::new());
    for (stream, held) in member.flight.all() {
        for part in held.chunks(RENEWED_MAX) {
            calls.push(call(member, &stream, part, false));
            asked.push((stream.clone(), part.to_vec()));
        }
    }
    if calls.is_empty() || planted!(NoRenewal) {
        return true;
    }
    let sent = Instant::now();
    let what = format!("renew the leases of group {}", member.group);
    let answers = member.shared.commands.call(&what, &calls).await;
    let Some(answers) = member.tell("renew leases", answers) else { return false };
    let mut renewed = true;
    for ((stream, held), answer) in asked.into_iter().zip(answers) {
        let noted = match reply::items(answer) {
            Ok(answers) => note(member, &stream, &held, answers, sent).await,
            Err(fault) => Err(member.shared.commands.error(&what, &fault)),
        };
        let what = format!("renew leases in {}", member.stream_key(&stream));
        renewed &= member.tell(&what, noted).is_some();
    }
    renewed
}

fn call(member: &Member, stream: &Stream, held: &[Held], take_back: bool) -> Call {
    let mut call = Call::new(&RENEW, vec![member.stream_key(stream)]);
    call.arg(member.group.as_str()).arg(member.consumer.as_str());
    call.number(&u8::from(take_back));
    for (id, token) in held {
        call.number(id).number(&token.0);
    }
    call
}

async fn note(
    member: &Member,
    stream: &Stream,
    held: &[Held],
    answers: Vec<redis::Value>,
    sent: Instant,
) -> Result<(), Error> {
    let (mut vanished, mut gone) = (Vec::new(), Vec::new());
    for ((id, token), answer) in held.iter().zip(answers) {
        match Lease::read(answer) {
            Lease::Renewed | Lease::Waits => member.flight.renewed(stream, *id, *token, sent),
            Lease::Vanished => vanished.push((*id, *token)),
            Lease::Gone => gone.push(*id),
            Lease::Lost | Lease::TakenBack => lose(member, stream, *id, *token),
        }
    }
    forget(member, stream, &gone).await;
    if !vanished.is_empty() {
        let back = take_back(member, stream, &vanished).await?;
        for (id, token) in vanished {
            if !back.contains(&id) && !member.flight.is_gone(stream, id) {
                lose(member, stream, id, token);
            }
        }
    }
    Ok(())
}

/// What was settled while the script ran is no longer in flight, and was not lost.
fn lose(member: &Member, stream: &Stream, id: EntryId, token: Token) {
    if member.flight.lose(stream, id, token) {
        let (group, (partition, _)) = (&member.group, stream);
        tracing::warn!(%group, %partition, %id, "the lease of an entry was lost");
    }
}

/// Makes entries pending again that are pending for nobody, though this consumer holds them and
/// nobody else can have: a stranger deleted the consumer, or acknowledged them. Gives those that
/// are this consumer's again.
///
/// Not those whose lease may have been lost meanwhile: another may have settled them.
pub(super) async fn take_back(
    member: &Member,
    stream: &Stream,
    vanished: &[Held],
) -> Result<Vec<EntryId>, Error> {
    let _nothing_is_settled = member.settling.write().await;
    let lease = member.lease.lease;
    let is_held = |(id, token): &&Held| member.flight.is_surely_held(stream, *id, *token, lease);
    let held: Vec<Held> = vanished.iter().filter(is_held).copied().collect();
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let (commands, sent) = (&member.shared.commands, Instant::now());
    let what = format!("take back entries of group {}", member.group);
    let answer = commands.call(&what, &[call(member, stream, &held, true)]).await?.pop();
    let answers = reply::items(answer.unwrap_or_default());
    let answers = answers.map_err(|fault| commands.error(&what, &fault))?;
    let (mut back, mut told, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for ((id, token), answer) in held.into_iter().zip(answers) {
        match Lease::read(answer) {
            lease @ (Lease::TakenBack | Lease::Renewed | Lease::Waits) => {
                member.flight.renewed(stream, id, token, sent);
                back.push(id);
                if lease == Lease::TakenBack {
                    told.push(id);
                }
            }
            Lease::Gone => gone.push(id),
            Lease::Lost | Lease::Vanished => {}
        }
    }
    tell_gone(member, stream, &told).await;
    forget(member, stream, &gone).await;
    Ok(back)
}

/// Entries whose messages were deleted. Nobody else will run them: what runs of them here runs to
/// its end, and what it says at its end still counts, so they stay in flight.
async fn forget(member: &Member, stream: &Stream, gone: &[EntryId]) {
    let fresh: Vec<EntryId> =
        gone.iter().copied().filter(|id| member.flight.note_gone(stream, *id)).collect();
    tell_gone(member, stream, &fresh).await;
}
