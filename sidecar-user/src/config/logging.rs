//! `log.level` and `log.format`, which every role has.

use super::layers::{Layers, Setting};
use super::values::word;
use crate::lifecycle::{Format, Logging};

pub(super) const LEVEL: Setting = Setting {
    path: "log.level",
    flag: "log-level",
    env: "OUTRIGGER_LOG",
    value: "FILTER",
    help: "error, warn, info, debug, trace or off, also by module: info,outrigger::discovery=debug [default: info]",
    list: false,
};

pub(super) const FORMAT: Setting = Setting {
    path: "log.format",
    flag: "log-format",
    env: "OUTRIGGER_LOG_FORMAT",
    value: "FORMAT",
    help: "text or json [default: text]",
    list: false,
};

pub(super) fn read(layers: &Layers) -> Option<Logging> {
    let default = Logging::default();
    let level = match layers.is_given("log.level") {
        true => layers.read("log.level", check_filter),
        false => Some(default.filter),
    };
    let format = match layers.is_given("log.format") {
        true => layers.read(
            "log.format",
            word(&[("text", Format::Text), ("json", Format::Json)]),
        ),
        false => Some(default.format),
    };
    Some(Logging {
        filter: level?,
        format: format?,
    })
}

/// A filter takes a misspelt level for the name of a module, and then logs nothing.
fn check_filter(text: &str) -> Result<String, (String, String)> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let remedy = || "write a level such as info, or info,outrigger::discovery=debug".to_owned();
    let unknown = text.split(',').map(str::trim).find(|directive| {
        let level = directive.rsplit_once('=').map_or(*directive, |(_, level)| level);
        !LEVELS.contains(&level.to_ascii_lowercase().as_str())
    });
    match unknown {
        Some(directive) => Err((format!("`{directive}` names no log level"), remedy())),
        None => match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => Err((format!("`{text}` is no filter: {error}"), remedy())),
        },
    }
}
