//! `outrigger config check`: reads any of our files and says what is wrong with it. Starts nothing.

use std::path::Path;

use clap::ValueEnum;

use super::layers::{Layers, Overrides};
use super::{CONTROL, Error, PROXY, control, proxy, read_file, read_text};
use crate::document::{Field, Problems, Sink, load};
use crate::discovery::file;
use crate::model::Snapshot;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Proxy,
    Control,
    Registry,
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
    let (summary, warnings) = summarize(&text, kind).map_err(invalid)?;
    let mut lines = vec![format!("{}: ok ({summary})", path.display())];
    lines.extend(
        warnings
            .iter()
            .map(|warning| format!("{}:{warning} (warning)", path.display())),
    );
    Ok(lines)
}

fn summarize(text: &str, kind: Kind) -> Result<(String, Vec<String>), Problems> {
    let none = Overrides::default();
    match kind {
        Kind::Registry => {
            let registry = file::parse(text, &Snapshot::default())?;
            let warnings = registry.warnings.iter().map(ToString::to_string).collect();
            Ok((format!("registry, {}", registry.counts), warnings))
        }
        Kind::Proxy => {
            // The file is valid wherever it is checked, so the interfaces of this machine do not matter.
            let anywhere = || Ok(vec![std::net::Ipv4Addr::LOCALHOST.into()]);
            let read = |layers: &Layers| proxy::read(layers, anywhere);
            let role = read_text(Some(text), &PROXY, &none, read)?.role;
            let interception = if role.datapath.is_some() {
                "intercepts"
            } else {
                "attaches nothing"
            };
            Ok((format!("proxy, {}, {interception}", role.identity.id), Vec::new()))
        }
        Kind::Control => {
            let issuer = read_text(Some(text), &CONTROL, &none, control::read)?.role.issuer;
            Ok((
                format!("control, {}, listens on {}", issuer.trust_domain, issuer.listen),
                Vec::new(),
            ))
        }
    }
}

/// The kind that knows most of the fields at the top.
fn detect(text: &str) -> Result<Kind, Problems> {
    let node = load(text)?;
    let sink = Sink::default();
    let entries = Field::root(&node, &sink).entries("a map").unwrap_or_default();
    let names: Vec<&str> = entries.iter().filter_map(|(key, _)| key.text()).collect();
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
