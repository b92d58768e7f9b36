//! `status`: what is attached where, by whom, since when, really; and whether a proxy serves it. Asks the kernel and the
//! proxy (`facts.rs`), judges what they say (`judge.rs`), and prints it. Changes nothing.

pub(super) mod facts;
mod judge;
mod report;

use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Context;
use clap::{Args, ValueEnum};

use facts::{Facts, Proxy};
use report::Report;

use crate::config::{self, Overrides};

/// Of `listen.adminSocket`, unless it is configured.
const DEFAULT_SOCKET: &str = "/run/outrigger/admin.sock";

#[derive(Debug, Args)]
pub struct Status {
    /// The directory that the proxy's `interception.pins` names [default: as the proxy says]
    #[arg(long, value_name = "DIR")]
    pins: Option<PathBuf>,
    /// The cgroup that has to be intercepted [default: as the proxy says, or whatever the hooks are attached to]
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
    /// The file of the pod's network namespace, where the proxy's `interception.netns` names it [default: as the proxy says]
    #[arg(long, value_name = "FILE")]
    netns: Option<PathBuf>,
    /// The proxy's admin socket [default: /run/outrigger/admin.sock; with --pins, no proxy is asked]
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// The proxy's configuration file, which says all of these
    #[arg(long, value_name = "FILE", conflicts_with_all = ["pins", "cgroup", "netns", "admin_socket"])]
    config: Option<PathBuf>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Table,
    Json,
}

/// An error when something is not as it says, so that scripts can rely on the exit status.
pub(super) fn run(status: Status) -> anyhow::Result<()> {
    let output = status.output;
    let facts = status.facts()?;
    let report = Report::new(facts, SystemTime::now());
    match output {
        Output::Table => print!("{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    let problems = report.problems();
    anyhow::ensure!(
        problems == 0,
        "{problems} thing{} not as it should be",
        if problems == 1 { " is" } else { "s are" }
    );
    Ok(())
}

impl Status {
    fn facts(self) -> anyhow::Result<Facts> {
        let (mut pins, mut cgroup, mut netns) = (self.pins, self.cgroup, self.netns);
        let mut socket = self.admin_socket;
        if let Some(file) = &self.config {
            let role = config::load_proxy(Some(file), &Overrides::default())?.role;
            let kernel = role.datapath.with_context(|| {
                let file = file.display();
                format!("{file}: `interception: none`: this proxy attaches nothing, so there is nothing to look at")
            })?;
            // Where an agent serves the pod, the proxy says what that has told it.
            if role.agent.is_none() {
                (pins, cgroup, netns) = (Some(kernel.pins), Some(kernel.cgroup), kernel.netns);
            }
            socket = role.observe.admin_socket.map(|socket| socket.path);
        }
        if pins.is_none() && socket.is_none() {
            socket = Some(DEFAULT_SOCKET.into());
        }
        let proxy = socket.map(|socket| Proxy::ask(&socket));
        let told = proxy.as_ref().and_then(Proxy::told);
        let pins = match pins.or_else(|| told.and_then(|told| told.pins.clone())) {
            Some(pins) => pins,
            None => anyhow::bail!("{}", nowhere(proxy.as_ref())),
        };
        let cgroup = cgroup.or_else(|| told.and_then(|told| told.cgroup.clone()));
        let netns = netns.or_else(|| told.and_then(|told| told.netns.clone()));
        Ok(Facts::gather(pins, cgroup, netns, proxy))
    }
}

fn nowhere(proxy: Option<&Proxy>) -> String {
    const NAME: &str = "name its directory of pins by --pins DIR, or its file by --config FILE";
    match proxy {
        Some(Proxy {
            answer: Ok(_),
            socket,
        }) => format!(
            "the proxy at {} names no directory of pins: it attaches nothing (`interception: none`)",
            socket.display()
        ),
        Some(Proxy {
            answer: Err(error),
            socket,
        }) => {
            format!(
                "which proxy? None answers at {} ({error}); {NAME}",
                socket.display()
            )
        }
        None => format!("which proxy? {NAME}"),
    }
}
