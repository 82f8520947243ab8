//! One dead letter, whole.

use rumormill::delivery::{DeadLetter, Malformed};
use rumormill::driver::GroupName;

use super::choice::{Choice, Letters, missing, one, ranges};
use super::letter::{LetterId, given_up, line};
use crate::args::Format;
use crate::escape::{escape, escape_bytes};
use crate::failure::{Exit, Failure};
use crate::operate::{Store, several};
use crate::output::{Output, is_closed_pipe};

pub(super) async fn run(
    store: &Store<'_>,
    group: &GroupName,
    id: &LetterId,
    format: Format,
) -> Result<Exit, Failure> {
    let choice = Choice::Ids(vec![id.clone()]);
    // Tells a group that is not known from a letter that is not there.
    ranges(store, group, &choice).await?;
    let page = Letters::within(store, group, &choice, vec![one(id)]).next().await?;
    let letter = page.and_then(|page| page.letters.into_iter().next());
    let letter = letter.ok_or_else(|| missing(group, id))?;
    let mut output = Output::stdout(Some(format));
    let written = match (format, &letter.record) {
        (Format::Json, _) => output.json(&line(&id.partition, &letter)),
        (_, Ok(envelope)) => {
            let head = if format == Format::Pretty { head(id, &letter) } else { String::new() };
            output.text_as_is(&head).and_then(|()| output.event(&letter.origin, envelope))
        }
        (_, Err(malformed)) => {
            let head = if format == Format::Pretty { head(id, &letter) } else { String::new() };
            output.text_as_is(&(head + &fields(malformed)))
        }
    };
    match written.and_then(|()| output.flush()) {
        Err(error) if !is_closed_pipe(&error) => {
            Err(Failure::failed("cannot write to stdout").because(&error))
        }
        Ok(()) | Err(_) => Ok(Exit::Done),
    }
}

/// Why it was given up, in lines before the event's own.
fn head(id: &LetterId, letter: &DeadLetter) -> String {
    let consumer = escape(&letter.consumer).into_owned();
    let attempts = several(letter.attempts.into(), "attempt");
    let mut text = format!(
        "dead letter  {id}\ngiven up     {} by {consumer} after {attempts}\ncause        {}\n",
        given_up(letter),
        letter.failure.cause
    );
    for (at, error) in letter.failure.errors.iter().enumerate() {
        let title = if at == 0 { "error" } else { "  because" };
        text += &format!("{title:<12} {}\n", escape(error));
    }
    text + &format!("origin       {}\n\n", letter.origin)
}

/// The raw fields of what is no event.
fn fields(malformed: &Malformed) -> String {
    let mut text = format!("no event: {}\n", escape(&malformed.reason));
    for (name, value) in &malformed.fields {
        text += &format!("  {}: {}\n", escape_bytes(name, &[]), escape_bytes(value, &[]));
    }
    text
}
