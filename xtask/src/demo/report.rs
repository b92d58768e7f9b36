//! The demo's report: a line or a few for each thing proved, in a hundred columns. Proves nothing itself.

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use anyhow::Result;

use super::stage::Stage;

const TITLE_WIDTH: usize = 12;
/// Where the facts of a proof begin.
const INDENT: usize = 6 + TITLE_WIDTH;
/// What people paste has to fit where they paste it.
const WIDTH: usize = 100;
/// What is left for facts.
pub(super) const ROOM: usize = WIDTH - INDENT;

const GREEN: &str = "32";
const RED: &str = "1;31";

pub(super) struct Report {
    begun: Instant,
    failed: Vec<&'static str>,
    colours: bool,
    /// All of it, without colours.
    text: String,
}

impl Report {
    pub(super) fn begin(stage: &Stage) -> Self {
        let mesh = &stage.mesh;
        let sidecars = match stage.by_agent {
            true => "three pods in a mesh, each with a sidecar without privileges, one agent for all,",
            false => "three pods in a mesh, each with its sidecar,",
        };
        let mut report = Self {
            begun: Instant::now(),
            failed: Vec::new(),
            colours: io::stdout().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()),
            text: String::new(),
        };
        println!();
        report.line(None, &format!("Outrigger: {sidecars} and a server outside."));
        report.line(None, "");
        for (pod, programs) in [
            (&mesh.client.pod, "curl, redis-cli"),
            (&mesh.servers[0].pod, "nginx, redis-server, aiosmtpd"),
            (&mesh.servers[1].pod, "nginx, redis-server, aiosmtpd"),
            (&mesh.outside, "nginx, no sidecar"),
        ] {
            let (name, ipv4, ipv6) = (pod.name(), pod.ipv4(), pod.ipv6());
            report.line(None, &format!("  {name:<10} {ipv4:<12} {ipv6:<10} {programs}"));
        }
        let (ipv4, ipv6) = (mesh.vip4(0).ip(), mesh.vip6(0).ip());
        let what = "the service in front of both servers";
        report.line(None, &format!("  {:<10} {ipv4:<12} {ipv6:<10} {what}", "server"));
        report.line(None, "");
        report
    }

    /// One thing to prove. It gives the facts that prove it, a line each; an error is a failed proof.
    pub(super) fn prove(&mut self, title: &'static str, proof: impl FnOnce() -> Result<Vec<String>>) {
        let (mark, colour, facts) = match proof() {
            Ok(facts) => ("ok", GREEN, facts),
            Err(error) => {
                self.failed.push(title);
                (
                    "FAIL",
                    RED,
                    format!("{error:#}").lines().map(Into::into).collect(),
                )
            }
        };
        for line in laid_out(mark, title, &facts) {
            self.line(Some((mark, colour)), &line);
        }
        // Shown while the next proof is under way, also through a pipe.
        let _ = io::stdout().flush();
    }

    /// Whether all was proved.
    pub(super) fn end(&mut self) -> bool {
        let seconds = self.begun.elapsed().as_secs_f32();
        let proved = self.failed.is_empty();
        let line = match &self.failed[..] {
            [] => format!("All of it proved in {seconds:.1} s."),
            failed => format!("NOT proved: {}.", failed.join(", ")),
        };
        self.line(None, "");
        self.line(Some((&line, if proved { GREEN } else { RED })), &line);
        proved
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The words that it begins with have a colour, on a terminal.
    fn line(&mut self, coloured: Option<(&str, &str)>, line: &str) {
        match coloured {
            Some((words, colour)) if self.colours && line.starts_with(words) => {
                println!("\x1b[{colour}m{words}\x1b[0m{}", &line[words.len()..]);
            }
            _ => println!("{line}"),
        }
        self.text.push_str(line);
        self.text.push('\n');
    }
}

/// The lines of a proof: each fact on as many as it needs.
fn laid_out(mark: &str, title: &str, facts: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    for fact in facts {
        for part in broken(fact) {
            let (mark, title) = if lines.is_empty() { (mark, title) } else { ("", "") };
            let line = format!("{mark:<4} {title:<TITLE_WIDTH$} {part}");
            lines.push(line.trim_end().to_owned());
        }
    }
    lines
}

/// Between words, where it is too long. What fits is left as it is, for a table's sake.
fn broken(fact: &str) -> Vec<String> {
    if fact.chars().count() <= ROOM {
        return vec![fact.to_owned()];
    }
    let mut parts = vec![String::new()];
    for word in fact.split_whitespace() {
        let last = parts.last_mut().expect("there is always one");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > ROOM {
            // Further in, so that it is not taken for a fact of its own.
            parts.push(format!("  {word}"));
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_stand_under_each_other_in_a_hundred_columns_and_lose_no_word() {
        let long = "nginx on server-1 killed: server-2 answered all 10 requests, none failed; started again: it takes part";
        let table = "DESTINATION    LEG   ";
        let lines = laid_out("ok", "failover", &[long.into(), table.into()]);
        assert!(
            lines.iter().all(|line| line.chars().count() <= WIDTH),
            "{lines:#?}"
        );
        assert_eq!(lines.len(), 3, "{lines:#?}");
        assert!(
            lines[0].starts_with("ok   failover     nginx on server-1"),
            "{lines:#?}"
        );
        assert!(lines[1].starts_with(&format!("{:INDENT$}  ", "")), "{lines:#?}");
        assert_eq!(lines[2], format!("{:INDENT$}DESTINATION    LEG", ""));
        let words: Vec<&str> = lines[..2]
            .iter()
            .flat_map(|line| line.split_whitespace())
            .collect();
        assert_eq!(words[2..].join(" "), long);
    }
}
