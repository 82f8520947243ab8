//! What goes to stdout: events for people, for programs, or their payloads alone; and receipts.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use anstyle::{AnsiColor, Style};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rumormill::{Envelope, Position, Receipt};

use crate::args::Format;
use crate::escape::{escape, escape_all_but, escape_bytes};
use crate::ndjson;

/// What a terminal may have unescaped in a payload.
const LAYOUT: &[char] = &['\n', '\t'];

/// A place to write to, with the ways of writing.
pub(crate) struct Output<W> {
    to: W,
    format: Format,
    /// Somebody looks at it: what could harm a terminal is escaped.
    terminal: bool,
    style: Styles,
}

/// All plain where colours would be noise.
#[derive(Clone, Copy, Default)]
struct Styles {
    name: Style,
    faint: Style,
}

impl Output<BufWriter<Stdout>> {
    /// Stdout; without a format, pretty on a terminal and JSON elsewhere.
    pub(crate) fn stdout(format: Option<Format>) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        // `NO_COLOR` and its like.
        let never = anstream::AutoStream::choice(&stdout) == anstream::ColorChoice::Never;
        let default = if terminal { Format::Pretty } else { Format::Json };
        Self {
            to: BufWriter::new(stdout),
            format: format.unwrap_or(default),
            terminal,
            style: if terminal && !never { Styles::coloured() } else { Styles::default() },
        }
    }
}

impl Styles {
    fn coloured() -> Self {
        let name = AnsiColor::Cyan.on_default().bold();
        Self { name, faint: Style::new().dimmed() }
    }
}

impl<W: Write> Output<W> {
    pub(crate) fn event(&mut self, position: &Position, envelope: &Envelope) -> io::Result<()> {
        match self.format {
            Format::Pretty => self.pretty(position, envelope),
            Format::Json => self.json(&ndjson::write(position, envelope)),
            Format::Raw if self.terminal => {
                writeln!(self.to, "{}", escape_bytes(envelope.payload(), LAYOUT))
            }
            Format::Raw => {
                self.to.write_all(envelope.payload())?;
                self.to.write_all(b"\n")
            }
        }
    }

    /// A line of JSON.
    pub(crate) fn json(&mut self, line: &str) -> io::Result<()> {
        // Within JSON strings an escape means the same; a tab stands between them.
        let shown = if self.terminal { escape_all_but(line, LAYOUT) } else { line.into() };
        writeln!(self.to, "{shown}")
    }

    /// Text that can harm no terminal.
    pub(crate) fn text_as_is(&mut self, text: &str) -> io::Result<()> {
        self.to.write_all(text.as_bytes())
    }

    pub(crate) fn receipt(&mut self, receipt: &Receipt) -> io::Result<()> {
        match self.format {
            Format::Json => {
                let line = serde_json::to_string(receipt).map_err(io::Error::from)?;
                writeln!(self.to, "{line}")
            }
            Format::Pretty => {
                let (id, durability) = (receipt.id, receipt.durability);
                let known = if receipt.deduplicated { " deduplicated" } else { "" };
                match &receipt.position {
                    Some(position) => writeln!(self.to, "{id} {position} {durability}{known}"),
                    None => writeln!(self.to, "{id} delayed {durability}"),
                }
            }
            Format::Raw => writeln!(self.to, "{}", receipt.id),
        }
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// A line of what it is and where it lies, the headers, the payload.
    fn pretty(&mut self, position: &Position, envelope: &Envelope) -> io::Result<()> {
        let Styles { name, faint } = self.style;
        let (time, event_type) = (envelope.time(), envelope.event_type());
        write!(self.to, "{faint}{time}{faint:#} {name}{event_type}{name:#}")?;
        if envelope.version() != 1 {
            write!(self.to, " v{}", envelope.version())?;
        }
        let fields = [
            ("key", envelope.key()),
            ("source", Some(envelope.source()).filter(|source| !source.is_empty())),
            ("correlation", envelope.correlation_id()),
            ("causation", envelope.causation_id()),
        ];
        for (field, value) in fields {
            if let Some(value) = value {
                write!(self.to, " {field}={}", escape(value))?;
            }
        }
        if let Some(expires) = envelope.expires() {
            write!(self.to, " expires={expires}")?;
        }
        writeln!(self.to, " {faint}{} {position}{faint:#}", envelope.id())?;
        for (name, value) in envelope.headers() {
            writeln!(self.to, "  {}: {}", escape(name), escape(value))?;
        }
        writeln!(self.to, "  {}", payload(envelope).replace('\n', "\n  "))
    }
}

/// A payload as text; what is no text as base64 with its content type.
fn payload(envelope: &Envelope) -> String {
    if let Some(json) = ndjson::payload_json(envelope) {
        return escape_all_but(&json, LAYOUT).into_owned();
    }
    let (bytes, content_type) = (envelope.payload(), envelope.content_type());
    match std::str::from_utf8(bytes) {
        Ok(text) => escape_all_but(text, LAYOUT).into_owned(),
        Err(_) => format!("{content_type}, {} bytes: {}", bytes.len(), BASE64.encode(bytes)),
    }
}

/// A reader that went away has what it wanted.
pub(crate) fn is_closed_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

#[cfg(test)]
impl<W> Output<W> {
    pub(crate) fn to(to: W, format: Format, terminal: bool) -> Self {
        Self { to, format, terminal, style: Styles::default() }
    }
}

#[cfg(test)]
impl Output<Vec<u8>> {
    pub(crate) fn buffer(format: Format, terminal: bool) -> Self {
        Self::to(Vec::new(), format, terminal)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.to).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumormill::{ContentType, EventType, Timestamp};

    fn shown(format: Format, terminal: bool, content_type: &'static str, payload: &[u8]) -> String {
        let now = Timestamp::from_millis(1_767_323_045_006);
        let content_type = ContentType::new(content_type).expect("valid");
        let event_type = EventType::from_static("a.b");
        let envelope = Envelope::builder(event_type, content_type, payload.to_vec(), now)
            .id([7; 16].into())
            .key(Some("k\x1b"))
            .header("h", "v\u{202e}\n")
            .build()
            .expect("valid");
        let mut output = Output::buffer(format, terminal);
        output.event(&"a:0/7-0/0".parse().expect("valid"), &envelope).expect("a buffer");
        output.text()
    }

    #[test]
    fn pretty_is_lines_without_harm() {
        let expected = "2026-01-02T03:04:05.006Z a.b key=k\\u001b \
            07070707-0707-0707-0707-070707070707 a:0/7-0/0\n  h: v\\u202e\\u000a\n  ";
        let json = b"{\n\"t\": \"\xc2\x9b\"}";
        let text = shown(Format::Pretty, false, "application/json", json);
        assert_eq!(text, format!("{expected}{{\n  \"t\": \"\\u009b\"}}\n"));
        let text = shown(Format::Pretty, true, "text/plain", b"a\x1b[2J");
        assert_eq!(text, format!("{expected}a\\u001b[2J\n"));
        let text = shown(Format::Pretty, true, "application/msgpack", &[0xc4, 1, 0xff]);
        assert_eq!(text, format!("{expected}application/msgpack, 3 bytes: xAH/\n"));
    }

    #[test]
    fn only_a_terminal_needs_escapes() {
        let json = "{\t\"t\":\"\u{9b}\u{202e}\"}".as_bytes();
        let plain = shown(Format::Json, false, "application/json", json);
        assert!(plain.contains("\"data\":{\t\"t\":\"\u{9b}\u{202e}\"}"), "{plain}");
        let terminal = shown(Format::Json, true, "application/json", json);
        assert!(terminal.contains("\"data\":{\t\"t\":\"\\u009b\\u202e\"}"), "{terminal}");
        assert_eq!(shown(Format::Raw, false, "text/plain", b"\x1b\x00"), "\x1b\x00\n");
        assert_eq!(shown(Format::Raw, true, "text/plain", b"\x1b\xff"), "\\u001b\\xff\n");
    }
}
