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
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Screen {
    /// `None`: as wide as it gets.
    pub(super) width: Option<usize>,
    /// A person reads it.
    pub(super) is_terminal: bool,
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
    Json,
    Yaml,
}

impl Output {
    pub(super) fn syntax(self) -> Option<Syntax> {
        match self {
            Self::Json => Some(Syntax::Json),
            Self::Yaml => Some(Syntax::Yaml),
            Self::Table | Self::Wide => None,
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
                width: None,
                is_terminal,
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
            };
            args.stdout().width
        };
        assert_eq!(width("120"), Some(120));
        assert_eq!(width("3"), Some(NARROWEST));
        let without = ScreenArgs::default().stdout().width;
        assert_eq!((width("wide"), width("0")), (without, without));
    }

    #[test]
    fn what_is_no_terminal_has_no_width() {
        let (reader, _writer): (OwnedFd, OwnedFd) = nix::unistd::pipe().unwrap();
        assert_eq!(sys::columns(reader.as_fd()), None);
    }
}
