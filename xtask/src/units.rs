//! The units of `deploy/systemd`, as systemd sees them: no complaint, and no more exposed than they have to be. Runs as
//! tests; starts nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::workspace;

/// A unit and the most exposure that `systemd-analyze security` may find, in tenths of its points: of 100, lower is better.
const EXPOSED: [(&str, u32); 3] = [
    ("outrigger-control.service", 12),
    // The capabilities for eBPF, netlink and the system calls that come with them; and 2 tenths for NotifyAccess=all, by which
    // a second sidecar takes over.
    ("outrigger-sidecar@.service", 21),
    // It mounts a namespace where the host sees it, and nothing may stand between.
    ("outrigger-network@.service", 70),
];

/// The units in a directory of their own, with programs in the place of ours that are there: systemd complains of others.
struct Units(PathBuf);

impl Units {
    fn copy(name: &str, change: impl Fn(&str) -> String) -> Self {
        let dir = std::env::temp_dir().join(format!("outrigger-units-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let units = Self(dir);
        for (name, text) in shipped() {
            let text = text
                .replace("/usr/local/bin/outrigger", "/bin/true")
                .replace("/usr/sbin/ip ", "/bin/true ");
            fs::write(units.0.join(name), change(&text)).expect("write a unit");
        }
        // A service of the slice, as the drop-in makes it.
        let meshed = fs::read_to_string(source().join("meshed.conf")).expect("the drop-in");
        let meshed = meshed.replace("/usr/local/bin/outrigger", "/bin/true");
        let service = format!("{meshed}\nExecStart=/bin/true\n");
        fs::write(units.0.join("meshed.service"), change(&service)).expect("write a unit");
        units
    }

    /// What systemd has to say about all of them; nothing when they are good. Its exit status is 0 for most complaints.
    fn complaints(&self) -> String {
        let mut command = self.analyze(&["verify", "--man=no", "--recursive-errors=one"]);
        let units = fs::read_dir(&self.0).expect("our directory").flatten();
        command.args(units.map(|unit| unit.path()));
        let output = command
            .output()
            .expect("systemd-analyze runs; cargo xtask setup installs it");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.success() {
            true => said,
            false => format!("{}\n{said}", output.status),
        }
    }

    /// In tenths of a point.
    fn exposure(&self, unit: &str) -> u32 {
        let mut command = self.analyze(&["security", "--offline=yes", "--no-pager"]);
        let output = command
            .arg(self.0.join(unit))
            .output()
            .expect("systemd-analyze runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let overall = said.lines().find(|line| line.contains("Overall exposure level"));
        let points = overall.and_then(|line| line.rsplit_once(": ")?.1.split(' ').next());
        let points: f32 = points
            .and_then(|points| points.parse().ok())
            .unwrap_or_else(|| panic!("no exposure of {unit}: {output:?}"));
        (points * 10.0).round() as u32
    }

    fn analyze(&self, args: &[&str]) -> Command {
        let mut command = Command::new("systemd-analyze");
        // The empty last entry stands for systemd's own directories.
        command
            .args(args)
            .env("SYSTEMD_UNIT_PATH", format!("{}:", self.0.display()));
        command
    }
}

impl Drop for Units {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn source() -> PathBuf {
    workspace::root().join("deploy/systemd")
}

/// By name, with their text.
fn shipped() -> Vec<(String, String)> {
    let is_unit = |path: &Path| {
        path.extension()
            .is_some_and(|kind| kind == "service" || kind == "mount")
    };
    let files = fs::read_dir(source())
        .expect("the units")
        .flatten()
        .map(|file| file.path());
    let named = |path: PathBuf| {
        Some((
            path.file_name()?.to_str()?.to_owned(),
            fs::read_to_string(&path).ok()?,
        ))
    };
    files.filter(|path| is_unit(path)).filter_map(named).collect()
}

#[test]
fn systemd_has_nothing_to_say_against_the_units() {
    let units = Units::copy("verify", str::to_owned);
    assert_eq!(units.complaints(), "");
}

#[test]
fn a_setting_that_systemd_does_not_know_and_a_unit_that_is_nowhere_are_complained_of() {
    let units = Units::copy("unknown", |text| text.replace("WatchdogSec=", "WatchDogSec="));
    assert!(
        units.complaints().contains("WatchDogSec"),
        "{}",
        units.complaints()
    );
    let units = Units::copy("nowhere", |text| {
        text.replace("run-outrigger-bpf.mount", "run-nowhere.mount")
    });
    assert!(
        units.complaints().contains("run-nowhere.mount"),
        "{}",
        units.complaints()
    );
}

#[test]
fn no_unit_is_exposed_more_than_it_has_to_be() {
    let units = Units::copy("security", str::to_owned);
    for (unit, most) in EXPOSED {
        let found = units.exposure(unit);
        assert!(found <= most, "{unit}: {found} tenths, and {most} are enough");
    }
    assert_eq!(
        shipped()
            .iter()
            .filter(|(name, _)| name.ends_with(".service"))
            .count(),
        EXPOSED.len()
    );
}

#[test]
fn a_protection_that_is_taken_away_is_noticed() {
    let units = Units::copy("exposed", |text| {
        text.replace("ProtectSystem=strict", "ProtectSystem=no")
    });
    for (unit, most) in EXPOSED.into_iter().take(2) {
        assert!(units.exposure(unit) > most, "{unit}");
    }
}

#[test]
fn the_users_of_the_units_are_made() {
    let root = std::env::temp_dir().join(format!("outrigger-users-{}", std::process::id()));
    fs::create_dir_all(root.join("etc")).expect("a directory");
    let mut command = Command::new("systemd-sysusers");
    command.arg(format!("--root={}", root.display()));
    let output = command
        .arg(source().join("outrigger.sysusers"))
        .output()
        .expect("it runs");
    let made = fs::read_to_string(root.join("etc/passwd")).unwrap_or_default();
    let _ = fs::remove_dir_all(&root);
    assert!(output.status.success(), "{output:?}");
    for (name, unit) in shipped() {
        let user = unit.lines().find_map(|line| line.strip_prefix("User="));
        let is_made = user.is_none_or(|user| made.lines().any(|line| line.starts_with(&format!("{user}:"))));
        assert!(is_made, "{name}: {user:?} is not in\n{made}");
    }
}
