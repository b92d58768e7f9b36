//! Is this host fit? Looks, loads the real programs once, and attaches nothing.

use std::fs;

use super::{links, object};

/// One thing that the data path needs.
#[derive(Clone, Debug)]
pub struct Finding {
    pub name: &'static str,
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do about it when it is not `ok`.
    pub remedy: &'static str,
}

/// Everything that attaching needs, in the order in which the absence of one explains the next.
pub fn check() -> Vec<Finding> {
    vec![kernel(), capabilities(), cgroup2(), bpffs(), programs()]
}

fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split('.').map(|part| {
        let digits = part.split(|c: char| !c.is_ascii_digit()).next();
        digits.and_then(|digits| digits.parse::<u32>().ok()).unwrap_or(0)
    });
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    Finding {
        name: "kernel",
        ok: version >= (5, 15),
        detail: release.into(),
        remedy: "use Linux 5.15 or later, better 6.1",
    }
}

fn capabilities() -> Finding {
    const CAP_NET_ADMIN: u32 = 12;
    const CAP_SYS_ADMIN: u32 = 21;
    const CAP_BPF: u32 = 39;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let has = |capability: u32| effective >> capability & 1 == 1;
    let missing: Vec<&str> = [
        ("CAP_BPF", has(CAP_BPF) || has(CAP_SYS_ADMIN)),
        ("CAP_NET_ADMIN", has(CAP_NET_ADMIN)),
    ]
    .into_iter()
    .filter_map(|(name, present)| (!present).then_some(name))
    .collect();
    Finding {
        name: "capabilities",
        ok: missing.is_empty(),
        detail: if missing.is_empty() {
            "CAP_BPF and CAP_NET_ADMIN".into()
        } else {
            format!("without {}", missing.join(" and "))
        },
        remedy: "run as root, or grant CAP_BPF and CAP_NET_ADMIN",
    }
}

fn cgroup2() -> Finding {
    mount(
        "cgroup2",
        "cgroup2",
        "mount one (mount -t cgroup2 none /sys/fs/cgroup/unified), or boot with systemd.unified_cgroup_hierarchy=1",
    )
}

fn bpffs() -> Finding {
    mount("bpffs", "bpf", "mount one: mount -t bpf bpf /sys/fs/bpf")
}

fn mount(name: &'static str, kind: &str, remedy: &'static str) -> Finding {
    let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
    let at = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let at = fields.next()?;
        (fields.next() == Some(kind)).then(|| at.to_owned())
    });
    Finding {
        name,
        ok: at.is_some(),
        detail: at.unwrap_or_else(|| "not mounted".into()),
        remedy,
    }
}

fn programs() -> Finding {
    let loaded = object::load(None, false).and_then(|mut ebpf| links::load_all(&mut ebpf));
    Finding {
        name: "programs",
        ok: loaded.is_ok(),
        detail: match loaded {
            Ok(()) => format!("the kernel accepts all {}", links::HOOKS.len()),
            Err(error) => error.to_string(),
        },
        remedy: "grant the capabilities above; if they are there, the kernel lacks a feature or this is a bug to report",
    }
}
