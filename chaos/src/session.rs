//! An operator's connection to a server.

use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::{Result, resp};

/// How long an answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that is kept.
pub(crate) struct Session {
    stream: UnixStream,
    read: BytesMut,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Nil,
    Int(i64),
    Text(String),
    List(Vec<Reply>),
}

impl Session {
    pub(crate) async fn open(socket: &Path) -> Result<Self> {
        let stream = timeout(PATIENCE, UnixStream::connect(socket)).await??;
        Ok(Self { stream, read: BytesMut::new() })
    }

    /// Sends a command and does not wait.
    pub(crate) async fn send(&mut self, command: &[&str]) -> Result<()> {
        let mut out = format!("*{}\r\n", command.len());
        for word in command {
            out += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.send_raw(out.as_bytes()).await
    }

    /// Sends bytes as they are.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(timeout(PATIENCE, self.stream.write_all(bytes)).await??)
    }

    /// The next answer; what the server refuses is an error.
    pub(crate) async fn answer(&mut self) -> Result<Reply> {
        loop {
            if let Some(length) = resp::length(&self.read) {
                let bytes = self.read.split_to(length);
                return parse(&mut &bytes[..]);
            }
            if timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await?? == 0 {
                return Err("the server closed the connection".into());
            }
        }
    }

    pub(crate) async fn ask(&mut self, command: &[&str]) -> Result<Reply> {
        self.send(command).await?;
        let answer = self.answer().await;
        answer.map_err(|error| format!("{}: {error}", command.join(" ")).into())
    }
}

impl Reply {
    pub(crate) fn int(&self) -> i64 {
        match self {
            Self::Int(number) => *number,
            _ => 0,
        }
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }

    pub(crate) fn list(&self) -> &[Reply] {
        match self {
            Self::List(list) => list,
            _ => &[],
        }
    }

    /// The value behind a name in a flat list of both.
    pub(crate) fn get(&self, name: &str) -> Option<&Reply> {
        self.list().chunks(2).find(|pair| pair[0].text() == name).and_then(|pair| pair.get(1))
    }
}

/// Parses a whole value. Errors within lists are texts.
fn parse(bytes: &mut &[u8]) -> Result<Reply> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or("a line ends")?;
    let (line, rest) = bytes.split_at(end + 1);
    *bytes = rest;
    let text = String::from_utf8_lossy(line.get(1..).unwrap_or_default()).trim_end().to_owned();
    let number = || text.parse::<i64>().map_err(|_| format!("{text:?} is no number"));
    Ok(match line.first() {
        Some(b'-') => return Err(text.into()),
        Some(b':') => Reply::Int(number()?),
        Some(b'$') => match usize::try_from(number()?) {
            Err(_) => Reply::Nil,
            Ok(length) => {
                let (body, rest) = bytes.split_at(length);
                *bytes = &rest[2..];
                Reply::Text(String::from_utf8_lossy(body).into_owned())
            }
        },
        Some(b'*') => match usize::try_from(number()?) {
            Err(_) => Reply::Nil,
            Ok(length) => {
                let item = |_| Ok(parse(bytes).unwrap_or_else(|error| error.to_string().into()));
                Reply::List((0..length).map(item).collect::<Result<_>>()?)
            }
        },
        _ => Reply::Text(text),
    })
}

impl From<String> for Reply {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_parsed() {
        let read = |text: &str| parse(&mut text.as_bytes());
        assert_eq!(read("+OK\r\n").expect("text").text(), "OK");
        assert_eq!(read(":-3\r\n").expect("a number").int(), -3);
        assert_eq!(read("$-1\r\n").expect("nothing"), Reply::Nil);
        assert_eq!(read("-OOM no\r\n").expect_err("refused").to_string(), "OOM no");
        let pairs = read("*4\r\n$4\r\nname\r\n$1\r\na\r\n$7\r\npending\r\n:2\r\n").expect("pairs");
        assert_eq!(pairs.get("pending").map(Reply::int), Some(2));
    }
}
