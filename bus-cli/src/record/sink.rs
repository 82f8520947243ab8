//! Where a recording goes. Each write is of whole lines: a kill cuts the last line at most, where
//! it strikes in the middle of one (the system may end a write between two pages).

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};

use rumormill::{Envelope, Position};

use crate::escape::escape_all_but;
use crate::failure::Failure;
use crate::ndjson;
use crate::output::is_closed_pipe;

/// Bytes that are kept back until the end of a read at most.
const BUFFER_BYTES_MAX: usize = 1 << 16;

/// A file or stdout, and what went there.
pub(super) struct Sink {
    to: To,
    buffer: Vec<u8>,
    pub(super) events: u64,
    pub(super) bytes: u64,
    bytes_max: u64,
}

enum To {
    File { name: String, file: File },
    Stdout { terminal: bool },
}

/// What became of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Yes,
    /// It would have been too much.
    Full,
    /// Nobody reads it any more.
    Closed,
}

impl Sink {
    /// Opens a file that must not be there, or may be replaced; `-` is stdout.
    pub(super) fn open(name: &str, force: bool, bytes_max: u64) -> Result<Self, Failure> {
        let to = match name {
            "-" => To::Stdout { terminal: io::stdout().is_terminal() },
            name => To::File { name: name.to_owned(), file: create(name, force)? },
        };
        Ok(Self { to, buffer: Vec::new(), events: 0, bytes: 0, bytes_max })
    }

    pub(super) fn name(&self) -> &str {
        match &self.to {
            To::File { name, .. } => name,
            To::Stdout { .. } => "stdout",
        }
    }

    /// Takes an event, if there is room for it.
    pub(super) fn take(
        &mut self,
        position: &Position,
        envelope: &Envelope,
        offset_ms: u64,
    ) -> Result<Taken, Failure> {
        let line = ndjson::write_recorded(position, envelope, offset_ms);
        let bytes = self.bytes + line.len() as u64 + 1;
        if bytes > self.bytes_max {
            return Ok(Taken::Full);
        }
        match self.to {
            // Within JSON strings an escape means the same; a tab stands between them.
            To::Stdout { terminal: true } => {
                self.buffer.extend(escape_all_but(&line, &['\t']).bytes());
            }
            _ => self.buffer.extend(line.bytes()),
        }
        self.buffer.push(b'\n');
        (self.events, self.bytes) = (self.events + 1, bytes);
        if self.buffer.len() >= BUFFER_BYTES_MAX { self.flush() } else { Ok(Taken::Yes) }
    }

    /// Writes what was taken.
    pub(super) fn flush(&mut self) -> Result<Taken, Failure> {
        let written = match &mut self.to {
            To::File { file, .. } => file.write_all(&self.buffer),
            To::Stdout { .. } => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&self.buffer).and_then(|()| stdout.flush())
            }
        };
        self.buffer.clear();
        match written {
            Ok(()) => Ok(Taken::Yes),
            Err(error) if is_closed_pipe(&error) => Ok(Taken::Closed),
            Err(error) => Err(self.failure(&error)),
        }
    }

    /// Writes the rest, and has a file on its disk before it says so.
    pub(super) fn close(&mut self) -> Result<(), Failure> {
        self.flush()?;
        match &self.to {
            To::File { file, .. } => match file.sync_all() {
                Ok(()) => Ok(()),
                // A pipe or a device is no file that could be synced.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
                Err(error) => Err(self.failure(&error)),
            },
            To::Stdout { .. } => Ok(()),
        }
    }

    fn failure(&self, error: &io::Error) -> Failure {
        Failure::failed(format!("cannot write the recording to {}", self.name())).because(error)
    }
}

fn create(name: &str, force: bool) -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    options.write(true);
    match force {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    options.open(name).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::usage(format!("{name} is there already"))
            .with_help("--force replaces it; or name another file"),
        _ => Failure::failed(format!("cannot write the recording to {name}")).because(&error),
    })
}
