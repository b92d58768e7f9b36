//! What a scenario observed: labelled texts, in order, without what differs by chance from run to run. Judges nothing
//! but equality.

use std::fmt;

use anyhow::Result;
use harness::Output;

use super::Accepted;

/// The kernel takes a client's port from here unless told otherwise; scenarios choose theirs elsewhere.
const EPHEMERAL: std::ops::RangeInclusive<u32> = 32768..=60999;

#[derive(Default)]
pub(super) struct Facts {
    all: Vec<(String, String)>,
}

impl Facts {
    pub(super) fn note(&mut self, label: impl Into<String>, text: impl AsRef<str>) {
        let (label, text) = (label.into(), without_ephemeral_ports(text.as_ref().trim_end()));
        assert!(self.get(&label).is_none(), "two facts have one label: {label}");
        self.all.push((label, text));
    }

    /// How a program ended and all that it printed; that it did not end, if so.
    pub(super) fn end(&mut self, label: impl Into<String>, output: Result<Output>) {
        self.end_with(label, output, str::to_owned);
    }

    /// As [`Facts::end`], for what needs a word removed from its output first.
    pub(super) fn end_with(
        &mut self,
        label: impl Into<String>,
        output: Result<Output>,
        clean: impl Fn(&str) -> String,
    ) {
        let text = match output {
            Ok(output) => {
                let how = match output.code() {
                    Some(code) => format!("exit {code}"),
                    None => output.status.to_string(),
                };
                let printed = [output.stdout, output.stderr].map(|text| clean(&text));
                format!("{how}\n{}\n{}", printed[0].trim_end(), printed[1].trim_end())
            }
            Err(error) => format!("{error:#}"),
        };
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        self.note(label, lines.join("\n"));
    }

    /// The facts that a program of `tests/foreign` printed, `<label>: <text>` a line, and how it ended.
    pub(super) fn printed(&mut self, program: &str, output: Result<Output>) {
        match output {
            Ok(output) => {
                for line in output.stdout.lines() {
                    let (label, text) = line.split_once(": ").unwrap_or((line, ""));
                    self.note(format!("{program}, {label}"), text);
                }
                self.note(
                    format!("{program}, its end"),
                    format!("{}\n{}", output.status, output.stderr),
                );
            }
            Err(error) => self.note(format!("{program}, its end"), format!("{error:#}")),
        }
    }

    /// Lines that must hold, told by label; empty if all are equal but for what is accepted.
    pub(super) fn differences(&self, intercepted: &Self, accepted: &[Accepted]) -> Vec<String> {
        let mut told = Vec::new();
        for (label, bare) in &self.all {
            let there = intercepted.get(label);
            let exception = accepted.iter().find(|exception| exception.fact == label);
            match (there == Some(bare), exception) {
                (true, None) | (false, Some(_)) => {}
                (true, Some(Accepted { fact, reason })) => told.push(format!(
                    "{fact}\n    is the same in both worlds: remove the exception ({reason})"
                )),
                (false, None) => told.push(format!(
                    "{label}\n{}",
                    side_by_side(bare, there.map_or("", String::as_str))
                )),
            }
        }
        let new = intercepted
            .all
            .iter()
            .filter(|(label, _)| self.get(label).is_none());
        told.extend(new.map(|(label, text)| format!("{label}\n{}", side_by_side("", text))));
        told
    }

    fn get(&self, label: &str) -> Option<&String> {
        let found = self.all.iter().find(|(own, _)| own == label);
        found.map(|(_, text)| text)
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (label, text) in &self.all {
            writeln!(f, "{label}\n    {}", text.replace('\n', "\n    "))?;
        }
        Ok(())
    }
}

/// `text`, with every port that the kernel chose replaced.
fn without_ephemeral_ports(text: &str) -> String {
    let mut clean = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
        let (number, after) = from.split_at(end);
        clean += before;
        let chosen = number.len() == 5 && number.parse().is_ok_and(|n| EPHEMERAL.contains(&n));
        clean += if chosen { "PORT" } else { number };
        rest = after;
    }
    clean + rest
}

/// Both texts, without the lines that they begin and end with alike.
fn side_by_side(bare: &str, intercepted: &str) -> String {
    let (mut bare, mut intercepted): (Vec<&str>, Vec<&str>) =
        (bare.lines().collect(), intercepted.lines().collect());
    let alike = |(a, b): &(&&str, &&str)| a == b;
    let head = bare.iter().zip(&intercepted).take_while(alike).count();
    bare.drain(..head);
    intercepted.drain(..head);
    let tail = bare
        .iter()
        .rev()
        .zip(intercepted.iter().rev())
        .take_while(alike)
        .count();
    bare.truncate(bare.len() - tail);
    intercepted.truncate(intercepted.len() - tail);
    let mut shown = String::new();
    for (world, lines) in [("bare", bare), ("intercepted", intercepted)] {
        let lines = if lines.is_empty() { vec!["-"] } else { lines };
        for (n, line) in lines.iter().enumerate() {
            shown += &format!("    {:<12} {line}\n", if n == 0 { world } else { "" });
        }
    }
    shown
}

/// The lines of a log that say one of these.
pub(super) fn lines_with(log: &str, words: &[&str]) -> String {
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| words.iter().any(|word| line.contains(word)))
        .collect();
    lines.join("\n")
}

/// `text` with each run of digits after `before` replaced, as in `after 12 ms`.
pub(super) fn without_number_after(text: &str, before: &str) -> String {
    let mut parts = text.split(before);
    let mut clean = String::from(parts.next().unwrap_or_default());
    for part in parts {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        clean += before;
        clean += if digits > 0 { "N" } else { "" };
        clean += &part[digits..];
    }
    clean
}

#[test]
fn only_ports_of_the_kernels_choice_are_hidden() {
    assert_eq!(
        without_ephemeral_ports("10.99.0.2:41234 to 10.99.0.3:5432, 21000 440001"),
        "10.99.0.2:PORT to 10.99.0.3:5432, 21000 440001"
    );
}

#[test]
fn a_difference_is_told_and_an_idle_exception_too() {
    let facts = |text: &str| Facts {
        all: vec![("peer".into(), text.into())],
    };
    let exception = [Accepted {
        fact: "peer",
        reason: "none",
    }];
    assert!(facts("a").differences(&facts("a"), &[]).is_empty());
    assert_eq!(facts("a").differences(&facts("b"), &[]).len(), 1);
    assert!(facts("a").differences(&facts("b"), &exception).is_empty());
    assert_eq!(facts("a").differences(&facts("a"), &exception).len(), 1);
    assert_eq!(Facts::default().differences(&facts("a"), &[]).len(), 1);
}
