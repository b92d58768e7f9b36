//! The answer: one structure for programs, which reads as a table for people.

use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::Serialize;

use super::facts::{Facts, Told};
use super::judge::{Finding, judge};
use crate::cli::table::{Table, rough, since};
use crate::datapath::{self, Place};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pins: PathBuf,
    /// Of the programs' maps; `null` where there are none that this version can read.
    abi: Option<u32>,
    /// The version of this command.
    version: &'static str,
    cgroup: Option<PathBuf>,
    /// Where it is named, and not that of the proxy alone.
    netns: Option<PathBuf>,
    hooks: Vec<Hook>,
    proxy: Option<Proxy>,
    findings: Vec<Finding>,
    #[serde(skip)]
    now: SystemTime,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Hook {
    program: &'static str,
    state: &'static str,
    target: Option<String>,
    since: Option<String>,
    program_id: Option<u32>,
    loaded: Option<String>,
    loaded_by_uid: Option<u32>,
    #[serde(skip)]
    times: [Option<SystemTime>; 2],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Proxy {
    admin_socket: PathBuf,
    answers: bool,
    workload: Option<String>,
    pid: Option<i32>,
    uptime_seconds: Option<u64>,
    ready: bool,
}

impl Report {
    pub(super) fn new(facts: Facts, now: SystemTime) -> Self {
        let findings = judge(&facts);
        let hooks = facts.attached.as_ref().map(|found| found.hooks.as_slice());
        let hooks = hooks.unwrap_or_default().iter();
        let hooks = hooks.map(|hook| Hook::new(hook, &facts)).collect();
        let proxy = facts.proxy.as_ref().map(|proxy| {
            let told = proxy.told();
            Proxy {
                admin_socket: proxy.socket.clone(),
                answers: told.is_some(),
                workload: told.map(|told| told.workload.clone()),
                pid: told.and_then(|told| told.pid),
                uptime_seconds: told.and_then(|told| told.up).map(|up| up.as_secs()),
                ready: told.is_some_and(Told::is_ready),
            }
        });
        Self {
            abi: facts.attached.ok().and_then(|found| found.abi),
            version: env!("CARGO_PKG_VERSION"),
            netns: facts.named_netns.map(|named| named.path),
            cgroup: facts.cgroup.map(|cgroup| cgroup.path).or(facts.attached_to),
            pins: facts.pins,
            hooks,
            proxy,
            findings,
            now,
        }
    }

    pub(super) fn problems(&self) -> usize {
        self.findings.iter().filter(|finding| finding.is_problem).count()
    }
}

impl Hook {
    fn new(hook: &datapath::Hook, facts: &Facts) -> Self {
        let state = match hook.place {
            Place::Cgroup(_) | Place::Netns(_) => "attached",
            Place::Gone => "detached",
            Place::Absent => "absent",
            Place::Unknown(_) => "unknown",
        };
        let target = match hook.place {
            Place::Cgroup(id) => Some(match &facts.attached_to {
                Some(path) => path.display().to_string(),
                None => format!("cgroup {id}, removed"),
            }),
            Place::Netns(inode) => Some(format!("net:[{inode}]")),
            _ => None,
        };
        let loaded = hook.loaded.as_ref();
        let at = loaded.and_then(|loaded| loaded.at);
        let written = |time: SystemTime| humantime::format_rfc3339_seconds(time).to_string();
        Self {
            program: hook.program,
            state,
            target,
            since: hook.since.map(written),
            program_id: loaded.map(|loaded| loaded.id),
            loaded: at.map(written),
            loaded_by_uid: loaded.and_then(|loaded| loaded.by_uid),
            times: [hook.since, at],
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        writeln!(f, "pins     {}", self.pins.display())?;
        let cgroup = self.cgroup.as_ref().map(|path| path.display().to_string());
        writeln!(f, "cgroup   {}", or_dash(cgroup))?;
        if let Some(netns) = &self.netns {
            writeln!(f, "netns    {}", netns.display())?;
        }
        let abi = self.abi.map(|abi| abi.to_string());
        writeln!(
            f,
            "abi      {} (this is outrigger {})",
            or_dash(abi),
            self.version
        )?;
        writeln!(f, "proxy    {}", self.proxy_line())?;
        if !self.hooks.is_empty() {
            let mut table = Table::new(["HOOK", "STATE", "TARGET", "SINCE", "PROGRAM", "LOADED", "UID"]);
            for hook in &self.hooks {
                let [pinned, loaded] = hook.times.map(|time| time.map(|time| since(time, self.now)));
                table.row([
                    hook.program.to_owned(),
                    hook.state.to_owned(),
                    or_dash(hook.target.clone()),
                    or_dash(pinned),
                    or_dash(hook.program_id.map(|id| id.to_string())),
                    or_dash(loaded),
                    or_dash(hook.loaded_by_uid.map(|uid| uid.to_string())),
                ]);
            }
            write!(f, "\n{table}")?;
        }
        for finding in &self.findings {
            let mark = if finding.is_problem { "problem" } else { "note" };
            write!(f, "\n{mark}: {}\n  remedy: {}\n", finding.what, finding.remedy)?;
        }
        Ok(())
    }
}

impl Report {
    fn proxy_line(&self) -> String {
        let Some(proxy) = &self.proxy else {
            return "not asked; name it by --admin-socket".to_owned();
        };
        if !proxy.answers {
            return format!("none answers at {}", proxy.admin_socket.display());
        }
        let mut words = vec![proxy.workload.clone().unwrap_or_default()];
        words.extend(proxy.pid.map(|pid| format!("pid {pid}")));
        words.extend(
            proxy
                .uptime_seconds
                .map(|up| format!("up {}", rough(std::time::Duration::from_secs(up)))),
        );
        words.push(if proxy.ready { "ready" } else { "not ready" }.to_owned());
        words.join(", ")
    }
}
