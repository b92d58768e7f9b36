//! Asks the kernel, `/proc` and the proxy. Judges nothing.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use serde_json::Value;

use crate::datapath::{self, Attached, Place};
use crate::{config, plugin};

pub(super) struct Facts {
    pub(super) pins: PathBuf,
    /// An error is a sentence with its remedy.
    pub(super) attached: Result<Attached, String>,
    pub(super) cgroup: Option<Cgroup>,
    /// Where the cgroup is that the hooks are attached to, if it is anywhere.
    pub(super) attached_to: Option<PathBuf>,
    /// The one that is named as the pod's.
    pub(super) named_netns: Option<NamedNetns>,
    pub(super) netns: Option<Netns>,
    pub(super) proxy: Option<Proxy>,
    pub(super) addresses: Option<Addresses>,
}

/// The one that has to be intercepted.
pub(super) struct Cgroup {
    pub(super) path: PathBuf,
    /// `None`: it is not there.
    pub(super) id: Option<u64>,
}

/// A network namespace by its file, for a pod that is attached to from outside of it.
pub(super) struct NamedNetns {
    pub(super) path: PathBuf,
    /// `None`: it is not there.
    pub(super) inode: Option<u32>,
}

/// Where the pod is.
pub(super) struct Netns {
    pub(super) inode: u32,
    /// Who is in it.
    pub(super) of: String,
}

pub(super) struct Proxy {
    pub(super) socket: PathBuf,
    pub(super) answer: Result<Told, String>,
}

/// What a living proxy says of itself.
#[derive(Default)]
pub(super) struct Told {
    pub(super) pid: Option<i32>,
    pub(super) up: Option<Duration>,
    pub(super) workload: String,
    /// What keeps it from being ready.
    pub(super) missing: Vec<String>,
    pub(super) pins: Option<PathBuf>,
    pub(super) cgroup: Option<PathBuf>,
    pub(super) netns: Option<PathBuf>,
    pub(super) addresses: Vec<IpAddr>,
}

/// Those that the proxy takes for the pod's, and those of its interfaces now.
pub(super) struct Addresses {
    pub(super) known: Vec<IpAddr>,
    pub(super) there: Vec<IpAddr>,
}

impl Facts {
    pub(super) fn gather(
        pins: PathBuf,
        cgroup: Option<PathBuf>,
        netns: Option<PathBuf>,
        proxy: Option<Proxy>,
    ) -> Self {
        let named_netns = netns.map(|path| NamedNetns {
            inode: datapath::Netns::open(&path)
                .ok()
                .and_then(|netns| netns.inode().try_into().ok()),
            path,
        });
        let attached = datapath::attached(&pins).map_err(|error| crate::error_chain(&error));
        let hooks = attached
            .as_ref()
            .map(|found| found.hooks.as_slice())
            .unwrap_or_default();
        let attached_to = hooks.iter().find_map(|hook| match hook.place {
            Place::Cgroup(id) => datapath::cgroup_of(id),
            _ => None,
        });
        let told = proxy.as_ref().and_then(Proxy::told);
        let pid = told.and_then(|told| told.pid);
        let of_pod = cgroup.as_ref().or(attached_to.as_ref());
        let netns = match pid {
            Some(pid) => self::netns(pid, "the proxy"),
            None => of_pod
                .and_then(|cgroup| first_process(cgroup))
                .and_then(|pid| self::netns(pid, "process")),
        };
        let there = pid.and_then(|pid| addresses(pid).ok());
        let addresses = told.zip(there).map(|(told, there)| Addresses {
            known: told.addresses.clone(),
            there,
        });
        Self {
            attached,
            cgroup: cgroup.map(|path| Cgroup {
                id: datapath::cgroup_id(&path).ok(),
                path,
            }),
            attached_to,
            named_netns,
            netns,
            addresses,
            pins,
            proxy,
        }
    }
}

impl Told {
    pub(super) fn is_ready(&self) -> bool {
        self.missing.is_empty()
    }
}

impl Proxy {
    pub(super) fn ask(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            answer: ask(socket).map_err(|error| error.to_string()),
        }
    }

    pub(super) fn told(&self) -> Option<&Told> {
        self.answer.as_ref().ok()
    }
}

fn ask(socket: &Path) -> io::Result<Told> {
    let invalid = |error: serde_json::Error| io::Error::new(io::ErrorKind::InvalidData, error);
    // Of a listening socket: the process that made it listen.
    let peer = getsockopt(&UnixStream::connect(socket)?, PeerCredentials).ok();
    // 0: it is of a namespace of processes that this one does not see.
    let pid = peer.map(|peer| peer.pid()).filter(|pid| *pid != 0);
    let (status, body) = plugin::ask(socket, "/readyz")?;
    let unmet = |line: &str| line.strip_prefix("[-]").map(str::to_owned);
    let mut missing: Vec<String> = body.lines().filter_map(unmet).collect();
    if status != 200 && missing.is_empty() {
        missing.push(body.lines().next().unwrap_or_default().to_owned());
    }
    let (_, shown) = plugin::ask(socket, "/config")?;
    let shown: Value = serde_json::from_str(&shown).map_err(invalid)?;
    let path = |name: &str| Some(PathBuf::from(shown["interception"][name].as_str()?));
    let addresses = shown["workload"]["addresses"].as_array().into_iter().flatten();
    Ok(Told {
        pid,
        up: pid.and_then(uptime),
        workload: shown["workload"]["name"].as_str().unwrap_or_default().to_owned(),
        missing,
        pins: path("pins").map(|pins| seen(pid, pins)),
        cgroup: path("cgroup").map(|cgroup| seen(pid, cgroup)),
        netns: path("netns").map(|netns| seen(pid, netns)),
        addresses: addresses.filter_map(|ip| ip.as_str()?.parse().ok()).collect(),
    })
}

/// A path of the proxy's, which may have file systems of its own, and numbers of processes.
fn seen(pid: Option<i32>, path: PathBuf) -> PathBuf {
    let Some(pid) = pid else { return path };
    if let Some(number) = descriptor(&path) {
        let theirs = PathBuf::from(format!("/proc/{pid}/fd/{number}"));
        // What it was opened by, where this process sees the same there.
        return match fs::canonicalize(&theirs) {
            Ok(path) if file(&path) == file(&theirs) => path,
            _ => theirs,
        };
    }
    let inside = PathBuf::from(format!("/proc/{pid}/root{}", path.display()));
    match file(&inside) {
        Some(theirs) if Some(theirs) != file(&path) => inside,
        _ => path,
    }
}

fn file(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).map(|file| (file.dev(), file.ino())).ok()
}

/// Of the proxy's own, by which it names what an agent has given to it.
fn descriptor(path: &Path) -> Option<u32> {
    let (_, number) = path.to_str()?.strip_prefix("/proc/")?.split_once("/fd/")?;
    number.parse().ok()
}

fn netns(pid: i32, of: &str) -> Option<Netns> {
    let inode = fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino();
    Some(Netns {
        inode: u32::try_from(inode).ok()?,
        of: format!("{of} ({pid})"),
    })
}

/// In the cgroup or below.
pub(in crate::cli) fn first_process(cgroup: &Path) -> Option<i32> {
    let here = fs::read_to_string(cgroup.join("cgroup.procs")).ok()?;
    if let Some(pid) = here.lines().find_map(|line| line.parse().ok()) {
        return Some(pid);
    }
    let below = fs::read_dir(cgroup).ok()?.flatten();
    below
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .find_map(|entry| first_process(&entry.path()))
}

/// Those of the interfaces in the namespace of a process. A thread that has entered it ends there.
fn addresses(pid: i32) -> io::Result<Vec<IpAddr>> {
    let netns = File::open(format!("/proc/{pid}/ns/net"))?;
    let look = move || {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        config::own_addresses()
    };
    let looked = thread::spawn(look).join();
    looked.unwrap_or_else(|_| Err(io::Error::other("the look at the interfaces ended early")))
}

/// proc(5): the start in ticks since boot, the 20th field behind the name. A tick of user space is 10 ms on every machine
/// that the kernel programs are built for.
fn uptime(pid: i32) -> Option<Duration> {
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let started: f64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let booted = fs::read_to_string("/proc/uptime").ok()?;
    let booted: f64 = booted.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_secs_f64((booted - started / TICKS).max(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_an_uptime_a_namespace_and_addresses() {
        let own = std::process::id().cast_signed();
        let up = uptime(own).unwrap();
        assert!(
            up < uptime(1).unwrap() + Duration::from_millis(20),
            "older than process 1: {up:?}"
        );
        assert!(netns(own, "this").unwrap().of.starts_with("this ("));
        assert_eq!(addresses(own).unwrap(), config::own_addresses().unwrap());
        assert!(uptime(i32::MAX).is_none());
    }

    #[test]
    fn a_path_that_all_see_alike_is_itself() {
        let own = std::process::id().cast_signed();
        for path in ["/proc/version", "/no/such/file"] {
            assert_eq!(seen(Some(own), path.into()), Path::new(path));
        }
    }

    #[test]
    fn a_path_by_a_descriptor_of_the_proxy_is_that_of_the_file() {
        use std::os::fd::AsRawFd;

        let own = std::process::id().cast_signed();
        let directory = fs::canonicalize("/proc/sys/kernel").unwrap();
        let number = File::open(&directory).unwrap();
        // As a process says it that is number 1 to itself.
        let said = PathBuf::from(format!("/proc/1/fd/{}", number.as_raw_fd()));
        assert_eq!(seen(Some(own), said), directory);
        for other in ["/proc/1/fd", "/proc/1/fd/x", "/sys/fs/bpf/fd/3"] {
            assert_eq!(descriptor(Path::new(other)), None, "{other}");
        }
    }
}
