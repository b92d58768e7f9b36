//! Settings and where their values come from: flag before environment before file before default. One table a
//! role drives the command line, the check for unknown fields and the messages. Judges no value.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::document::{Field, Position, Problem, Problems, Sink, load, nearest};

#[derive(Debug)]
pub struct Setting {
    /// In the file: `workload.name`.
    pub path: &'static str,
    pub flag: &'static str,
    pub env: &'static str,
    /// What the help calls its value.
    pub value: &'static str,
    pub help: &'static str,
    /// A list in the file; elsewhere its items are separated by commas.
    pub list: bool,
}

/// What flags and environment say, not yet judged.
#[derive(Clone, Debug, Default)]
pub struct Overrides(Vec<(&'static str, String, Origin)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Flag(&'static str),
    Environment(&'static str),
    File(Position),
}

/// A value as it was given.
#[derive(Clone, Debug)]
pub(super) struct Given {
    path: &'static str,
    items: Vec<(String, Origin)>,
    origin: Origin,
}

pub(super) struct Layers {
    settings: &'static [Setting],
    given: BTreeMap<&'static str, Given>,
    sections: Vec<(String, Position)>,
    problems: RefCell<Vec<Problem>>,
}

impl Overrides {
    /// Adds one flag, with its variable, for each setting.
    pub fn augment(command: Command, settings: &'static [Setting]) -> Command {
        settings.iter().fold(command, |command, setting| {
            command.arg(
                Arg::new(setting.path)
                    .long(setting.flag)
                    .env(setting.env)
                    .hide_env_values(true)
                    .value_name(setting.value)
                    .help(setting.help)
                    .help_heading("Settings (each overrides the field of the file)")
                    .action(ArgAction::Set),
            )
        })
    }

    /// An empty value is none: `OUTRIGGER_MODE= outrigger proxy …` is how a shell unsets a variable for one run.
    pub fn from_matches(matches: &ArgMatches, settings: &'static [Setting]) -> Self {
        let value = |setting: &'static Setting| {
            let text = matches
                .get_one::<String>(setting.path)
                .filter(|text| !text.is_empty())?;
            let origin = match matches.value_source(setting.path) {
                Some(ValueSource::EnvVariable) => Origin::Environment(setting.env),
                _ => Origin::Flag(setting.flag),
            };
            Some((setting.path, text.clone(), origin))
        };
        Self(settings.iter().filter_map(value).collect())
    }
}

impl Layers {
    pub(super) fn new(
        text: Option<&str>,
        settings: &'static [Setting],
        overrides: &Overrides,
    ) -> Result<Self, Problems> {
        let mut layers = Self {
            settings,
            given: BTreeMap::new(),
            sections: Vec::new(),
            problems: RefCell::default(),
        };
        let node = load(text.unwrap_or_default())?;
        let sink = Sink::default();
        layers.take_section(&Field::root(&node, &sink), "");
        layers.problems.get_mut().extend(sink.into_inner());
        for (path, text, origin) in &overrides.0 {
            layers.take_override(path, text, *origin);
        }
        Ok(layers)
    }

    fn take_section(&mut self, section: &Field<'_>, prefix: &str) {
        let fields: Vec<&'static str> = self.fields_below(prefix);
        for (key, value) in section.entries("a map").unwrap_or_default() {
            let Some(name) = key.text() else { continue };
            let path = format!("{prefix}{name}");
            if !fields.contains(&name) {
                let remedy = match nearest(name, &fields) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("known here: {}", fields.join(", ")),
                };
                key.problem("unknown field", remedy);
            } else if let Some(setting) = self.settings.iter().find(|setting| setting.path == path)
                // `interception` is a word, or a section.
                && !(self.is_section(&path) && (value.is_map() || value.is_null()))
            {
                self.take_value(setting, &value);
            } else {
                self.sections.push((path.clone(), key.at()));
                if !value.is_null() {
                    self.take_section(&value, &format!("{path}."));
                }
            }
        }
    }

    fn is_section(&self, path: &str) -> bool {
        let below = |setting: &Setting| {
            setting
                .path
                .strip_prefix(path)
                .is_some_and(|rest| rest.starts_with('.'))
        };
        self.settings.iter().any(below)
    }

    fn fields_below(&self, prefix: &str) -> Vec<&'static str> {
        let below = self
            .settings
            .iter()
            .filter_map(|setting| setting.path.strip_prefix(prefix));
        let mut fields: Vec<&str> = below.filter_map(|rest| rest.split('.').next()).collect();
        fields.dedup();
        fields
    }

    fn take_value(&mut self, setting: &'static Setting, value: &Field<'_>) {
        if value.is_null() {
            return;
        }
        let fields = match setting.list && value.is_list() {
            true => value.list("a list").unwrap_or_default(),
            false => vec![value.clone()],
        };
        let items = fields
            .iter()
            .filter_map(|field| Some((field.text()?.to_owned(), Origin::File(field.at()))));
        let given = Given {
            path: setting.path,
            items: items.collect(),
            origin: Origin::File(value.at()),
        };
        // A value of the wrong kind has left its problem, and counts as given so that it is not missed as well.
        self.given.insert(setting.path, given);
    }

    fn take_override(&mut self, path: &'static str, text: &str, origin: Origin) {
        let list = self
            .settings
            .iter()
            .any(|setting| setting.path == path && setting.list);
        let items = match list {
            true => text
                .split(',')
                .map(|item| (item.trim().to_owned(), origin))
                .collect(),
            false => vec![(text.to_owned(), origin)],
        };
        self.given.insert(path, Given { path, items, origin });
    }

    pub(super) fn is_given(&self, path: &str) -> bool {
        self.given.contains_key(path)
    }

    /// Whether the section stands in the file, or any of its fields is given elsewhere.
    pub(super) fn has_section(&self, name: &str) -> bool {
        let below = |path: &str| path.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        self.sections.iter().any(|(section, _)| section == name) || self.given.keys().any(|path| below(path))
    }

    /// Reads a value; `read` answers what is wrong with it and the remedy. `None` also when it is not given.
    pub(super) fn read<T>(
        &self,
        path: &str,
        read: impl Fn(&str) -> Result<T, (String, String)>,
    ) -> Option<T> {
        self.read_list(path, read)?.into_iter().next()
    }

    /// `None` when the list is not given.
    pub(super) fn read_list<T>(
        &self,
        path: &str,
        read: impl Fn(&str) -> Result<T, (String, String)>,
    ) -> Option<Vec<T>> {
        let given = self.given.get(path)?;
        let item = |(text, origin): &(String, Origin)| match read(text) {
            Ok(value) => Some(value),
            Err((what, remedy)) => {
                self.push(given.path, *origin, what, remedy);
                None
            }
        };
        Some(given.items.iter().filter_map(item).collect())
    }

    pub(super) fn parse<T: FromStr>(&self, path: &str, what: &str, remedy: &str) -> Option<T> {
        self.read(path, |text| {
            text.parse()
                .map_err(|_| (format!("`{text}` is no {what}"), remedy.to_owned()))
        })
    }

    /// As `read`, and its absence is a problem.
    pub(super) fn require<T>(
        &self,
        path: &str,
        read: impl Fn(&str) -> Result<T, (String, String)>,
    ) -> Option<T> {
        if !self.is_given(path) {
            self.missing(path);
        }
        self.read(path, read)
    }

    /// A complaint about a value that was given, or about a default when it was not.
    pub(super) fn problem(&self, path: &'static str, what: String, remedy: &str) {
        match self.given.get(path) {
            Some(given) => self.push(path, given.origin, what, remedy.to_owned()),
            None => self.problems.borrow_mut().push(Problem {
                at: None,
                field: path.to_owned(),
                what,
                remedy: remedy.to_owned(),
            }),
        }
    }

    fn missing(&self, path: &str) {
        let Some(setting) = self.settings.iter().find(|setting| setting.path == path) else {
            return;
        };
        let section = path.rsplit_once('.').map(|(section, _)| section);
        self.problems.borrow_mut().push(Problem {
            at: self
                .sections
                .iter()
                .find(|(name, _)| Some(name.as_str()) == section)
                .map(|(_, at)| *at),
            field: path.to_owned(),
            what: "it is missing".into(),
            remedy: format!("set it in the file, by --{} or by {}", setting.flag, setting.env),
        });
    }

    fn push(&self, path: &str, origin: Origin, what: String, remedy: String) {
        let (at, field) = match origin {
            Origin::File(at) => (Some(at), path.to_owned()),
            _ => (None, origin.to_string()),
        };
        self.problems.borrow_mut().push(Problem {
            at,
            field,
            what,
            remedy,
        });
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Environment(name) => f.write_str(name),
            Self::File(at) => at.fmt(f),
        }
    }
}

/// The default when nobody gave a value; `None` when the value is wrong.
pub(super) fn or<T>(
    layers: &Layers,
    path: &str,
    default: T,
    read: impl FnOnce(&str) -> Option<T>,
) -> Option<T> {
    match layers.is_given(path) {
        true => read(path),
        false => Some(default),
    }
}
