//! A load generator in a pod, driven slice by slice. What it does is `outrigger-load`'s; see `tests/bench`.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use harness::Pod;
use harness::mesh::binaries;
use serde::Deserialize;

/// How long a generator may be late before it is taken for stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// Killed on drop.
#[derive(Debug)]
pub(super) struct Generator {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
}

/// What a slice did, as `outrigger-load` prints it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Facts {
    pub(super) seconds: f64,
    pub(super) operations: f64,
    /// Those that did not count too.
    pub(super) all_operations: f64,
    pub(super) bytes: f64,
    pub(super) latency_ns: Option<Latency>,
    /// Of connect() alone.
    pub(super) connect_ns: Option<Latency>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

impl Generator {
    pub(super) fn start(pod: &Pod, args: &[String]) -> Result<Self> {
        let mut child = pod
            .command(binaries::path("outrigger-load")?)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start outrigger-load")?;
        let orders = child.stdin.take().context("its standard input")?;
        let stdout = child.stdout.take().context("its standard output")?;
        let (sender, answers) = channel();
        thread::spawn(move || {
            // It ends with the generator, or with whoever would have listened.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            orders,
            answers,
        })
    }

    pub(super) fn slice(&mut self, warm_up: Duration, counted: Duration) -> Result<Facts> {
        // That it has ended is better told by its last words than by a broken pipe.
        let _ = writeln!(self.orders, "{} {}", warm_up.as_millis(), counted.as_millis());
        let line = self.answer()?;
        serde_json::from_str(&line).with_context(|| format!("outrigger-load printed {line:?}"))
    }

    /// The next line it prints.
    pub(super) fn answer(&mut self) -> Result<String> {
        self.answers.recv_timeout(PATIENCE).map_err(|error| {
            let _ = self.child.kill();
            let mut last_words = String::new();
            if let Some(stderr) = &mut self.child.stderr {
                let _ = stderr.read_to_string(&mut last_words);
            }
            anyhow!("outrigger-load gave no answer ({error}): {}", last_words.trim())
        })
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
