//! One question to a sidecar, or a change of it, over the socket that the agent has given it. HTTP/1.0, so that the body is what follows until
//! the end. Trusts no answer: what it takes in is bounded, and so is the time.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// The body of an answer, as it comes.
pub(super) struct Body {
    stream: UnixStream,
    /// Read, and not given out yet.
    read: BytesMut,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Nobody will ever listen there again.
    #[error("the sidecar is gone")]
    Gone,
    #[error("the sidecar answered {status}: {words}")]
    Refused { status: u16, words: String },
    #[error("the sidecar does not answer: {0}")]
    Silent(#[from] io::Error),
}

/// The head of our own answers is some 200 bytes.
const MAX_HEAD: usize = 16 * 1024;
/// A flow with 16 decisions, each in its longest words, is some 10 KiB.
const MAX_LINE: usize = 64 * 1024;
/// 10,000 open flows are some 10 MB.
const MAX_ANSWER: usize = 32 << 20;
/// Of a refusal, what is worth a line.
const MAX_REFUSAL: usize = 1024;

/// At once.
const READ: usize = 16 * 1024;

/// Waits for the head of the answer as long as it takes.
pub(super) async fn get(socket: &Path, path: &str) -> Result<Body, Error> {
    call(socket, "GET", path).await
}

async fn call(socket: &Path, method: &str, path: &str) -> Result<Body, Error> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Error::Gone,
            _ => Error::Silent(error),
        })?;
    let mut body = Body {
        stream,
        read: BytesMut::new(),
    };
    let request = format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n");
    body.stream.write_all(request.as_bytes()).await?;
    let status = body.head().await?;
    if (200..300).contains(&status) {
        return Ok(body);
    }
    let words = body.whole(MAX_REFUSAL).await.unwrap_or_default();
    let words = String::from_utf8_lossy(&words);
    let words = words.lines().next().unwrap_or_default().to_owned();
    Err(Error::Refused { status, words })
}

/// The whole answer, where it comes in time.
pub(super) async fn ask(socket: &Path, path: &str, patience: Duration) -> Result<Bytes, Error> {
    whole(call(socket, "GET", path), patience).await
}

/// Asks for a change. There is no body.
pub(super) async fn post(socket: &Path, path: &str, patience: Duration) -> Result<Bytes, Error> {
    whole(call(socket, "POST", path), patience).await
}

async fn whole(asked: impl Future<Output = Result<Body, Error>>, patience: Duration) -> Result<Bytes, Error> {
    let whole = async { Ok(asked.await?.whole(MAX_ANSWER).await?) };
    match tokio::time::timeout(patience, whole).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Silent(io::ErrorKind::TimedOut.into())),
    }
}

impl Body {
    /// The next line, without its end; `None` where the other side is gone, also in the middle of a line. May be given up
    /// and called again.
    pub(super) async fn line(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end).freeze();
                self.read.advance(1);
                return Ok(Some(line));
            }
            if !self.more(MAX_LINE).await? {
                return Ok(None);
            }
        }
    }

    async fn whole(mut self, most: usize) -> io::Result<Bytes> {
        while self.more(most).await? {}
        Ok(self.read.freeze())
    }

    /// The status.
    async fn head(&mut self) -> io::Result<u16> {
        let first = self.header().await?;
        let status = first
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| invalid("it does not speak HTTP"))?;
        let mut length = first.len();
        loop {
            let header = self.header().await?;
            length += header.len();
            if header.is_empty() {
                return Ok(status);
            }
            if length > MAX_HEAD {
                return Err(invalid("its head is too long"));
            }
        }
    }

    async fn header(&mut self) -> io::Result<String> {
        let line = self.line().await?;
        let line = line.ok_or_else(|| invalid("its head has no end"))?;
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Whether there was more.
    async fn more(&mut self, most: usize) -> io::Result<bool> {
        if self.read.len() > most {
            return Err(invalid("it is longer than any that makes sense"));
        }
        self.read.reserve(READ);
        match self.stream.read_buf(&mut self.read).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(false),
            read => Ok(read? > 0),
        }
    }
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio::net::UnixListener;

    use super::*;

    /// Answers each question with these bytes, and then says nothing.
    struct Server(PathBuf);

    impl Server {
        fn new(name: &str, answer: Vec<u8>, ends: bool) -> Self {
            let path = std::env::temp_dir().join(format!("outrigger-{}-client-{name}", std::process::id()));
            let listener = UnixListener::bind(&path).unwrap();
            tokio::spawn(async move {
                let mut kept = Vec::new();
                while let Ok((mut stream, _)) = listener.accept().await {
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = stream.write_all(&answer).await;
                    if !ends {
                        kept.push(stream);
                    }
                }
            });
            Self(path)
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    const HEAD: &str = "HTTP/1.0 200 OK\r\na: b\r\n\r\n";

    #[tokio::test]
    async fn an_answer_is_read_whole_or_line_by_line() {
        let server = Server::new("lines", format!("{HEAD}one\ntwo\nthr").into_bytes(), true);
        let patience = Duration::from_secs(20);
        assert_eq!(ask(&server.0, "/", patience).await.unwrap(), "one\ntwo\nthr");
        let mut body = get(&server.0, "/").await.unwrap();
        assert_eq!(body.line().await.unwrap().unwrap(), "one");
        assert_eq!(body.line().await.unwrap().unwrap(), "two");
        assert_eq!(body.line().await.unwrap(), None, "half a line is none");
    }

    #[tokio::test]
    async fn a_refusal_has_its_words_and_where_nobody_listens_the_sidecar_is_gone() {
        let refusal = "HTTP/1.1 503 Service Unavailable\r\n\r\ntoo many watchers\nmore";
        let server = Server::new("refuses", refusal.into(), true);
        let error = get(&server.0, "/").await.err().unwrap().to_string();
        assert_eq!(error, "the sidecar answered 503: too many watchers");
        let gone = ask(&server.0.with_file_name("outrigger-nobody"), "/", AN_HOUR).await;
        assert!(matches!(gone, Err(Error::Gone)));
    }

    const AN_HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn what_a_sidecar_says_without_end_is_given_up() {
        let endless = [HEAD.as_bytes(), &vec![b'x'; 2 * MAX_LINE]].concat();
        let server = Server::new("endless", endless, false);
        let mut body = get(&server.0, "/").await.unwrap();
        let error = body.line().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);

        let head = format!("HTTP/1.0 200 OK\r\n{}", "a: b\r\n".repeat(MAX_HEAD / 2));
        let server = Server::new("head", head.into(), false);
        assert!(get(&server.0, "/").await.is_err());

        let silent = Server::new("silent", HEAD.into(), false);
        let error = ask(&silent.0, "/", Duration::from_millis(10)).await;
        assert!(matches!(error, Err(Error::Silent(_))), "{error:?}");
    }
}
