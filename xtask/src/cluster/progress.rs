//! A line now and then from work that is silent for minutes. Decides nothing about the work.

use std::io::{self, PipeReader, PipeWriter};
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::test::lines_of;

/// So that nobody takes a build that goes on for one that hangs.
const EVERY: Duration = Duration::from_secs(10);

/// How much of what a program has said stands in the error when it fails.
const LAST_WORDS: usize = 20;

/// Runs a program to its end and counts its lines: `each` makes of their number what is said every few seconds.
pub(super) fn run(what: &str, mut command: Command, each: impl Fn(usize) -> String) -> Result<()> {
    let begun = Instant::now();
    let (reader, writer) = io::pipe().context("make a pipe")?;
    let (lines, status) = follow(&mut command, reader, writer, |count| {
        eprintln!("    {what}: {} s, {}", begun.elapsed().as_secs(), each(count));
    })?;
    if !status.success() {
        let last = lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n");
        bail!("{what}: {status}\n{last}");
    }
    Ok(())
}

/// Does work of this process, and says every few seconds that it goes on.
pub(super) fn during<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let (ends, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                eprintln!("    {what}: {} s", begun.elapsed().as_secs());
            }
        });
        // Dropped when the work is done, however it ends.
        let _ends = ends;
        work()
    })
}

fn follow(
    command: &mut Command,
    reader: PipeReader,
    writer: PipeWriter,
    say: impl Fn(usize),
) -> Result<(Vec<String>, ExitStatus)> {
    command.stdout(writer.try_clone()?).stderr(writer);
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("start {program}"))?;
    // Holds the writing ends.
    *command = Command::new(program);
    let received = lines_of(reader);
    let mut lines = Vec::new();
    let mut next = Instant::now() + EVERY;
    loop {
        match received.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(line) => lines.push(line),
            Err(RecvTimeoutError::Timeout) => {
                say(lines.len());
                next = Instant::now() + EVERY;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok((lines, child.wait()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run("work", command, |lines| format!("{lines} lines"))
    }

    #[test]
    fn work_that_fails_says_its_last_words() {
        assert!(shell("echo done").is_ok());
        let error = shell("echo one; echo two >&2; exit 3").unwrap_err().to_string();
        assert!(error.contains("one\ntwo") && error.contains('3'), "{error}");
    }
}
