//! `drain` and `lifetime`: when a proxy ends.

use super::*;
use crate::proxy::stop::{Config, Lifetime};

const INTERCEPTING: &str = "interception: {cgroup: /sys/fs/cgroup/pod, pins: /sys/fs/bpf/pod}\n";

fn read(extra: &str, args: &[&str]) -> Result<Config, String> {
    let text = format!("{MINIMAL}{INTERCEPTING}{extra}\n");
    read_proxy(&text, args).map(|loaded| loaded.role.stop)
}

fn seconds(minimum: u64, deadline: u64) -> Config {
    Config {
        minimum: Duration::from_secs(minimum),
        deadline: Duration::from_secs(deadline),
        lifetime: Lifetime::Signal,
    }
}

#[test]
fn minimum_and_deadline_are_set_together_or_each_alone() {
    for (text, expected) in [
        ("", seconds(5, 25)),
        ("drain: {minimum: 10s, deadline: 1m}", seconds(10, 60)),
        ("drain: {minimum: 0s}", seconds(0, 25)),
        ("drain: {deadline: 60s}", seconds(5, 60)),
        ("drain: 60s", seconds(5, 60)),
        // A deadline from before there was a minimum stays one.
        ("drain: 2s", seconds(2, 2)),
    ] {
        assert_eq!(read(text, &[]).unwrap(), expected, "{text}");
    }
    let args = ["--drain-minimum", "1s", "--drain-deadline", "2s"];
    assert_eq!(
        read("drain: {minimum: 10s, deadline: 1m}", &args).unwrap(),
        seconds(1, 2)
    );
    assert_eq!(read("", &["--drain", "7s"]).unwrap(), seconds(5, 7));
}

#[test]
fn what_contradicts_itself_is_refused() {
    for (text, args, expected) in [
        (
            "drain: {minimum: 30s}",
            &[][..],
            "`drain.minimum`: 30s is longer than the deadline, 25s",
        ),
        (
            "drain: {deadline: 1m}",
            &["--drain", "7s"][..],
            "`--drain`: it says the same as `drain.deadline`, which is given too; keep the one or the other",
        ),
        (
            "drain: {minimum: 5}",
            &[][..],
            "`drain.minimum`: `5` is no duration",
        ),
        (
            "lifetime: app",
            &[][..],
            "`lifetime`: `app` is not known here; write signal or application",
        ),
    ] {
        let error = read(text, args).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn an_application_is_known_by_its_cgroup() {
    let config = read("lifetime: application", &[]).unwrap();
    assert_eq!(config.lifetime, Lifetime::Application);
    let bare = format!("{MINIMAL}interception: none\nlifetime: application\n");
    let error = read_proxy(&bare, &[]).unwrap_err();
    assert!(
        error.contains("`lifetime`") && error.contains("set interception.cgroup"),
        "{error}"
    );
}
