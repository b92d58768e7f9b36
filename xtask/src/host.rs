//! Is this machine fit to run eBPF, namespaces and cgroups? Says precisely what is missing.
//!
//! Installs nothing and changes nothing: what can be installed is `setup`'s table.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

/// What the programs need is all there, last of it that sk_lookup knows the interface.
const OLDEST_KERNEL: (u32, u32) = (5, 17);

/// Capabilities by bit number, from `linux/capability.h`.
const CAPABILITIES: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN"), (39, "CAP_BPF")];

/// What the checks look at, apart from the machine so that they can be tested.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    uid: u32,
    /// The effective capability set.
    capabilities: u64,
    /// As `uname -r` says it.
    release: String,
    btf: bool,
    /// `/proc/mounts`.
    mounts: String,
}

/// One thing that this machine lacks, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lack {
    what: String,
    remedy: String,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// An error that lists everything this machine lacks to do `purpose`.
pub(crate) fn demand_fit(purpose: &str) -> Result<()> {
    let lacks = Host::read().lacks();
    if lacks.is_empty() {
        return Ok(());
    }
    let list: String = lacks.iter().map(|lack| format!("\n  - {lack}")).collect();
    bail!("{purpose} cannot run on this machine:{list}")
}

impl Host {
    pub(crate) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            uid: status_field(&status, "Uid:")
                .and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok())
                .unwrap_or(u32::MAX),
            capabilities: status_field(&status, "CapEff:")
                .and_then(|set| u64::from_str_radix(set, 16).ok())
                .unwrap_or(0),
            release: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            mounts: fs::read_to_string("/proc/mounts").unwrap_or_default(),
        }
    }

    pub(crate) fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Everything that is missing, so that one run tells all.
    pub(crate) fn lacks(&self) -> Vec<Lack> {
        [
            self.rights(),
            self.kernel(),
            self.type_information(),
            self.control_groups(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn rights(&self) -> Option<Lack> {
        if !self.is_root() {
            return Some(Lack {
                what: format!(
                    "user {} may not attach eBPF programs or make network namespaces",
                    self.uid
                ),
                remedy: "run it as root: sudo env PATH=\"$PATH\" HOME=\"$HOME\" cargo xtask …".to_owned(),
            });
        }
        let absent: Vec<_> = CAPABILITIES
            .iter()
            .filter(|(bit, _)| self.capabilities >> bit & 1 == 0)
            .map(|(_, name)| *name)
            .collect();
        (!absent.is_empty()).then(|| Lack {
            what: format!(
                "root lacks {} here, as in an unprivileged container",
                absent.join(", ")
            ),
            remedy: "run it on the host, in a virtual machine or in a privileged container".to_owned(),
        })
    }

    fn kernel(&self) -> Option<Lack> {
        let (major, minor) = OLDEST_KERNEL;
        let remedy = format!("boot a kernel of {major}.{minor} or later; 6.1 or later is supported best");
        match version(&self.release) {
            Some(found) if found >= OLDEST_KERNEL => None,
            Some(_) => Some(Lack {
                what: format!("the kernel, {}, is too old", self.release),
                remedy,
            }),
            None => Some(Lack {
                what: format!("the kernel's release {:?} is not a version", self.release),
                remedy,
            }),
        }
    }

    fn type_information(&self) -> Option<Lack> {
        (!self.btf).then(|| Lack {
            what: "the kernel has no type information (/sys/kernel/btf/vmlinux)".to_owned(),
            remedy: "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as Debian's are".to_owned(),
        })
    }

    fn control_groups(&self) -> Option<Lack> {
        let writable = self.mounts.lines().any(|line| {
            let mut fields = line.split_whitespace().skip(2);
            fields.next() == Some("cgroup2")
                && fields
                    .next()
                    .is_some_and(|options| options.split(',').any(|option| option == "rw"))
        });
        (!writable).then(|| Lack {
            what: "no writable cgroup2 hierarchy is mounted".to_owned(),
            remedy:
                "mount one: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified"
                    .to_owned(),
        })
    }
}

fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

/// `6.1.0-18-cloud-amd64` is (6, 1).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit() -> Host {
        Host {
            uid: 0,
            capabilities: u64::MAX,
            release: "6.1.0-18-cloud-amd64".to_owned(),
            btf: true,
            mounts: "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev 0 0\n".to_owned(),
        }
    }

    fn only_lack(host: &Host) -> String {
        let lacks = host.lacks();
        assert_eq!(lacks.len(), 1, "{lacks:?}");
        lacks[0].to_string()
    }

    #[test]
    fn a_fit_machine_lacks_nothing() {
        assert_eq!(fit().lacks(), []);
    }

    #[test]
    fn an_ordinary_user_is_told_to_become_root() {
        let host = Host {
            uid: 1000,
            capabilities: 0,
            ..fit()
        };
        assert!(only_lack(&host).contains("user 1000"));
    }

    #[test]
    fn a_crippled_root_is_told_which_capability_is_absent() {
        let host = Host {
            capabilities: !(1 << 39),
            ..fit()
        };
        assert!(only_lack(&host).contains("root lacks CAP_BPF here"));
    }

    #[test]
    fn the_oldest_kernel_is_a_limit_on_both_numbers() {
        for (release, fits) in [
            ("5.17.0", true),
            ("5.16.21-suse", false),
            ("6.1", true),
            ("4.19.0", false),
            ("10.0", true),
        ] {
            let host = Host {
                release: release.to_owned(),
                ..fit()
            };
            assert_eq!(host.lacks().is_empty(), fits, "{release}");
        }
        assert!(
            only_lack(&Host {
                release: String::new(),
                ..fit()
            })
            .contains("not a version")
        );
    }

    #[test]
    fn a_kernel_without_btf_is_named() {
        assert!(only_lack(&Host { btf: false, ..fit() }).contains("CONFIG_DEBUG_INFO_BTF"));
    }

    #[test]
    fn only_a_writable_cgroup2_will_do() {
        for mounts in [
            "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0",
            "cgroup2 /sys/fs/cgroup cgroup2 ro,nosuid 0 0",
        ] {
            assert!(
                only_lack(&Host {
                    mounts: mounts.to_owned(),
                    ..fit()
                })
                .contains("cgroup2")
            );
        }
    }

    #[test]
    fn one_run_tells_everything() {
        let host = Host {
            uid: 1,
            capabilities: 0,
            release: "4.4".to_owned(),
            btf: false,
            mounts: String::new(),
        };
        assert_eq!(host.lacks().len(), 4);
    }
}
