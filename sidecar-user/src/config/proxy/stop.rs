//! How a proxy ends: the settings `drain` and `lifetime`.

use std::time::Duration;

use super::super::layers::{Layers, or};
use super::super::values::{duration, word};
use crate::proxy::stop::{Config, Lifetime};

/// By then the endpoints of a service have been taken back nearly everywhere.
const MINIMUM: Duration = Duration::from_secs(5);
/// Five seconds before Kubernetes kills a pod that has no grace period of its own.
const DEADLINE: Duration = Duration::from_secs(25);

pub(super) fn read(layers: &Layers) -> Option<Config> {
    let (short, deadline) = ("drain", "drain.deadline");
    if layers.is_given(short) && layers.is_given(deadline) {
        let what = format!("it says the same as `{deadline}`, which is given too");
        layers.problem(short, what, "keep the one or the other");
    }
    let given = if layers.is_given(short) { short } else { deadline };
    let deadline = or(layers, given, DEADLINE, |path| layers.read(path, duration));
    let minimum = or(layers, "drain.minimum", None, |path| {
        layers.read(path, duration).map(Some)
    });
    let words = [
        ("signal", Lifetime::Signal),
        ("application", Lifetime::Application),
    ];
    let lifetime = or(layers, "lifetime", Lifetime::default(), |path| {
        layers.read(path, word(&words))
    });
    let (minimum, deadline, lifetime) = (minimum?, deadline?, lifetime?);
    if let Some(minimum) = minimum.filter(|minimum| *minimum > deadline) {
        let [minimum, deadline] = [minimum, deadline].map(humantime::format_duration);
        layers.problem(
            "drain.minimum",
            format!("{minimum} is longer than the deadline, {deadline}, and both count from the signal"),
            "write less, or a longer drain.deadline",
        );
    }
    if lifetime == Lifetime::Application && !layers.has_section("interception") {
        layers.problem(
            "lifetime",
            "nothing says which programs are the application's".into(),
            "set interception.cgroup, or write signal",
        );
    }
    Some(Config {
        minimum: minimum.unwrap_or(MINIMUM.min(deadline)),
        deadline,
        lifetime,
    })
}
