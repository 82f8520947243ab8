//! What becomes of events that are published: receipts on stdout, errors on stderr, an exit code.

use std::io::{Write, stderr};

use rumormill::{EventId, PublishError, Receipt};

use super::input::Upto;
use crate::address::Address;
use crate::failure::{Exit, Failure};
use crate::output::{Output, is_closed_pipe};
use crate::progress::Progress;

/// What became of the events so far.
pub(crate) struct Answers<'a, W> {
    pub(crate) receipts: Option<Output<W>>,
    pub(crate) address: &'a Address,
    pub(crate) stored: u64,
    pub(crate) failed: u64,
    pub(crate) bad: u64,
    pub(crate) unreachable: bool,
    pub(crate) upto: Upto,
    pub(crate) progress: Progress,
}

impl<'a, W: Write> Answers<'a, W> {
    pub(crate) fn new(receipts: Output<W>, address: &'a Address) -> Self {
        Self {
            receipts: Some(receipts),
            address,
            stored: 0,
            failed: 0,
            bad: 0,
            unreachable: false,
            upto: Upto::default(),
            progress: Progress::new("stored"),
        }
    }

    pub(crate) fn take(
        &mut self,
        answers: Vec<(EventId, Result<Receipt, PublishError>)>,
    ) -> Result<(), Failure> {
        for (id, answer) in answers {
            match answer {
                Ok(receipt) => {
                    self.stored += 1;
                    self.write(|receipts| receipts.receipt(&receipt))?;
                }
                Err(error) => self.refuse(id, &error),
            }
        }
        self.write(Output::flush)
    }

    /// Writes to stdout. When nobody reads it any more, the events still have to go out.
    pub(crate) fn write(
        &mut self,
        write: impl FnOnce(&mut Output<W>) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        match self.receipts.as_mut().map(write) {
            Some(Err(error)) if is_closed_pipe(&error) => self.receipts = None,
            Some(Err(error)) => {
                return Err(Failure::failed("cannot write receipts to stdout").because(&error));
            }
            Some(Ok(())) | None => {}
        }
        Ok(())
    }

    pub(crate) fn refuse(&mut self, id: EventId, error: &PublishError) {
        self.failed += 1;
        self.unreachable |= error.error().is_transient();
        let outcome = if error.is_not_stored() { "was not stored" } else { "may be stored, once" };
        let attempt = format!("event {id} {outcome}");
        self.progress.clear();
        Failure::library(attempt, error.error()).print(self.address, &mut stderr());
    }

    pub(crate) fn bad(&mut self, bad: &[(u64, String)]) {
        for (line, why) in bad {
            self.left_out(&format!("line {line} is no event: {why}"));
        }
    }

    /// A line that is not published, and why.
    pub(crate) fn left_out(&mut self, text: &str) {
        self.bad += 1;
        self.progress.clear();
        Failure::failed(text).print(self.address, &mut stderr());
    }

    /// Ends before everything was published, and says so, and how to go on.
    pub(crate) fn stopped(&self, how: &str, left: Option<String>, help: Option<String>) -> Exit {
        self.progress.clear();
        if let Some(left) = left {
            let (stored, address) = (self.stored, self.address);
            let text = format!("{how} after {stored} events stored on {address}: {left}");
            let failure = Failure::failed(text);
            let failure = match help {
                Some(help) => failure.with_help(help),
                None => failure,
            };
            failure.print(address, &mut stderr());
        }
        match self.stored {
            0 if self.unreachable => Exit::Unreachable,
            0 => Exit::Failed,
            _ => Exit::Partly,
        }
    }

    pub(crate) fn exit(&self) -> Exit {
        self.progress.clear();
        match (self.stored, self.failed, self.bad) {
            (_, 0, 0) => Exit::Done,
            (0, 1.., 0) => Exit::Failed,
            _ => Exit::Partly,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Format;
    use rumormill::{Error, ErrorKind};

    #[test]
    fn the_exit_code_tells_how_much_was_stored() {
        let address = Address::none();
        let exit = |stored, failed, bad| {
            let mut answers = Answers::new(Output::buffer(Format::Json, false), &address);
            (answers.stored, answers.failed, answers.bad) = (stored, failed, bad);
            answers.exit()
        };
        assert_eq!(exit(2, 0, 0), Exit::Done);
        assert_eq!(exit(0, 0, 0), Exit::Done);
        assert_eq!(exit(2, 0, 1), Exit::Partly);
        assert_eq!(exit(0, 0, 1), Exit::Partly);
        assert_eq!(exit(1, 1, 0), Exit::Partly);
        assert_eq!(exit(0, 1, 0), Exit::Failed);
        assert_eq!(exit(0, 1, 1), Exit::Partly);
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_ends_the_receipts_and_nothing_else() {
        let address = Address::none();
        let mut answers = Answers::new(Output::to(Closed, Format::Json, false), &address);
        let receipt = |id: u8| Receipt {
            id: [id; 16].into(),
            position: None,
            durability: rumormill::Durability::Memory,
            deduplicated: false,
        };
        let error = || PublishError::NotStored(Error::new(ErrorKind::Server, "full"));
        let id = EventId::from([9; 16]);
        let taken = vec![(id, Ok(receipt(1))), (id, Err(error())), (id, Ok(receipt(2)))];
        answers.take(taken).expect("a closed pipe is no error");
        assert!(answers.receipts.is_none());
        assert_eq!((answers.stored, answers.failed, answers.exit()), (2, 1, Exit::Partly));
    }
}
