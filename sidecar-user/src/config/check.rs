//! `outrigger config check`: reads any of our files and says what is wrong with it. Starts nothing.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::layers::{Layers, Overrides};
use super::{CONTROL, Error, PROXY, control, proxy, read_file, read_text};
use crate::datapath;
use crate::datapath::policy::{Direction, Policy, PolicyFile, Source};
use crate::discovery::file;
use crate::document::{Field, Problems, Sink, load};
use crate::model::Snapshot;
use crate::policy::Mode;
use crate::proxy as proxy_role;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Proxy,
    Control,
    Registry,
    /// What a proxy's `interception.policy` names
    InterceptionPolicy,
}

/// Answers one line for people, and a line for each warning.
pub fn check(path: &Path, kind: Option<Kind>) -> Result<Vec<String>, Error> {
    let text = read_file(path)?;
    let invalid = |problems| Error::Invalid {
        file: Some(path.to_owned()),
        problems,
    };
    let kind = match kind {
        Some(kind) => kind,
        None => detect(&text).map_err(invalid)?,
    };
    let Summary {
        line,
        warnings,
        policy,
    } = summarize(&text, kind).map_err(invalid)?;
    let mut lines = vec![format!("{}: ok ({line})", path.display())];
    if let Some(path) = policy {
        let policy = PolicyFile::check(&path)?;
        lines.push(format!("{}: ok ({})", path.display(), counts(&policy)));
    }
    lines.extend(
        warnings
            .iter()
            .map(|warning| format!("{}:{warning} (warning)", path.display())),
    );
    Ok(lines)
}

pub(super) struct Summary {
    pub(super) line: String,
    pub(super) warnings: Vec<String>,
    /// Another file that belongs to this one.
    policy: Option<PathBuf>,
}

pub(super) fn summarize(text: &str, kind: Kind) -> Result<Summary, Problems> {
    let none = Overrides::default();
    let mut summary = Summary {
        line: String::new(),
        warnings: Vec::new(),
        policy: None,
    };
    match kind {
        Kind::Registry => {
            let registry = file::parse(text, &Snapshot::default())?;
            summary.warnings = registry.warnings.iter().map(ToString::to_string).collect();
            summary.line = format!("registry, {}", registry.counts);
        }
        Kind::InterceptionPolicy => summary.line = counts(&datapath::policy::parse(text)?),
        Kind::Proxy => {
            // The file is valid wherever it is checked, so the interfaces of this machine do not matter.
            let anywhere = |_: Option<&Path>| Ok(vec![std::net::Ipv4Addr::LOCALHOST.into()]);
            let read = |layers: &Layers| proxy::read(layers, anywhere);
            let role = read_text(Some(text), &PROXY, &none, read)?.role;
            let interception = if role.datapath.is_some() {
                "intercepts"
            } else {
                "intercepts nothing"
            };
            summary.warnings.extend(of_nothing(&role));
            summary.line = format!("proxy, {}, {interception}", role.identity.id);
            summary.policy = role.interception_policy;
        }
        Kind::Control => {
            let issuer = read_text(Some(text), &CONTROL, &none, control::read)?.role.issuer;
            summary.line = format!("control, {}, listens on {}", issuer.trust_domain, issuer.listen);
        }
    }
    Ok(summary)
}

/// What a proxy that intercepts nothing does not do.
fn of_nothing(role: &proxy_role::Config) -> Option<String> {
    let whole = " `interception`: none: the workload's own connections leave in plaintext, and those to it do not come \
                 through this proxy, except by tunnel";
    match (&role.datapath, role.mode) {
        (Some(_), _) => None,
        (None, Mode::Permissive) => Some(whole.into()),
        (None, Mode::Strict) => Some(format!("{whole}; with `mode: strict` it never becomes ready")),
    }
}

fn counts(policy: &Policy) -> String {
    let written = |direction| {
        let rules = policy.rules(direction).iter();
        rules
            .filter(|rule| matches!(rule.source, Source::Line(_)))
            .count()
    };
    format!(
        "interception policy, {} outbound rules, {} inbound rules",
        written(Direction::Outbound),
        written(Direction::Inbound)
    )
}

/// The kind that knows most of the fields at the top.
pub(super) fn detect(text: &str) -> Result<Kind, Problems> {
    let node = load(text)?;
    let sink = Sink::default();
    let entries = Field::root(&node, &sink).entries("a map").unwrap_or_default();
    let names: Vec<&str> = entries.iter().filter_map(|(key, _)| key.text()).collect();
    // A proxy's `outbound` is a word.
    let is_rules = |(key, value): &(Field<'_>, Field<'_>)| {
        key.text()
            .is_some_and(|name| ["outbound", "inbound"].contains(&name))
            && value.is_list()
    };
    if !entries.is_empty() && entries.iter().all(is_rules) {
        return Ok(Kind::InterceptionPolicy);
    }
    let top = |path: &'static str| path.split('.').next().unwrap_or(path);
    let known = |fields: &[&str]| names.iter().filter(|name| fields.contains(name)).count();
    let proxy: Vec<&str> = PROXY.iter().map(|setting| top(setting.path)).collect();
    let control: Vec<&str> = CONTROL.iter().map(|setting| top(setting.path)).collect();
    let scores = [
        (Kind::Proxy, known(&proxy)),
        (Kind::Control, known(&control)),
        (Kind::Registry, known(&["workloads", "services", "policies"])),
    ];
    let best = scores.into_iter().rev().max_by_key(|(_, score)| *score);
    Ok(best.map_or(Kind::Proxy, |(kind, _)| kind))
}
