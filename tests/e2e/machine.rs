//! The units of `deploy/systemd` on a machine with a real systemd, by the commands of docs/host.md: a slice starts, a reload
//! loses no connection, and a sidecar that is killed comes back.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use harness::apps::script::Script;
use harness::apps::{self, Attempt, Outcome};
use harness::machine::Files;
use harness::{Fabric, Machine, Pod, Process, wait};

use crate::host::{commands, root, yaml};

const SIDECAR: &str = "outrigger-sidecar@shop.service";
const OPEN: u16 = 9000;
const CLOSED: u16 = 9001;

/// A machine with the slice `shop`, whose only service dials a server outside all the time.
struct Shop {
    machine: Machine,
    log: PathBuf,
    _server: Process,
    _fabric: Fabric,
}

impl Shop {
    /// By the page, as far as a sidecar that is ready; with other words in its unit.
    fn start(kind: &str, change: impl Fn(String) -> Result<String>) -> Result<Self> {
        let fabric = Fabric::new(kind)?;
        let outside = fabric.pod("outside")?;
        let server = apps::echo(&outside, OPEN)?;
        fabric.node().sysctl("net/ipv4/ip_forward", "1")?;
        let log = fabric.scratch().join("attempts.log");
        let files = Files::new(&fabric)?;
        for file in fs::read_dir(root().join("deploy/systemd"))? {
            let (path, name) = file.map(|file| (file.path(), file.file_name()))?;
            let name = name.to_string_lossy().into_owned();
            let text = fs::read_to_string(path)?;
            match &*name {
                "outrigger.sysusers" => files.write(&name, &text)?,
                "meshed.conf" => files.write("units/web.service.d/meshed.conf", &text)?,
                "outrigger-sidecar@.service" => files.write(&format!("units/{name}"), &change(text)?)?,
                _ => files.write(&format!("units/{name}"), &text)?,
            }
        }
        let to_log = format!(
            "[Service]\nStandardOutput=append:{0}/units.log\nStandardError=inherit\n",
            fabric.scratch().display()
        );
        for unit in ["outrigger-control.service", "outrigger-sidecar@.service"] {
            files.write(&format!("units/{unit}.d/log.conf"), &to_log)?;
        }
        let page = fs::read_to_string(root().join("docs/host.md"))?;
        let shown = yaml(&page);
        files.write("outrigger/shop/proxy.yaml", shown[0])?;
        files.write("outrigger/registry.yaml", shown[1])?;
        files.write("outrigger/shop/network.env", &commands(&page, "ADDRESS=")?)?;
        files.write("units/web.service", &web(&outside, &log)?)?;

        let machine = files.boot()?;
        let shop = Self {
            machine,
            log,
            _server: server,
            _fabric: fabric,
        };
        let started = || -> Result<()> {
            shop.machine
                .shell("systemd-sysusers /etc/outrigger.sysusers; systemctl start outrigger-control")?;
            shop.machine
                .shell(&commands(&page, "install -m 0644 /var/lib/outrigger-control")?)?;
            shop.machine.shell(&format!("systemctl start {SIDECAR} web"))?;
            Ok(())
        };
        started().with_context(|| shop.account())?;
        shop.until_served(UNIX_EPOCH)?;
        Ok(shop)
    }

    fn attempts(&self) -> Vec<Attempt> {
        Attempt::all(&fs::read_to_string(&self.log).unwrap_or_default())
    }

    fn until_served(&self, since: SystemTime) -> Result<()> {
        wait::until("the service's connections are served", wait::SOON, || {
            let mut all = self.attempts().into_iter();
            all.any(|one| one.begun > since && one.outcome == Outcome::Served)
        })
        .with_context(|| self.account())
    }

    /// Of the sidecar.
    fn show(&self, property: &str) -> Result<String> {
        self.machine.show(SIDECAR, property)
    }

    fn until(&self, what: &str, is_so: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        wait::until_some(what, wait::SOON, || Ok(is_so(self)?.then_some(()))).with_context(|| self.account())
    }

    /// Asks for what was seen so far.
    fn account(&self) -> String {
        let log = self.log.with_file_name("units.log");
        let status = self.machine.run("systemctl", ["status", "--no-pager", SIDECAR]);
        format!(
            "{}\n{}\n{}",
            self.machine.last_words(),
            fs::read_to_string(log).unwrap_or_default(),
            status.map(|said| said.stdout).unwrap_or_default()
        )
    }
}

fn web(outside: &Pod, log: &std::path::Path) -> Result<String> {
    let servers = [OPEN, CLOSED].map(|port| format!("{} {port}", outside.ipv4()));
    let script = Script::Attempts.command(outside)?;
    let script = script
        .get_args()
        .next()
        .context("the script")?
        .display()
        .to_string();
    Ok(format!(
        "[Service]\nExecStart=/usr/bin/python3 {script} 100 /run/never words {}\nStandardOutput=append:{}\n",
        servers.join(" "),
        log.display()
    ))
}

/// The watchdog's timeout, so that a test sees what comes of it.
fn watched(unit: String) -> Result<String> {
    ensure!(
        unit.contains("WatchdogSec=30\n") && unit.contains("WATCHDOG_USEC=30000000 "),
        "{unit}"
    );
    Ok(unit
        .replace("WatchdogSec=30\n", "WatchdogSec=6\n")
        .replace("WATCHDOG_USEC=30000000 ", "WATCHDOG_USEC=6000000 "))
}

#[test]
fn a_reload_lets_another_process_take_the_slice_over_and_no_connection_notices() -> Result<()> {
    let shop = Shop::start("machine", watched)?;
    let first = shop.show("MainPID")?;
    assert_eq!(shop.show("StatusText")?, "ready");
    for _ in 0..2 {
        let before = shop.show("MainPID")?;
        shop.machine.run("systemctl", ["reload", SIDECAR])?.ok()?;
        shop.until("another process is the main one", |shop| {
            Ok(shop.show("MainPID")? != before)
        })?;
        shop.until("the one before has ended", |shop| {
            Ok(!shop
                .machine
                .run("test", ["-e", &format!("/proc/{before}")])?
                .status
                .success())
        })?;
    }
    // The unit's filter of system calls lets it give up what it was started with.
    let status = format!("/proc/{}/status", shop.show("MainPID")?);
    let status = shop.machine.run("cat", [status])?.ok()?;
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    // By the new one: systemd kills a service whose watchdog is silent for 6 s, in which it pings three times.
    let mut pings = BTreeSet::new();
    wait::until_some("the watchdog is told that it lives", wait::SOON, || {
        pings.insert(shop.show("WatchdogTimestampMonotonic")?);
        Ok((pings.len() > 4).then_some(()))
    })
    .with_context(|| shop.account())?;
    assert_ne!(shop.show("MainPID")?, first);
    assert_eq!(
        [shop.show("SubState")?, shop.show("NRestarts")?],
        ["running", "0"],
        "{}",
        shop.account()
    );
    let status = "outrigger status --config /etc/outrigger/shop/proxy.yaml";
    let said = shop.machine.shell(status)?;
    assert!(said.contains(", ready"), "{said}");
    shop.until_served(SystemTime::now())?;
    let all = shop.attempts();
    let as_before = |one: &&Attempt| match one.server.port() {
        OPEN => one.outcome == Outcome::Served,
        _ => one.outcome == Outcome::Refused("ECONNREFUSED".into()),
    };
    let others: Vec<_> = all.iter().filter(|one| !as_before(one)).collect();
    assert!(others.is_empty(), "of {}: {others:?}", all.len());
    Ok(())
}

#[test]
fn a_sidecar_that_is_killed_is_started_again_and_tells_the_slice_nothing_false() -> Result<()> {
    let shop = Shop::start("machine-killed", Ok)?;
    let before = shop.show("MainPID")?;
    shop.machine.shell(&format!(
        "systemctl kill --kill-whom=main --signal=KILL {SIDECAR}"
    ))?;
    let killed = SystemTime::now();
    shop.until_served(killed)?;
    let first = |all: &[Attempt]| {
        let served = all
            .iter()
            .filter(|one| one.begun > killed && one.outcome == Outcome::Served);
        served
            .filter_map(|one| one.ended.duration_since(killed).ok())
            .min()
    };
    let all = shop.attempts();
    println!("served again after {:?}", first(&all).unwrap_or_default());
    shop.until("it was started again", |shop| {
        Ok(shop.show("NRestarts")? == "1" && shop.show("MainPID")? != before)
    })?;
    let closed: Vec<SocketAddr> = all
        .iter()
        .filter(|one| !matches!(one.outcome, Outcome::Refused(_)))
        .map(|one| one.server)
        .filter(|at| at.port() == CLOSED)
        .collect();
    assert!(closed.is_empty(), "{closed:?}");
    Ok(())
}
