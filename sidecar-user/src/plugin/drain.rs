//! `drain`: asks a proxy to end, as a preStop hook does, and waits until it has ended if it is told to. Ends nothing
//! itself.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::client::{self, ANSWER_TIMEOUT, Target};
use super::error::{Error, unwritten};

/// Of `listen.adminSocket`, unless it is configured.
const DEFAULT_SOCKET: &str = "/run/outrigger/admin.sock";
/// How often a proxy that drains is asked how far it is. Its end is the end of its socket, which nothing tells.
const LOOK: Duration = Duration::from_millis(100);
/// What a proxy says that has not been asked to end: the successor of ours, at the same socket.
const SERVING: &str = "serving";

#[derive(Debug, Args)]
pub struct Drain {
    /// Return when the proxy has ended, and not as soon as it has begun to
    #[arg(long)]
    wait: bool,
    /// Only have it not be ready any more: it serves on until SIGTERM comes, when the application has ended
    #[arg(long, conflicts_with = "wait")]
    lame_duck: bool,
    /// The longest wait, e.g. 30s; an error after it [default: as long as it takes]
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Admin socket of the proxy
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    unix: PathBuf,
}

impl Drain {
    pub fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        let start = Instant::now();
        let target = Target::Unix(self.unix.clone());
        if self.lame_duck {
            client::post(&target, "/lame-duck", Some(ANSWER_TIMEOUT)).map_err(explain)?;
            return writeln!(out, "not ready any more, and serving on").map_err(unwritten);
        }
        client::post(&target, "/drain", Some(ANSWER_TIMEOUT)).map_err(explain)?;
        writeln!(out, "draining").map_err(unwritten)?;
        if !self.wait {
            return Ok(());
        }
        loop {
            let phase =
                match client::get(&target, "/drain", Some(ANSWER_TIMEOUT)).and_then(client::Answer::whole) {
                    Ok(phase) => phase.trim_end().to_owned(),
                    // A second signal, or the last flow, may end it in the middle of an answer.
                    Err(Error::Unreachable { source, .. }) if !is_late(source.kind()) => SERVING.to_owned(),
                    Err(error) => return Err(error),
                };
            if phase == SERVING {
                return writeln!(out, "drained").map_err(unwritten);
            }
            if let Some(limit) = self.timeout
                && start.elapsed() >= limit
            {
                return Err(Error::NotDrained { limit, phase });
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "nothing tells when a proxy has ended, so it is asked again"
            )]
            thread::sleep(LOOK);
        }
    }
}

/// It has not said anything, which is not the same as being gone.
fn is_late(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn explain(error: Error) -> Error {
    match error {
        Error::Unreachable { target, source } => Error::NoSocket {
            target,
            cause: source,
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        drain: Drain,
    }

    fn drain(args: &[&str]) -> Result<Drain, clap::Error> {
        Line::try_parse_from(std::iter::once(&"drain").chain(args)).map(|line| line.drain)
    }

    /// Runs it against a proxy that gives these answers, one a connection, and then is gone. What it was asked, too.
    fn against(name: &str, answers: &[&str], args: &[&str]) -> (Result<String, String>, Vec<String>) {
        let path = std::env::temp_dir().join(format!("outrigger-drain-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let gone = path.clone();
        let proxy = thread::spawn(move || {
            let mut asked = Vec::new();
            for body in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut first = String::new();
                BufReader::new(&stream).read_line(&mut first).unwrap();
                asked.push(first.trim_end().to_owned());
                let answer = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                // In one piece: whoever does not want the body is gone once it has the head.
                stream.write_all(answer.as_bytes()).unwrap();
            }
            std::fs::remove_file(gone).unwrap();
            asked
        });
        let path = path.to_str().unwrap().to_owned();
        let args: Vec<&str> = args.iter().copied().chain(["--unix", &path]).collect();
        let mut out = Vec::new();
        let done = drain(&args).unwrap().run(&mut out);
        let said = done.map(|()| String::from_utf8(out).unwrap());
        (said.map_err(|error| error.to_string()), proxy.join().unwrap())
    }

    #[test]
    fn it_returns_at_once_or_waits_for_the_end() {
        let (said, asked) = against("once", &["draining\n"], &[]);
        assert_eq!(said.unwrap(), "draining\n");
        assert_eq!(asked, ["POST /drain HTTP/1.0"]);

        let (said, asked) = against("wait", &["draining\n", "lame-duck\n", "draining\n"], &["--wait"]);
        assert_eq!(said.unwrap(), "draining\ndrained\n");
        assert_eq!(asked.len(), 3, "until nobody answers: {asked:?}");
    }

    #[test]
    fn a_lame_duck_is_asked_for_without_a_drain() {
        let (said, asked) = against("duck", &["lame-duck\n"], &["--lame-duck"]);
        assert_eq!(said.unwrap(), "not ready any more, and serving on\n");
        assert_eq!(asked, ["POST /lame-duck HTTP/1.0"]);
        assert_eq!(drain(&["--lame-duck", "--wait"]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_successor_at_the_same_socket_is_not_waited_for() {
        let (said, _) = against("next", &["draining\n", "serving\n"], &["--wait"]);
        assert_eq!(said.unwrap(), "draining\ndrained\n");
    }

    #[test]
    fn a_wait_that_is_too_long_is_an_error_that_says_what_is_open() {
        let (said, _) = against(
            "late",
            &["draining\n", "draining\n"],
            &["--wait", "--timeout", "0s"],
        );
        let error = said.unwrap_err();
        assert!(error.contains("not ended within 0s: it is draining"), "{error}");
    }

    #[test]
    fn without_a_proxy_the_socket_and_the_flag_are_named() {
        let error = drain(&["--unix", "/nowhere/admin.sock"])
            .unwrap()
            .run(&mut Vec::new());
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("/nowhere/admin.sock") && error.contains("--unix PATH"),
            "{error}"
        );
    }

    #[test]
    fn a_limit_without_a_wait_is_a_usage_error() {
        assert_eq!(drain(&["--timeout", "1s"]).unwrap_err().exit_code(), 2);
    }
}
