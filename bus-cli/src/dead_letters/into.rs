//! Dead letters handed to a local process, to try a fix: one process per event. They stay where
//! they are.

use std::io::stderr;
use std::process::Stdio;

use rumormill::delivery::{DeadLetter, Partition};
use rumormill::driver::GroupName;
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::choice::{Choice, Letters, Page, ranges};
use super::letter::LetterId;
use crate::args::Format;
use crate::failure::{Exit, Failure};
use crate::ndjson;
use crate::operate::{Store, several};
use crate::output::{Output, is_closed_pipe};
use crate::signals::Signals;

/// The command, run by `sh -c`, with the event on its stdin.
pub(super) struct Trial<'a> {
    pub(super) command: &'a str,
    pub(super) store: &'a Store<'a>,
    pub(super) group: &'a GroupName,
    pub(super) format: Format,
}

/// How it went with a letter.
#[derive(Serialize)]
struct Answer {
    dead_letter: String,
    #[serde(rename = "type")]
    event_type: Option<String>,
    result: &'static str,
    /// Nothing where it was not run, or was ended by a signal.
    exit: Option<i32>,
}

#[derive(Default)]
struct Sum {
    handled: u64,
    failed: u64,
    interrupted: Option<&'static str>,
}

impl Trial<'_> {
    /// Goes through the letters; `wait` keeps a rate, before each by its number from 0.
    pub(super) async fn run<W: Future<Output = ()>>(
        &self,
        choice: &Choice,
        wait: impl Fn(u64) -> W,
    ) -> Result<Exit, Failure> {
        let (ranges, _) = ranges(self.store, self.group, choice).await?;
        let mut letters = Letters::within(self.store, self.group, choice, ranges);
        let mut signals = Signals::listen()
            .map_err(|error| Failure::failed("cannot listen to signals").because(&error))?;
        let mut output = Output::stdout(Some(self.format));
        let mut sum = Sum::default();
        'pages: while let Some(Page { partition, letters }) = letters.next().await? {
            for letter in letters {
                let answer = async {
                    wait(sum.handled + sum.failed).await;
                    self.try_one(&partition, &letter).await
                };
                let answer = tokio::select! {
                    biased;
                    signal = signals.next() => {
                        sum.interrupted = Some(signal);
                        break 'pages;
                    }
                    answer = answer => answer?,
                };
                sum.add(&answer);
                match self.write(&mut output, &answer) {
                    Err(error) if is_closed_pipe(&error) => return Ok(sum.exit()),
                    Err(error) => {
                        return Err(Failure::failed("cannot write to stdout").because(&error));
                    }
                    Ok(()) => {}
                }
            }
        }
        self.conclude(&sum);
        Ok(sum.exit())
    }

    /// Runs the command for a letter.
    async fn try_one(&self, partition: &Partition, letter: &DeadLetter) -> Result<Answer, Failure> {
        let id = LetterId { partition: partition.clone(), id: letter.id };
        let dead_letter = id.to_string();
        let Ok(envelope) = &letter.record else {
            return Ok(Answer { dead_letter, event_type: None, result: "no_event", exit: None });
        };
        let line = ndjson::write(&letter.origin, envelope) + "\n";
        let status = self.feed(&line).await.map_err(|error| {
            Failure::failed(format!("cannot run {:?}", self.command)).because(&error)
        })?;
        Ok(Answer {
            dead_letter,
            event_type: Some(envelope.event_type().to_string()),
            result: if status.success() { "handled" } else { "failed" },
            exit: status.code(),
        })
    }

    /// What the command writes goes to stderr: stdout is for the answers.
    async fn feed(&self, line: &str) -> std::io::Result<std::process::ExitStatus> {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(self.command).stdin(Stdio::piped()).stdout(stderr());
        let mut child = shell.kill_on_drop(true).spawn()?;
        let stdin = child.stdin.take();
        let write = async {
            if let Some(mut stdin) = stdin {
                // It need not read it.
                let _ = stdin.write_all(line.as_bytes()).await;
                let _ = stdin.shutdown().await;
            }
        };
        let ((), status) = tokio::join!(write, child.wait());
        status
    }

    fn write(
        &self,
        output: &mut Output<std::io::BufWriter<std::io::Stdout>>,
        answer: &Answer,
    ) -> std::io::Result<()> {
        let Answer { dead_letter, event_type, result, exit } = answer;
        match self.format {
            Format::Json => output.json(&serde_json::to_string(answer)?)?,
            Format::Raw => output.text_as_is(&format!("{dead_letter}\n"))?,
            Format::Pretty => {
                let what = event_type.as_deref().unwrap_or("no event");
                let exit = match (exit, *result) {
                    (Some(exit), _) => format!("exit {exit}"),
                    (None, "failed") => "ended by a signal".to_owned(),
                    (None, _) => "not run".to_owned(),
                };
                output.text_as_is(&format!("{dead_letter}  {what}  {exit}\n"))?;
            }
        }
        output.flush()
    }

    /// Says the sum where people read it.
    fn conclude(&self, sum: &Sum) {
        use std::io::Write;
        let Sum { handled, failed, interrupted } = sum;
        let how =
            interrupted.map(|signal| format!("interrupted by {signal}: ")).unwrap_or_default();
        let all = several(handled + failed, "dead letter");
        let text = format!("{how}{handled} of {all} handled; they stay where they are\n");
        let _ = stderr().write_all(text.as_bytes());
    }
}

impl Sum {
    fn add(&mut self, answer: &Answer) {
        match answer.result {
            "handled" => self.handled += 1,
            _ => self.failed += 1,
        }
    }

    fn exit(&self) -> Exit {
        match (self.failed, self.interrupted, self.handled) {
            (0, None, _) => Exit::Done,
            (_, _, 0) => Exit::Failed,
            _ => Exit::Partly,
        }
    }
}
