//! Changing the payload of a dead letter, by hand or by a patch.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use rumormill::driver::GroupName;
use rumormill::{Codec, Envelope};
use serde::Serialize;
use serde_json::value::RawValue;
use similar::TextDiff;

use super::letter::LetterId;
use super::{patch, show};
use crate::args::{Format, twin};
use crate::escape::escape_all_but;
use crate::failure::{Exit, Failure};
use crate::operate::Store;
use crate::prompt::{Consent, Go};
use crate::{json_text, msgpack, ndjson, table};

/// Change the payload of a dead letter, in $EDITOR or by a patch; what was published is kept
///
/// The edited letter gets a new id, so nobody redrives it under the old one meanwhile. `show`
/// shows both payloads.
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| twin("DEAD_LETTERS_EDIT", arg)), after_help = "\
Examples:
  bus-cli dead-letters edit --group email --id orders:0/1700000000000-0
  bus-cli dead-letters edit --group email --id orders:0/1700000000000-0 --patch '{\"number\":7}'")]
pub(super) struct EditArgs {
    /// The group: the name of the service or subscription
    #[arg(long, required = true)]
    pub(super) group: String,
    /// Its id among the dead letters: orders:0/1700000000000-0
    #[arg(long, value_name = "POSITION", required = true)]
    id: String,
    /// A patch in place of $EDITOR: an object to merge (RFC 7396), a list of operations (RFC
    /// 6902), or @FILE with one of them
    #[arg(long, value_name = "JSON|@FILE")]
    patch: Option<String>,
    #[command(flatten)]
    consent: Consent,
}

/// What is to be changed, and how.
pub(super) struct Edit {
    id: LetterId,
    patch: Option<String>,
    consent: Consent,
}

impl Edit {
    pub(super) fn new(args: EditArgs) -> Result<Self, Failure> {
        let EditArgs { group: _, id, patch, consent } = args;
        let patch = match patch.as_deref().map(|patch| patch.strip_prefix('@').ok_or(patch)) {
            None => None,
            Some(Err(patch)) => Some(patch.to_owned()),
            Some(Ok(file)) => Some(patch::read(file)?),
        };
        Ok(Self { id: LetterId::parse(&id)?, patch, consent })
    }

    pub(super) async fn run(
        self,
        store: &Store<'_>,
        group: &GroupName,
        format: Format,
    ) -> Result<Exit, Failure> {
        let id = &self.id;
        let letter = show::one(store, group, id).await?;
        let envelope = letter.record.as_ref().map_err(|malformed| {
            Failure::failed(format!("dead letter {id} has no payload: {}", malformed.reason))
        })?;
        let before = ndjson::payload_json(envelope).ok_or_else(|| not_json(id, envelope))?;
        let before = json_text::compact(&before);
        let (after, payload) = self.change(envelope, &before)?;
        if after == before {
            table::write(&self.told(group, &before, &after, None, format, "nothing changed\n"))?;
            return Ok(Exit::Done);
        }
        if format == Format::Pretty {
            table::write(&diff(&before, &after))?;
        }
        let question = format!("edit dead letter {id} of group {group} on {}", store.address);
        if self.consent.ask(&question)? == Go::Stop {
            if format != Format::Pretty {
                table::write(&self.told(group, &before, &after, None, format, ""))?;
            }
            return Ok(Exit::Done);
        }
        let fail = |error| Failure::library(format!("cannot edit dead letter {id}"), &error);
        let admin = store.letters().map_err(fail)?;
        let edited = admin.edit(group, &id.partition, id.id, payload.into()).await.map_err(fail)?;
        let edited = edited.map(|id| LetterId { partition: self.id.partition.clone(), id });
        let edited = edited.ok_or_else(|| super::choice::missing(group, id))?;
        let text = format!("edited: it is {edited} now\n");
        table::write(&self.told(group, &before, &after, Some(&edited), format, &text))
    }

    /// The JSON after the change, and as a payload.
    fn change(&self, envelope: &Envelope, before: &str) -> Result<(String, Vec<u8>), Failure> {
        let id = &self.id;
        let refuse = |why: String| Failure::failed(format!("cannot edit dead letter {id}: {why}"));
        let encode = |after: &str| {
            let checked: Result<&RawValue, _> = serde_json::from_str(after);
            checked.map_err(|error| format!("it is no JSON: {error}"))?;
            let compact = json_text::compact(after);
            let payload = match envelope.content_type().codec() {
                Some(Codec::MessagePack) => msgpack::from_json(&compact)?,
                _ => compact.clone().into_bytes(),
            };
            Ok((compact, payload))
        };
        match &self.patch {
            Some(patch) => {
                patch::apply(before, patch).and_then(|after| encode(&after)).map_err(refuse)
            }
            None => in_editor(before, encode).map_err(|failure| match failure {
                Unedited::Refused(why) => refuse(why),
                Unedited::Failed(failure) => failure,
            }),
        }
    }

    /// What was done, as the format wants it.
    fn told(
        &self,
        group: &GroupName,
        before: &str,
        after: &str,
        edited: Option<&LetterId>,
        format: Format,
        pretty: &str,
    ) -> String {
        let told = Told {
            group: group.as_str(),
            dead_letter: self.id.to_string(),
            edited: edited.map(LetterId::to_string),
            before: serde_json::from_str(before).expect("it was checked"),
            after: serde_json::from_str(after).expect("it was checked"),
        };
        match format {
            Format::Pretty => pretty.to_owned(),
            Format::Json => serde_json::to_string(&told).expect("text is always JSON") + "\n",
            Format::Raw => told.edited.map(|id| id + "\n").unwrap_or_default(),
        }
    }
}

#[derive(Serialize)]
struct Told<'a> {
    group: &'a str,
    dead_letter: String,
    /// The id it has now; nothing where nothing was done.
    edited: Option<String>,
    before: &'a RawValue,
    after: &'a RawValue,
}

fn not_json(id: &LetterId, envelope: &Envelope) -> Failure {
    let kind = envelope.content_type();
    let text = format!("cannot edit dead letter {id}: JSON cannot show its {kind} without loss");
    Failure::failed(text).with_help("export it, change the line's data_base64, and import it")
}

/// The changed lines among their neighbours.
fn diff(before: &str, after: &str) -> String {
    let (before, after) = (json_text::pretty(before) + "\n", json_text::pretty(after) + "\n");
    let diff = TextDiff::from_lines(&before, &after);
    let text = diff.unified_diff().header("before", "after").to_string();
    escape_all_but(&text, &['\n', '\t']).into_owned()
}

/// Why there is no edited text.
enum Unedited {
    Refused(String),
    Failed(Failure),
}

/// Lets the user's editor change the text. What cannot be used is kept, and said where.
fn in_editor<T>(before: &str, check: impl Fn(&str) -> Result<T, String>) -> Result<T, Unedited> {
    let io = |error: std::io::Error| {
        Unedited::Failed(Failure::failed("cannot hand the payload to an editor").because(&error))
    };
    let file = tempfile::Builder::new().prefix("dead-letter-").suffix(".json").tempfile();
    let mut file = file.map_err(io)?;
    writeln!(file, "{}", json_text::pretty(before)).map_err(io)?;
    edit(file.path()).map_err(Unedited::Failed)?;
    let after = std::fs::read_to_string(file.path()).map_err(io)?;
    check(&after).map_err(|why| {
        let kept = file.path().to_path_buf();
        file.disable_cleanup(true);
        Unedited::Refused(format!("{why}; what you wrote is in {}", kept.display()))
    })
}

/// Runs `$VISUAL`, else `$EDITOR`, else vi.
fn edit(path: &Path) -> Result<(), Failure> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    // It may have flags of its own.
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(path);
    match shell.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            Err(Failure::failed(format!("nothing was done: {editor} ended with {status}"))
                .with_help("set EDITOR, or change the payload with --patch"))
        }
        Err(error) => Err(Failure::failed(format!("cannot start {editor}")).because(&error)),
    }
}
