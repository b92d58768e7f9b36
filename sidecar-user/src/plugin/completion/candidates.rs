//! How a command line goes on: from the words so far and the definition of the command to what may come next, in cobra's words, which kubectl
//! reads. Pure; asks no cluster.

use std::collections::BTreeSet;

use clap::{Arg, Command, ValueHint};

/// What may come next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Candidates {
    /// Each with what it is for.
    words: Vec<(String, String)>,
    /// The shell may offer files.
    has_files: bool,
}

/// cobra's `ShellCompDirective`: its default, by which shells offer files where there is no word, and the one against that.
const DEFAULT: u8 = 0;
const NO_FILES: u8 = 4;

impl Candidates {
    /// A line each, with a description behind a tab, and the directive in the last line.
    pub(super) fn text(&self) -> String {
        let lines = self.words.iter().map(|(word, about)| match about.is_empty() {
            true => format!("{word}\n"),
            false => format!("{word}\t{about}\n"),
        });
        let directive = match self.has_files {
            true => DEFAULT,
            false => NO_FILES,
        };
        lines.collect::<String>() + &format!(":{directive}\n")
    }

    /// Values of an argument that begin with what was typed; `before` stands before each.
    fn values(arg: &Arg, typed: &str, before: &str) -> Self {
        let values = arg
            .get_possible_values()
            .into_iter()
            .filter(|value| !value.is_hide_set());
        let words = values
            .filter(|value| value.get_name().starts_with(typed))
            .map(|value| {
                let about = value.get_help().map(ToString::to_string).unwrap_or_default();
                (format!("{before}{}", value.get_name()), about)
            });
        Self {
            words: words.collect(),
            has_files: [ValueHint::AnyPath, ValueHint::FilePath, ValueHint::DirPath]
                .contains(&arg.get_value_hint()),
        }
    }
}

/// Of a command that was built. The last word is being typed, and may be empty.
pub(super) fn candidates(command: &Command, words: &[String]) -> Candidates {
    let Some((typed, before)) = words.split_last() else {
        return Candidates::default();
    };
    let mut line = Line::new(command);
    for word in before {
        line.read(word);
    }
    line.next(typed)
}

/// The command line so far.
struct Line<'c> {
    command: &'c Command,
    /// Has not got its value yet.
    waiting: Option<&'c Arg>,
    given: BTreeSet<&'c str>,
    positionals: usize,
    /// After `--`.
    has_ended: bool,
}

impl<'c> Line<'c> {
    fn new(command: &'c Command) -> Self {
        Self {
            command,
            waiting: None,
            given: BTreeSet::new(),
            positionals: 0,
            has_ended: false,
        }
    }

    fn read(&mut self, word: &str) {
        if self.waiting.take().is_some() {
            return;
        }
        match word.strip_prefix("--") {
            Some("") if !self.has_ended => self.has_ended = true,
            Some(flag) if !self.has_ended => {
                let (name, value) = flag
                    .split_once('=')
                    .map_or((flag, None), |(name, value)| (name, Some(value)));
                if let Some(arg) = self.long(name) {
                    self.take(arg, value.is_some());
                }
            }
            _ if word.starts_with('-') && word.len() > 1 && !self.has_ended => self.shorts(&word[1..]),
            _ => match self.command.find_subcommand(word) {
                Some(verb) if self.positionals == 0 => *self = Self::new(verb),
                _ => self.positionals += 1,
            },
        }
    }

    /// `-wo json`, `-ojson`.
    fn shorts(&mut self, flags: &str) {
        for (at, letter) in flags.char_indices() {
            let rest = &flags[at + letter.len_utf8()..];
            let Some(arg) = self.arguments().find(|arg| arg.get_short() == Some(letter)) else {
                return;
            };
            self.take(arg, !rest.is_empty());
            if arg.get_action().takes_values() {
                return;
            }
        }
    }

    fn take(&mut self, arg: &'c Arg, has_value: bool) {
        self.given.insert(arg.get_id().as_str());
        self.waiting = (arg.get_action().takes_values() && !has_value).then_some(arg);
    }

    fn arguments(&self) -> impl Iterator<Item = &'c Arg> + use<'c> {
        self.command.get_arguments()
    }

    fn long(&self, name: &str) -> Option<&'c Arg> {
        self.arguments().find(|arg| {
            let aliases = arg.get_all_aliases().unwrap_or_default();
            arg.get_long() == Some(name) || aliases.contains(&name)
        })
    }

    fn next(&self, typed: &str) -> Candidates {
        if let Some(arg) = self.waiting {
            return Candidates::values(arg, typed, "");
        }
        if !self.has_ended && typed.starts_with('-') {
            return match typed.split_once('=') {
                Some((flag, value)) => {
                    let arg = flag.strip_prefix("--").and_then(|name| self.long(name));
                    arg.map_or_else(Candidates::default, |arg| {
                        Candidates::values(arg, value, &format!("{flag}="))
                    })
                }
                None => self.flags(typed),
            };
        }
        let verbs = self.command.get_subcommands().filter(|verb| !verb.is_hide_set());
        let verbs = verbs.filter(|verb| self.positionals == 0 && verb.get_name().starts_with(typed));
        let verbs = verbs.map(|verb| (verb.get_name().to_owned(), first_line(verb.get_about())));
        let nth = self.command.get_positionals().nth(self.positionals);
        let mut candidates = nth.map_or_else(Candidates::default, |arg| Candidates::values(arg, typed, ""));
        candidates.words.splice(0..0, verbs);
        candidates
    }

    /// Those that were not given; they have one value each.
    fn flags(&self, typed: &str) -> Candidates {
        let free = self
            .arguments()
            .filter(|arg| !arg.is_hide_set() && !self.given.contains(arg.get_id().as_str()));
        let words = free.filter_map(|arg| {
            let flag = format!("--{}", arg.get_long()?);
            flag.starts_with(typed)
                .then(|| (flag, first_line(arg.get_help())))
        });
        Candidates {
            words: words.collect(),
            has_files: false,
        }
    }
}

/// A line is a candidate.
fn first_line(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::super::Cli;
    use super::*;

    fn after(words: &[&str]) -> Candidates {
        let mut command = Cli::command();
        command.build();
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        candidates(&command, &words)
    }

    fn words(typed: &[&str]) -> Vec<String> {
        after(typed).words.into_iter().map(|(word, _)| word).collect()
    }

    #[test]
    fn verbs_come_first_and_hidden_ones_do_not() {
        let verbs = words(&[""]);
        for verb in ["flows", "why", "edges", "top", "status", "completion"] {
            assert!(verbs.iter().any(|offered| offered == verb), "{verb}: {verbs:?}");
        }
        assert!(!verbs.iter().any(|verb| verb.starts_with('_')), "{verbs:?}");
        assert_eq!(words(&["--version", "fl"]), ["flows"]);
        assert!(words(&["flows", "fl"]).is_empty(), "a pod is no verb");
    }

    #[test]
    fn flags_that_were_given_are_not_offered_again() {
        let of = |typed: &[&str]| words(typed).contains(&"--output".to_owned());
        assert!(of(&["flows", "--"]));
        for before in [
            &["-o", "json"][..],
            &["-ojson"],
            &["--output=json"],
            &["-wo", "json"],
        ] {
            let line: Vec<&str> = ["flows"].iter().chain(before).chain(&["--"]).copied().collect();
            assert!(!of(&line), "{line:?}");
        }
        assert!(words(&["flows", "--no-c"]).is_empty(), "hidden");
        assert!(
            words(&["flows", "--", "--o"]).is_empty(),
            "after the end of flags"
        );
    }

    #[test]
    fn values_are_those_of_the_flag() {
        assert_eq!(words(&["flows", "-o", "w"]), ["wide"]);
        assert_eq!(
            words(&["flows", "-w", "--direction", ""]),
            ["inbound", "outbound"]
        );
        assert_eq!(words(&["flows", "--cause=tls"]), ["--cause=tls_failed"]);
        assert_eq!(words(&["completion", "z"]), ["zsh"]);
        assert!(words(&["flows", "--port", "8"]).is_empty());
        // `--service` takes any word, so what follows it is no verb and no flag.
        assert!(words(&["flows", "--service", "-"]).is_empty());
    }

    #[test]
    fn files_are_offered_where_a_path_is_wanted_and_nowhere_else() {
        assert_eq!(after(&["flows", "--unix", "/r"]).text(), ":0\n");
        assert_eq!(after(&["flows", "--address", ""]).text(), ":4\n");
        let line = after(&["stat"]).text();
        assert!(line.starts_with("status\tThe pods"), "{line}");
        assert!(line.ends_with("\n:4\n"), "{line}");
    }
}
