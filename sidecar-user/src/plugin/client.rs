//! One request over TCP, a unix socket or a stream to an agent. HTTP/1.0, so that the body is what follows until the end; no pool, no
//! redirects: the other side is an admin endpoint of ours.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::access::AgentPod;
use super::columns::printable;
use super::error::Error;

#[derive(Clone, Debug)]
pub(super) enum Target {
    Tcp(String),
    Unix(PathBuf),
    /// Over the API server.
    Agent(AgentPod),
}

pub(super) struct Answer {
    target: String,
    length: Option<u64>,
    body: BufReader<Box<dyn Read + Send>>,
}

/// An answer takes milliseconds; a watch is silent as long as nothing happens.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The head of our own answers is some 200 bytes.
const MAX_HEAD: u64 = 16 * 1024;
/// Readiness and configuration are a few kilobytes.
const MAX_ANSWER: u64 = 1024 * 1024;
/// Of a refusal, what is worth a line.
const MAX_REFUSAL: u64 = 1024;

/// Asks for `path`. Without a patience the body may be silent for ever, as a watch may.
pub(super) fn get(target: &Target, path: &str, patience: Option<Duration>) -> Result<Answer, Error> {
    call(target, "GET", path, patience)
}

/// Asks for a change. There is no body.
pub(super) fn post(target: &Target, path: &str, patience: Option<Duration>) -> Result<Answer, Error> {
    call(target, "POST", path, patience)
}

fn call(target: &Target, method: &str, path: &str, patience: Option<Duration>) -> Result<Answer, Error> {
    let unreachable = |source| Error::Unreachable {
        target: target.to_string(),
        source,
    };
    let (stream, token): (Box<dyn Stream>, _) = match target {
        Target::Tcp(address) => (tcp(address, patience).map_err(unreachable)?, None),
        Target::Unix(path) => (unix(path, patience).map_err(unreachable)?, None),
        Target::Agent(agent) => (Box::new(agent.connect(patience)?), Some(agent.token()?)),
    };
    let (status, length, body) = exchange(stream, method, path, token).map_err(unreachable)?;
    if !(200..300).contains(&status) {
        let mut words = String::new();
        // What could be read of the reason is better than none.
        let _ = body.take(MAX_REFUSAL).read_to_string(&mut words);
        let body = printable(words.lines().next().unwrap_or_default());
        return Err(match (target, status) {
            (Target::Agent(_), 403) => Error::Rights { body },
            _ => Error::Refused {
                target: target.to_string(),
                status,
                body,
            },
        });
    }
    Ok(Answer {
        target: target.to_string(),
        length,
        body,
    })
}

/// A value of a query: what is neither a letter, a digit nor of a few marks is written by its bytes.
pub(super) fn escaped(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b':' | b'.' | b'-' | b'_' | b'[' | b']' => {
                text.push(char::from(byte));
            }
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// Status and body of an admin socket's answer, whatever the status.
pub fn ask(socket: &Path, path: &str) -> io::Result<(u16, String)> {
    let stream = unix(socket, Some(ANSWER_TIMEOUT))?;
    let (status, _, body) = exchange(stream, "GET", path, None)?;
    let mut text = String::new();
    body.take(MAX_ANSWER).read_to_string(&mut text)?;
    Ok((status, text))
}

type Body = BufReader<Box<dyn Read + Send>>;

fn exchange(
    mut stream: Box<dyn Stream>,
    method: &str,
    path: &str,
    token: Option<&str>,
) -> io::Result<(u16, Option<u64>, Body)> {
    let token = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    let request = Zeroizing::new(format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n{token}\r\n"
    ));
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut body = BufReader::new(stream.into_read());
    let (status, length) = head(&mut body)?;
    Ok((status, length, body))
}

impl Answer {
    pub(super) fn whole(mut self) -> Result<String, Error> {
        let mut text = String::new();
        let read = self
            .body
            .read_to_string(&mut text)
            .and_then(|n| match self.length {
                Some(length) if length != n as u64 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(()),
            });
        match read {
            Ok(()) => Ok(text),
            Err(source) => Err(Error::Unreachable {
                target: self.target,
                source,
            }),
        }
    }

    pub(super) fn into_body(self) -> impl BufRead + Send {
        self.body
    }
}

trait Stream: Read + Write + Send {
    fn into_read(self: Box<Self>) -> Box<dyn Read + Send>;
}

impl<S: Read + Write + Send + 'static> Stream for S {
    fn into_read(self: Box<Self>) -> Box<dyn Read + Send> {
        self
    }
}

fn unix(path: &Path, patience: Option<Duration>) -> io::Result<Box<dyn Stream>> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(patience)?;
    Ok(Box::new(stream))
}

fn tcp(address: &str, patience: Option<Duration>) -> io::Result<Box<dyn Stream>> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_read_timeout(patience)?;
                return Ok(Box::new(stream));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Status and length of the body.
fn head(stream: &mut impl BufRead) -> io::Result<(u16, Option<u64>)> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "it does not speak HTTP");
    let mut lines = stream.take(MAX_HEAD).lines();
    let first = lines.next().ok_or_else(invalid)??;
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1));
    let status = status.and_then(|code| code.parse().ok()).ok_or_else(invalid)?;
    let mut length = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            return Ok((status, length));
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
    }
    Err(invalid())
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => path.display().fmt(f),
            Self::Agent(agent) => agent.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_and_the_body_left() {
        let mut stream = &b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}"[..];
        assert_eq!(head(&mut stream).unwrap(), (200, Some(2)));
        assert_eq!(stream, b"{}");
        assert!(head(&mut &b"SSH-2.0-x\r\n"[..]).is_err());
        assert!(head(&mut &b"HTTP/1.1 200 OK\r\nA: b\r\n"[..]).is_err());
    }
}
