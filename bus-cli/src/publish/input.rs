//! Where events come from: a payload, or lines of a file or of stdin.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::thread;

use rumormill::envelope::PAYLOAD_BYTES_MAX;
use rumormill::{Clock, Envelope, SystemClock};
use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::ndjson::{self, Recorded};
use crate::settings::{Data, Input, json};

/// Most bytes of a line. The largest payload, each of its bytes as an escape of six, and some
/// room for the header.
const LINE_BYTES_MAX: usize = 6 * PAYLOAD_BYTES_MAX + (1 << 20);
/// Most bytes of a payload with the blanks around it.
const JSON_BYTES_MAX: u64 = PAYLOAD_BYTES_MAX as u64 * 2;
/// Lines that are read ahead of what is published.
const LINES_AHEAD_MAX: usize = 256;

/// The JSON bytes of a payload, as they were written.
pub(crate) fn payload(data: &Data) -> Result<Vec<u8>, Failure> {
    let input = match data {
        Data::Typed(json) => return Ok(json.clone().into_bytes()),
        Data::Input(input) => input,
    };
    let mut bytes = Vec::new();
    let read = open(input)?.take(JSON_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::failed(cannot_read(input)).because(&error))?;
    if bytes.len() as u64 > JSON_BYTES_MAX {
        let cause = format!("it has more than {JSON_BYTES_MAX} bytes");
        return Err(Failure::failed(cannot_read(input)).with_cause(cause));
    }
    let refuse = |why: &dyn std::fmt::Display| {
        Failure::failed(format!("{}: it is no JSON: {why}", cannot_read(input)))
    };
    let text = std::str::from_utf8(&bytes).map_err(|error| refuse(&error))?;
    json(text).map(String::into_bytes).map_err(|error| refuse(&error))
}

fn cannot_read(input: &Input) -> String {
    match input {
        Input::Stdin => "cannot read stdin".to_owned(),
        Input::File(path) => format!("cannot read {}", path.display()),
    }
}

fn open(input: &Input) -> Result<Box<dyn BufRead + Send>, Failure> {
    match input {
        Input::Stdin => Ok(Box::new(BufReader::new(io::stdin()))),
        Input::File(path) => match File::open(path) {
            Ok(file) => Ok(Box::new(BufReader::new(file))),
            Err(error) => Err(Failure::failed(cannot_read(input)).because(&error)),
        },
    }
}

/// Some events, and the lines that are none, with their numbers.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) envelopes: Vec<Envelope>,
    pub(crate) bad: Vec<(u64, String)>,
    pub(crate) upto: Upto,
}

/// A place among lines: what is before it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Upto {
    /// The last line.
    pub(crate) line: u64,
    /// Bytes up to its end.
    pub(crate) byte: u64,
}

/// Lines as they arrive. A thread reads them: a terminal or a pipe may keep it waiting for ever.
pub(crate) struct Lines {
    read: mpsc::Receiver<io::Result<Line>>,
    source: String,
    /// How long a file is.
    bytes: Option<u64>,
}

/// A line, and the event that it is or why it is none.
pub(crate) struct Line {
    pub(crate) upto: Upto,
    pub(crate) event: Result<Recorded, String>,
}

/// Opens the lines of `input`.
pub(crate) fn lines(input: &Input) -> Result<Lines, Failure> {
    let source = cannot_read(input);
    let reader = open(input)?;
    let bytes = match input {
        Input::Stdin => None,
        Input::File(path) => path.metadata().ok().filter(|file| file.is_file()).map(|f| f.len()),
    };
    let (to, read) = mpsc::channel(LINES_AHEAD_MAX);
    // When `Lines` is dropped, the thread ends with its next line, or with the process.
    thread::Builder::new()
        .name("lines".to_owned())
        .spawn(move || read_lines(reader, &to))
        .map_err(|error| Failure::failed("cannot start a thread").because(&error))?;
    Ok(Lines { read, source, bytes })
}

impl Lines {
    /// How many bytes there are in all; nothing where that is not known.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.bytes.filter(|bytes| *bytes > 0)
    }

    /// What has arrived, `events_max` at most; waits for the first. `None` after the last.
    ///
    /// # Cancel safety
    /// Dropped before it is done, it has taken nothing.
    pub(crate) async fn next(&mut self, events_max: usize) -> Result<Option<Batch>, Failure> {
        let Some(lines) = self.next_lines(events_max).await? else { return Ok(None) };
        let mut batch = Batch::default();
        for line in lines {
            batch.upto = line.upto;
            match line.event {
                Ok(recorded) => batch.envelopes.push(recorded.envelope),
                Err(why) => batch.bad.push((line.upto.line, why)),
            }
        }
        Ok(Some(batch))
    }

    /// As [`Lines::next`], line by line.
    pub(crate) async fn next_lines(
        &mut self,
        lines_max: usize,
    ) -> Result<Option<Vec<Line>>, Failure> {
        let mut lines = Vec::new();
        if self.read.recv_many(&mut lines, lines_max).await == 0 {
            return Ok(None);
        }
        let lines: io::Result<Vec<Line>> = lines.into_iter().collect();
        let failed = |error| Failure::failed(self.source.clone()).because(&error);
        lines.map(Some).map_err(failed)
    }
}

fn read_lines(mut reader: impl BufRead, to: &mpsc::Sender<io::Result<Line>>) {
    let mut upto = Upto::default();
    loop {
        let line = match read_line(&mut reader) {
            Ok(Some((line, bytes))) => {
                upto.line += 1;
                upto.byte += bytes;
                line
            }
            Ok(None) => return,
            Err(error) => {
                let _ = to.blocking_send(Err(error));
                return;
            }
        };
        let event = match line {
            Ok(text) if text.trim().is_empty() => continue,
            Ok(text) => ndjson::read_recorded(&text, SystemClock.now()),
            Err(why) => Err(why),
        };
        if to.blocking_send(Ok(Line { upto, event })).is_err() {
            return;
        }
    }
}

/// One line, or why it cannot be taken, and its length in bytes; `None` at the end.
fn read_line(reader: &mut impl BufRead) -> io::Result<Option<(Result<String, String>, u64)>> {
    let mut bytes = Vec::new();
    let limit = LINE_BYTES_MAX as u64 + 1;
    if reader.by_ref().take(limit).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    if bytes.last() != Some(&b'\n') && bytes.len() > LINE_BYTES_MAX {
        let length = limit + skip_line(reader)?;
        return Ok(Some((Err(format!("it has more than {LINE_BYTES_MAX} bytes")), length)));
    }
    let length = bytes.len() as u64;
    let end = [b"\r\n".as_slice(), b"\n"].into_iter().find(|end| bytes.ends_with(end));
    bytes.truncate(bytes.len() - end.map_or(0, <[u8]>::len));
    let text = String::from_utf8(bytes).map_err(|error| error.utf8_error().to_string());
    Ok(Some((text, length)))
}

/// Passes over the rest of a line without keeping it; how many bytes that is.
fn skip_line(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let (length, found) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        reader.consume(length);
        skipped += length as u64;
        if found {
            return Ok(skipped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: Vec<u8>) -> Batch {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("events");
        std::fs::write(&path, text).expect("a file");
        let mut lines = lines(&Input::File(path)).expect("opens");
        let mut all = Batch::default();
        while let Some(batch) = lines.next(3).await.expect("reads") {
            assert!(batch.envelopes.len() + batch.bad.len() <= 3);
            all.envelopes.extend(batch.envelopes);
            all.bad.extend(batch.bad);
            all.upto = batch.upto;
        }
        all
    }

    #[tokio::test]
    async fn bad_lines_have_their_numbers_and_the_rest_comes_in_order() {
        let mut text = b"{\"type\":\"a.b\",\"data\":1}\n\n{\r\n".to_vec();
        text.extend(b"\"".repeat(LINE_BYTES_MAX + 7));
        text.extend(b"\n\xff\n{\"type\":\"a.b\",\"data\":2}\r\n{\"type\":\"a.b\",\"data\":3}");
        let bytes = text.len() as u64;
        let batch = read(text).await;
        assert_eq!(batch.upto, Upto { line: 7, byte: bytes });
        let payloads: Vec<_> = batch.envelopes.iter().map(|event| event.payload()[0]).collect();
        assert_eq!(payloads, *b"123");
        let numbers: Vec<u64> = batch.bad.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [3, 4, 5], "{:?}", batch.bad);
        assert!(batch.bad[1].1.contains("bytes"), "{:?}", batch.bad[1]);
    }

    #[tokio::test]
    async fn nothing_is_no_event() {
        let batch = read(Vec::new()).await;
        assert!(batch.envelopes.is_empty() && batch.bad.is_empty());
    }

    #[test]
    fn a_payload_is_json_without_the_blanks_around_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("data.json");
        std::fs::write(&path, "\n{ \"a\" : 1 }\n").expect("a file");
        let data = Data::Input(Input::File(path.clone()));
        assert_eq!(payload(&data).expect("reads"), b"{ \"a\" : 1 }");
        std::fs::write(&path, "{").expect("a file");
        assert!(payload(&data).is_err());
        std::fs::remove_file(&path).expect("it was there");
        assert!(payload(&data).is_err());
    }
}
