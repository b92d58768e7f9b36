//! Signs of life from work that is silent for minutes: one line that is written over again and again on a terminal, a line every few
//! seconds elsewhere. Decides nothing about the work.

use std::io::{self, BufRead, BufReader, IsTerminal, Read, Stderr, Write};
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// So that nobody takes a build that goes on for one that hangs: ten seconds without a line are the most, and a machine at work is late.
const ON_LINES: Duration = Duration::from_secs(8);
const ON_A_TERMINAL: Duration = Duration::from_secs(1);

/// How often is looked whether a line is due.
const LOOK: Duration = Duration::from_millis(250);

/// How long after its end a program's children may keep its output open.
const STRAGGLERS: Duration = Duration::from_secs(3);

/// The narrowest terminal that the line has to fit.
const WIDTH: usize = 79;

/// How much of what a program has said stands in the error when it fails.
const LAST_WORDS: usize = 20;

/// Runs a program to its end and counts its lines: `each` makes of their number what is said every few seconds.
pub(crate) fn run(what: &str, command: Command, each: impl Fn(usize) -> String) -> Result<()> {
    let begun = Instant::now();
    let mut lines = Vec::new();
    let mut signs = Signs::on_stderr();
    let status = follow(command, |heard| {
        match heard {
            Heard::Out(line) | Heard::Err(line) => lines.push(line),
            Heard::Nothing => {}
        }
        let at = begun.elapsed();
        signs.sign(at, || format!("{what}: {}, {}", spent(at), each(lines.len())));
    })?;
    signs.clear();
    if !status.success() {
        let last = lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n");
        bail!("{what}: {status}\n{last}");
    }
    Ok(())
}

/// Does work of this process, and says every few seconds that it goes on.
pub(crate) fn during<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let (ends, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut signs = Signs::on_stderr();
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                let at = begun.elapsed();
                signs.sign(at, || format!("{what}: {}", spent(at)));
            }
            signs.clear();
        });
        // Dropped when the work is done, however it ends.
        let _ends = ends;
        work()
    })
}

pub(crate) enum Heard {
    Out(String),
    Err(String),
    /// Neither stream has said anything for a moment.
    Nothing,
}

/// Runs a program and hands over what it says, a line at a time. A line ends with a carriage return, too, by which programs write over
/// their own.
pub(crate) fn follow(mut command: Command, mut each: impl FnMut(Heard)) -> Result<ExitStatus> {
    let program = command.get_program().to_string_lossy().into_owned();
    let (out, its_out) = io::pipe().context("make a pipe")?;
    let (err, its_err) = io::pipe().context("make a pipe")?;
    command.stdout(its_out).stderr(its_err);
    let mut child = command.spawn().with_context(|| format!("start {program}"))?;
    // Holds the writing ends: without this the output would never end.
    drop(command);
    let (sender, receiver) = mpsc::channel();
    read(out, sender.clone(), Heard::Out);
    read(err, sender, Heard::Err);
    let mut ended: Option<Instant> = None;
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(heard) => each(heard),
            Err(RecvTimeoutError::Timeout) => {
                each(Heard::Nothing);
                if ended.is_some_and(|at| at.elapsed() > STRAGGLERS) {
                    break;
                }
                if ended.is_none() && child.try_wait()?.is_some() {
                    ended = Some(Instant::now());
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    child.wait().with_context(|| format!("wait for {program}"))
}

fn read(stream: impl Read + Send + 'static, sender: Sender<Heard>, heard: fn(String) -> Heard) {
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        while let Some(line) = line_of(&mut stream) {
            if !line.is_empty() && sender.send(heard(line)).is_err() {
                return;
            }
        }
    });
}

/// Without its end. Nothing at the end of the stream.
fn line_of(stream: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    loop {
        let read = stream.fill_buf().ok()?;
        if read.is_empty() {
            return (!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned());
        }
        let end = read.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        line.extend_from_slice(&read[..end.unwrap_or(read.len())]);
        let used = end.map_or(read.len(), |end| end + 1);
        stream.consume(used);
        if end.is_some() {
            return Some(String::from_utf8_lossy(&line).into_owned());
        }
    }
}

/// The line that says how far the work is. Times are those since its beginning.
pub(crate) struct Signs<W: Write> {
    out: W,
    terminal: bool,
    due: Duration,
    /// A line stands on the terminal that is to be written over.
    stands: bool,
}

impl Signs<Stderr> {
    pub(crate) fn on_stderr() -> Self {
        let out = io::stderr();
        let terminal = out.is_terminal();
        Self::new(out, terminal)
    }
}

impl<W: Write> Signs<W> {
    fn new(out: W, terminal: bool) -> Self {
        Self {
            out,
            terminal,
            due: interval(terminal),
            stands: false,
        }
    }

    /// Writes the line if it is time for one. What cannot be written is no reason to stop the work.
    pub(crate) fn sign(&mut self, at: Duration, line: impl FnOnce() -> String) {
        if at < self.due {
            return;
        }
        self.due = at + interval(self.terminal);
        let line = format!("    {}", line());
        if self.terminal {
            let fits: String = line.chars().take(WIDTH).collect();
            let _ = write!(self.out, "\r\x1b[K{fits}");
            let _ = self.out.flush();
            self.stands = true;
        } else {
            let _ = writeln!(self.out, "{line}");
        }
    }

    /// Writes a line that is not to be written over.
    pub(crate) fn say(&mut self, line: &str) {
        self.clear();
        let _ = writeln!(self.out, "{line}");
    }

    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.stands) {
            let _ = write!(self.out, "\r\x1b[K");
            let _ = self.out.flush();
        }
    }
}

fn interval(terminal: bool) -> Duration {
    if terminal { ON_A_TERMINAL } else { ON_LINES }
}

/// As people say it.
pub(crate) fn spent(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds / 60 {
        0 => format!("{seconds} s"),
        minutes => format!("{minutes} min {} s", seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn work_that_fails_says_its_last_words() {
        let lines = |lines| format!("{lines} lines");
        assert!(run("work", shell("echo done"), lines).is_ok());
        let failed = run("work", shell("echo one; echo two; exit 3"), lines);
        let error = failed.unwrap_err().to_string();
        assert!(error.contains("one\ntwo") && error.contains('3'), "{error}");
    }

    #[test]
    fn both_streams_are_told_apart_and_a_line_may_be_written_over() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let script = "printf 'one\\ntwo'; printf '1/3\\r2/3\\r\\nlast\\n' >&2";
        let status = follow(shell(script), |heard| match heard {
            Heard::Out(line) => out.push(line),
            Heard::Err(line) => err.push(line),
            Heard::Nothing => {}
        });
        assert!(status.unwrap().success());
        assert_eq!(out, ["one", "two"]);
        assert_eq!(err, ["1/3", "2/3", "last"]);
    }

    /// A line asked for every quarter of a second for a minute, and when it was written.
    fn minute(terminal: bool) -> (String, Vec<u64>) {
        let mut signs = Signs::new(Vec::new(), terminal);
        let mut written = Vec::new();
        for quarter in 0..240 {
            let at = Duration::from_millis(quarter * 250);
            signs.sign(at, || {
                written.push(at.as_secs());
                "x".repeat(200)
            });
        }
        (String::from_utf8(signs.out).unwrap(), written)
    }

    #[test]
    fn in_a_pipe_there_is_a_whole_line_at_least_every_ten_seconds_and_not_many() {
        let (text, written) = minute(false);
        assert_eq!(text.lines().count(), written.len());
        assert!(
            text.lines()
                .all(|line| line == format!("    {}", "x".repeat(200)))
        );
        assert!(written[0] <= 10, "{written:?}");
        assert!(
            written
                .windows(2)
                .all(|two| (5..=10).contains(&(two[1] - two[0]))),
            "{written:?}"
        );
    }

    #[test]
    fn on_a_terminal_one_line_is_written_over_and_fits() {
        let (text, written) = minute(true);
        assert_eq!(written.len(), 59);
        assert!(!text.contains('\n'));
        let widest = text.split("\r\x1b[K").map(|line| line.chars().count()).max();
        assert_eq!(widest, Some(WIDTH));
    }

    #[test]
    fn what_is_said_for_good_stands_on_a_line_of_its_own() {
        let mut signs = Signs::new(Vec::new(), true);
        signs.sign(Duration::from_secs(2), || "half".into());
        signs.say("warning: unused");
        signs.clear();
        let text = String::from_utf8(signs.out).unwrap();
        assert_eq!(text, "\r\x1b[K    half\r\x1b[Kwarning: unused\n");
    }

    #[test]
    fn times_are_told_in_minutes_from_one_on() {
        let told = [0, 59, 60, 125].map(|seconds| spent(Duration::from_secs(seconds)));
        assert_eq!(told, ["0 s", "59 s", "1 min 0 s", "2 min 5 s"]);
    }
}
