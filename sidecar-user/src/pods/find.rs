//! Finds one pod: its cgroup by a path, a process or its UID, and its network namespace by the processes in it. Answers a pod or
//! says why there is none, never something like it.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::SockaddrStorage;
use tokio::time::{Instant, sleep};

use super::cgroup::{Member, PodCgroup};
use super::mounts::mounts;
use super::path::{PodPath, Qos};
use super::uid::PodUid;
use super::{Error, Roots};
use crate::datapath::{self, Netns, PodTarget, Process};

/// A runtime takes a few milliseconds from a container's cgroup to its namespaces.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub struct Finder {
    roots: Roots,
    /// Network namespaces that are no pod's.
    hosts: Vec<Netns>,
}

impl Finder {
    /// The namespace of this process is the host's, and so is that of process 1.
    pub fn new(roots: Roots) -> Result<Self, Error> {
        let own = "/proc/self/ns/net";
        let own = Netns::open(Path::new(own)).map_err(in_process(std::process::id()))?;
        let init = Netns::open(Path::new("/proc/1/ns/net"));
        let hosts = [own].into_iter().chain(init).collect();
        Ok(Self { roots, hosts })
    }

    /// The pod that a cgroup is or belongs to.
    pub fn by_path(&self, path: &Path) -> Result<PodCgroup, Error> {
        let path = path.canonicalize().map_err(Error::path("cgroup", path))?;
        PodCgroup::open(&self.climb(path)?)
    }

    /// The pod that a process is in.
    pub fn by_pid(&self, pid: u32) -> Result<PodCgroup, Error> {
        let process = Process::open(pid).map_err(in_process(pid))?;
        let process = process.ok_or(Error::Gone { pid })?;
        let lines = || {
            let lines = fs::read_to_string(format!("/proc/{pid}/cgroup"));
            match lines {
                Ok(lines) if process.has_its_number() => Ok(lines),
                Ok(_) => Err(Error::Gone { pid }),
                Err(_) if !process.has_its_number() => Err(Error::Gone { pid }),
                Err(source) => Err(Error::Process { pid, source }),
            }
        };
        let before = lines()?;
        let pod = self.of_lines(pid, &before)?;
        // The directory was opened by its path, which is this process's for as long as the process is in it.
        if lines()? != before {
            return Err(Error::Moved { pid });
        }
        Ok(pod)
    }

    pub fn by_uid(&self, uid: &PodUid, qos: Option<Qos>) -> Result<PodCgroup, Error> {
        self.roots.pod(uid, qos)
    }

    pub(super) fn of_lines(&self, pid: u32, lines: &str) -> Result<PodCgroup, Error> {
        let said = PodPath::of_process(&format!("process {pid}"), lines)?;
        let unified = lines.lines().find_map(|line| line.strip_prefix("0::"));
        let unified = unified.ok_or(Error::NoMount)?;
        let mounted = mounts()?.into_iter().find_map(|mount| mount.path_of(unified));
        match (mounted, said.uid) {
            (Some(path), _) => PodCgroup::open(&self.climb(path)?),
            // Beyond this process's cgroup namespace, but maybe not beyond what is mounted.
            (None, Some(uid)) => self.roots.pod(&uid, said.qos),
            (None, None) => Err(Error::Outside {
                pid,
                cgroup: unified.into(),
            }),
        }
    }

    fn climb(&self, path: PathBuf) -> Result<PathBuf, Error> {
        if let Some(pod) = self.roots.plain_pod(&path) {
            return Ok(pod);
        }
        let said = PodPath::parse(&path.to_string_lossy())?;
        match (said.directory, said.uid) {
            (Some(pod), _) => Ok(pod.into()),
            (None, Some(_)) => Err(Error::OneContainer { path }),
            (None, None) if self.roots.are_below(&path) => Err(Error::AbovePods { path }),
            (None, None) => Ok(path),
        }
    }

    /// The pod with its network namespace, which has one of the addresses, if any are known. `None`: no process is in it yet,
    /// and [`Watch`](super::Watch) tells when one is.
    ///
    /// Processes in the namespace of the host are passed over where others are in another one: every container begins there.
    pub fn target(&self, pod: &PodCgroup, addresses: &[IpAddr]) -> Result<Option<PodTarget>, Error> {
        let Some((pid, netns)) = self.netns(pod)? else {
            return Ok(None);
        };
        has_one_of(addresses, pod, pid, &netns)?;
        pod.target(netns).map(Some).map_err(in_process(pid))
    }

    /// As [`Finder::target`], but asks again for so long while the answer may be that of a container about to start.
    pub async fn settled(
        &self,
        pod: &PodCgroup,
        addresses: &[IpAddr],
        patience: Duration,
    ) -> Result<Option<PodTarget>, Error> {
        let until = Instant::now() + patience;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.target(pod, addresses) {
                Err(error) if error.may_pass() && Instant::now() < until => sleep(pause).await,
                answer => return answer,
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    fn netns(&self, pod: &PodCgroup) -> Result<Option<(u32, Netns)>, Error> {
        let (mut found, mut of_host): (Option<(u32, Netns)>, _) = (None, None);
        for member in pod.members()? {
            let Some(netns) = netns_of(pod, &member)? else {
                continue;
            };
            if self.hosts.iter().any(|host| host.inode() == netns.inode()) {
                of_host.get_or_insert(member.pid);
                continue;
            }
            match &found {
                // The first one is open, so that its number is nobody else's.
                Some((pid, known)) if known.inode() != netns.inode() => {
                    return Err(Error::TwoNamespaces {
                        path: pod.path().into(),
                        first: (*pid, known.inode()),
                        second: (member.pid, netns.inode()),
                    });
                }
                Some(_) => {}
                None => found = Some((member.pid, netns)),
            }
        }
        match of_host {
            Some(pid) if found.is_none() => Err(Error::HostNamespace {
                path: pod.path().into(),
                pid,
            }),
            _ => Ok(found),
        }
    }
}

/// The namespace of a process that was in the pod when it was asked. `None`: it has ended, or gone elsewhere.
pub(super) fn netns_of(pod: &PodCgroup, member: &Member) -> Result<Option<Netns>, Error> {
    let pid = member.pid;
    let Some(process) = Process::open(pid).map_err(in_process(pid))? else {
        return Ok(None);
    };
    let Some(netns) = process.netns().map_err(in_process(pid))? else {
        return Ok(None);
    };
    // In this order: the number in the cgroup was that of the process only if it still has it.
    let is_member = pod.still_has(member)? && process.has_its_number();
    Ok(is_member.then_some(netns))
}

fn has_one_of(addresses: &[IpAddr], pod: &PodCgroup, pid: u32, netns: &Netns) -> Result<(), Error> {
    if addresses.is_empty() {
        return Ok(());
    }
    let found = netns.within(own_addresses).map_err(in_process(pid))?;
    let found = found.map_err(|source| Error::Process { pid, source })?;
    if addresses
        .iter()
        .any(|wanted| found.contains(&wanted.to_canonical()))
    {
        return Ok(());
    }
    Err(Error::OtherAddresses {
        path: pod.path().into(),
        pid,
        wanted: addresses.into(),
        found: found.into_iter().collect(),
    })
}

pub fn own_addresses() -> std::io::Result<BTreeSet<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    Ok(interfaces
        .filter_map(|interface| ip(&interface.address?))
        .collect())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| Some(IpAddr::V6(address.as_sockaddr_in6()?.ip())))
}

fn in_process(pid: u32) -> impl FnOnce(datapath::Error) -> Error {
    move |error| Error::Namespace {
        pid,
        reason: error.to_string(),
    }
}
