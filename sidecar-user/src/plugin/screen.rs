//! Where output goes: how wide it may be, and documents as JSON or YAML. `docs/output.md` is the contract.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use super::error::{Error, unwritten};
use super::{sys, yaml};
use crate::kubernetes::API_VERSION;

#[derive(Clone, Debug, Default, Args)]
pub(super) struct ScreenArgs {
    /// Columns that a table may have [default: those of the terminal; all that there are where it is none]
    #[arg(long, value_name = "N", env = "COLUMNS", hide_env_values = true)]
    columns: Option<String>,
    /// Colours: on a terminal that has them, always or never
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        hide_possible_values = true
    )]
    color: When,
    // The parser is what reads the environment, so the two variables are arguments.
    #[arg(long, hide = true, env = "NO_COLOR")]
    no_color: Option<String>,
    #[arg(long, hide = true, env = "TERM")]
    term: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum When {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Screen {
    /// `None`: as wide as it gets.
    pub(super) width: Option<usize>,
    /// A person reads it.
    pub(super) is_terminal: bool,
    pub(super) is_coloured: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    Json,
    Yaml,
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    #[default]
    Table,
    Wide,
    /// A name a line
    Name,
    Json,
    Yaml,
}

impl Output {
    pub(super) fn syntax(self) -> Option<Syntax> {
        match self {
            Self::Json => Some(Syntax::Json),
            Self::Yaml => Some(Syntax::Yaml),
            Self::Table | Self::Wide | Self::Name => None,
        }
    }
}

/// A body under its kind; the body's own fields stand beside these two.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    body: &'a Value,
}

/// Nobody's terminal is narrower and still a table.
const NARROWEST: usize = 20;

impl ScreenArgs {
    /// Of standard output. What is no number is as if it were not there: a shell may leave anything in `COLUMNS`.
    pub(super) fn stdout(&self) -> Screen {
        let given = self
            .columns
            .as_deref()
            .and_then(|columns| columns.trim().parse().ok());
        let stdout = io::stdout();
        let width = given.filter(|n| *n > 0).or_else(|| sys::columns(stdout.as_fd()));
        Screen {
            width: width.map(|width: usize| width.max(NARROWEST)),
            is_terminal: stdout.is_terminal(),
            is_coloured: self.is_coloured(stdout.is_terminal()),
        }
    }

    /// `NO_COLOR` counts where it is not empty, as no-color.org wants it.
    pub(super) fn is_coloured(&self, is_terminal: bool) -> bool {
        match self.color {
            When::Always => true,
            When::Never => false,
            When::Auto => {
                is_terminal
                    && self.no_color.as_deref().unwrap_or_default().is_empty()
                    && self.term.as_deref() != Some("dumb")
            }
        }
    }
}

impl Screen {
    /// Writes one document: pretty for people, and on one line for programs.
    pub(super) fn document(
        &self,
        out: &mut impl Write,
        syntax: Syntax,
        kind: &'static str,
        body: &Value,
    ) -> Result<(), Error> {
        let text = self
            .text(syntax, kind, body)
            .map_err(|error| unwritten(error.into()))?;
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(unwritten)
    }

    fn text(&self, syntax: Syntax, kind: &'static str, body: &Value) -> serde_json::Result<String> {
        let document = Document {
            api_version: API_VERSION,
            kind,
            body,
        };
        Ok(match syntax {
            Syntax::Yaml => yaml::document(&serde_json::to_value(document)?),
            Syntax::Json if self.is_terminal => serde_json::to_string_pretty(&document)? + "\n",
            Syntax::Json => serde_json::to_string(&document)? + "\n",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    #[test]
    fn json_is_pretty_on_a_terminal_and_one_line_in_a_pipe() {
        let body = serde_json::json!({"open": [], "truncated": false});
        let text = |is_terminal, syntax| {
            let screen = Screen {
                is_terminal,
                ..Screen::default()
            };
            screen.text(syntax, "FlowList", &body).unwrap()
        };
        assert_eq!(
            text(false, Syntax::Json),
            "{\"apiVersion\":\"outrigger.example/v1alpha1\",\"kind\":\"FlowList\",\"open\":[],\"truncated\":false}\n"
        );
        assert!(
            text(true, Syntax::Json).starts_with("{\n  \"apiVersion\": \"outrigger.example/v1alpha1\",\n")
        );
        let yaml = "apiVersion: outrigger.example/v1alpha1\nkind: FlowList\nopen: []\ntruncated: false\n";
        assert_eq!(text(false, Syntax::Yaml), yaml);
    }

    #[test]
    fn columns_are_those_given_and_nonsense_is_not_heard() {
        let width = |columns: &str| {
            let args = ScreenArgs {
                columns: Some(columns.to_owned()),
                ..ScreenArgs::default()
            };
            args.stdout().width
        };
        assert_eq!(width("120"), Some(120));
        assert_eq!(width("3"), Some(NARROWEST));
        let without = ScreenArgs::default().stdout().width;
        assert_eq!((width("wide"), width("0")), (without, without));
    }

    #[test]
    fn colours_are_for_terminals_that_have_them_unless_somebody_says_otherwise() {
        let args = |color, no_color: Option<&str>, term: &str| ScreenArgs {
            color,
            no_color: no_color.map(String::from),
            term: Some(term.into()),
            ..ScreenArgs::default()
        };
        for (args, on_terminal, in_pipe) in [
            (args(When::Auto, None, "xterm"), true, false),
            (args(When::Auto, Some(""), "xterm"), true, false),
            (args(When::Auto, Some("1"), "xterm"), false, false),
            (args(When::Auto, None, "dumb"), false, false),
            (args(When::Always, Some("1"), "dumb"), true, true),
            (args(When::Never, None, "xterm"), false, false),
        ] {
            assert_eq!(
                (args.is_coloured(true), args.is_coloured(false)),
                (on_terminal, in_pipe),
                "{args:?}"
            );
        }
    }

    #[test]
    fn what_is_no_terminal_has_no_width() {
        let (reader, _writer): (OwnedFd, OwnedFd) = nix::unistd::pipe().unwrap();
        assert_eq!(sys::columns(reader.as_fd()), None);
    }
}
