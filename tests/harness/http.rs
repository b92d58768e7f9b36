//! Just enough HTTP/1.0 to ask a status page or the admin socket. No TLS, no keep-alive, no redirects.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Netns;
use crate::wait::patiently;

const LIMIT: Duration = Duration::from_secs(5);

/// GET from inside a network namespace; not intercepted.
pub fn get(from: &Netns, address: SocketAddr, path: &str) -> Result<(u16, String)> {
    from.run(|| {
        let stream = TcpStream::connect_timeout(&address, patiently(LIMIT))
            .with_context(|| format!("connect to {address}"))?;
        stream.set_read_timeout(Some(patiently(LIMIT)))?;
        ask(stream, path)
    })?
}

/// GET over a unix socket.
pub fn get_unix(socket: &Path, path: &str) -> Result<(u16, String)> {
    let stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(patiently(LIMIT)))?;
    ask(stream, path)
}

fn ask(mut stream: impl Read + Write, path: &str) -> Result<(u16, String)> {
    write!(stream, "GET {path} HTTP/1.0\r\nHost: harness\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer without a header")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .context("an answer without a status")?;
    Ok((status, body.into()))
}
