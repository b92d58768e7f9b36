//! Is this host fit? Looks, loads the real programs once, and attaches nothing.

use std::fs;
use std::path::Path;

use sidecar_ebpf::abi::program;

use super::super::capabilities::Capabilities;
use super::super::{Error, PodTarget};
use super::neighbours::neighbours;
use super::object::Features;
use super::{Foreign, Order, links, object};

/// One thing that the data path needs, or can use.
#[derive(Clone, Debug)]
pub struct Finding {
    pub name: &'static str,
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What to do about it when it is not [`State::Ok`].
    pub remedy: &'static str,
    /// What the kernel had to say, where that is more than a line; else empty.
    pub report: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ok,
    /// Interception works, and applications notice more of it.
    Degraded,
    /// No interception without it.
    Missing,
}

/// Everything that attaching needs, in the order in which the absence of one explains the next, and what applications
/// notice the absence of.
///
/// With a cgroup, also who else is attached there and to the network namespace, by default that of the calling thread.
pub fn check(cgroup: Option<&Path>, netns: Option<&Path>) -> Vec<Finding> {
    let held = Capabilities::own();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let features = Features::probe();
    let mut findings = vec![
        kernel(release.trim()),
        capabilities(held),
        cgroup2(),
        bpffs(),
        programs(features),
        raw_socket(held),
    ];
    findings.extend(optional(features));
    findings.extend(cgroup.map(|cgroup| others(cgroup, netns)));
    findings
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split('.').map(|part| {
        let digits = part.split(|c: char| !c.is_ascii_digit()).next();
        digits.and_then(|digits| digits.parse::<u32>().ok()).unwrap_or(0)
    });
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // The youngest thing that cannot be done without: sk_lookup's knowledge of the interface.
    needed(
        "kernel",
        version >= (5, 17),
        release,
        "use Linux 5.17 or later, better 6.1",
    )
}

fn capabilities(held: Capabilities) -> Finding {
    let missing = held.lacking();
    let detail = if missing.is_empty() {
        "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN".into()
    } else {
        format!("without {}", missing.join(", "))
    };
    needed(
        "capabilities",
        missing.is_empty(),
        detail,
        "run as root, or grant CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN",
    )
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
    needed(
        name,
        at.is_some(),
        at.unwrap_or_else(|| "not mounted".into()),
        remedy,
    )
}

fn programs(features: Features) -> Finding {
    match object::load(features, sidecar_ebpf::abi::Owner::ALONE, 1, &[], false) {
        Ok(mut ebpf) => accepted(&links::refused(&mut ebpf)),
        Err(error) => accepted(&[error]),
    }
}

/// Every refused program by its name; the verifier's words about them are the report.
fn accepted(refused: &[Error]) -> Finding {
    let all = program::ALL.len();
    let names: Vec<&str> = refused
        .iter()
        .filter_map(|error| match error {
            Error::Load { program, .. } => Some(*program),
            _ => None,
        })
        .collect();
    let report: Vec<String> = refused.iter().map(Error::to_string).collect();
    let detail = match (refused.len(), names.len()) {
        (0, _) => format!("the kernel accepts all {all}"),
        (_, 0) => "none could be loaded".into(),
        (_, some) => format!("the kernel refuses {some} of {all}: {}", names.join(", ")),
    };
    Finding {
        report: report.join("\n"),
        ..needed(
            "programs",
            refused.is_empty(),
            detail,
            "grant the capabilities above; if they are there, the kernel lacks a feature or this is a bug to report",
        )
    }
}

/// The proxy opens it to answer connect() in the place of the destination.
fn raw_socket(held: Capabilities) -> Finding {
    let there = held.has(Capabilities::NET_RAW);
    let detail = if there {
        "CAP_NET_RAW: connect() returns when the destination has answered"
    } else {
        "without CAP_NET_RAW: connect() returns at once, and a destination that fails resets the connection"
    };
    wanted("raw socket", there, detail, "grant CAP_NET_RAW")
}

fn optional(features: Features) -> Vec<Finding> {
    let absent: Vec<_> = features.absent().collect();
    ["errno", "mptcp"]
        .into_iter()
        .map(
            |name| match absent.iter().find(|[feature, ..]| *feature == name) {
                Some([_, consequence, remedy]) => wanted(name, false, *consequence, remedy),
                None => wanted(name, true, "the kernel has the helper", ""),
            },
        )
        .collect()
}

/// Not to be alone is no failure, but whoever runs before us decides what we see.
fn others(cgroup: &Path, netns: Option<&Path>) -> Finding {
    let looked = PodTarget::open(cgroup, netns).and_then(|pod| Ok((neighbours(&pod, None)?, pod)));
    let (found, pod) = match looked {
        Ok((found, pod)) => (found.foreign, pod),
        Err(error) => {
            let remedy = "name a cgroup2 directory in --cgroup, and grant CAP_NET_ADMIN and CAP_SYS_ADMIN";
            return wanted("neighbours", false, error.to_string(), remedy);
        }
    };
    let each: Vec<String> = found.iter().map(told).collect();
    let detail = match each.is_empty() {
        true => "no programs of other owners".into(),
        false => each.join("; "),
    };
    let detail = format!("{} and net:[{}]: {detail}", cgroup.display(), pod.netns().inode());
    let is_first = found.iter().all(|one| one.order != Order::Before);
    let remedy = "attach those that run before the proxy's to a cgroup above the pod's, or detach them (bpftool cgroup \
                  detach)";
    wanted("neighbours", is_first, detail, remedy)
}

fn told(one: &Foreign) -> String {
    let Foreign {
        hook,
        id,
        name,
        order,
    } = one;
    match order {
        Order::Alone => format!("{hook}: program {id} `{name}`"),
        _ => format!("{hook}: program {id} `{name}` {} the proxy's", order.name()),
    }
}

fn needed(name: &'static str, there: bool, detail: impl Into<String>, remedy: &'static str) -> Finding {
    let state = if there { State::Ok } else { State::Missing };
    Finding {
        name,
        state,
        detail: detail.into(),
        remedy,
        report: String::new(),
    }
}

fn wanted(name: &'static str, there: bool, detail: impl Into<String>, remedy: &'static str) -> Finding {
    let state = if there { State::Ok } else { State::Degraded };
    Finding {
        state,
        ..needed(name, there, detail, remedy)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use aya::programs::ProgramError;
    use aya_obj::VerifierLog;

    use super::*;

    #[test]
    fn a_kernel_is_judged_by_its_first_two_numbers() {
        let state = |release| kernel(release).state;
        for fit in ["5.17.0", "6.1.0-44-cloud-amd64", "6.18.44", "10.0", "6.2-rc1"] {
            assert_eq!(state(fit), State::Ok, "{fit}");
        }
        for old in ["5.16.20", "5.15.0-91-generic", "4.19.0", "", "unknown"] {
            assert_eq!(state(old), State::Missing, "{old}");
        }
    }

    #[test]
    fn what_only_the_truth_of_connect_needs_is_no_failure() {
        let state = |mask: &str| {
            let held = Capabilities::of(&format!("Name:\tx\nCapEff:\t{mask}\nCapBnd:\t0\n"));
            [capabilities(held).state, raw_socket(held).state]
        };
        assert_eq!(state("000001ffffffffff"), [State::Ok, State::Ok]);
        assert_eq!(
            state("000001ffffffdfff"),
            [State::Ok, State::Degraded],
            "without CAP_NET_RAW"
        );
        assert_eq!(
            state("000000c000003000"),
            [State::Ok, State::Ok],
            "CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_NET_RAW"
        );
        assert_eq!(
            state("0000008000003000"),
            [State::Missing, State::Ok],
            "the same without CAP_PERFMON"
        );
        assert_eq!(
            state("0000000000203000"),
            [State::Ok, State::Ok],
            "CAP_SYS_ADMIN for the first two"
        );
        assert_eq!(
            state("0000000000000000"),
            [State::Missing, State::Degraded],
            "nothing"
        );
    }

    #[test]
    fn a_helper_that_is_absent_degrades_what_depends_on_it() {
        let states = |mptcp, retval| {
            let findings = optional(Features { mptcp, retval });
            let states: Vec<_> = findings.iter().map(|found| (found.name, found.state)).collect();
            states
        };
        assert_eq!(states(true, true), [("errno", State::Ok), ("mptcp", State::Ok)]);
        assert_eq!(
            states(false, true),
            [("errno", State::Ok), ("mptcp", State::Degraded)]
        );
        assert_eq!(
            states(true, false),
            [("errno", State::Degraded), ("mptcp", State::Ok)]
        );
    }

    #[test]
    fn every_refused_program_is_named_and_the_verifiers_log_comes_last() {
        let refused = |program, log: &str| Error::Load {
            program,
            cause: ProgramError::LoadError {
                io_error: io::Error::from_raw_os_error(22),
                verifier_log: VerifierLog::new(log.into()),
            },
        };
        let errors = [
            refused(
                program::SK_LOOKUP,
                "0: (61) r1 = *(u32 *)(r1 +64)\ninvalid bpf_context access",
            ),
            refused(program::HOLD, "unknown func"),
        ];
        let finding = accepted(&errors);
        assert_eq!(finding.state, State::Missing);
        assert_eq!(
            finding.detail,
            "the kernel refuses 2 of 12: or_sk_lookup, or_hold"
        );
        assert!(
            finding
                .report
                .contains("invalid bpf_context access\nprogram or_hold")
        );
        assert!(finding.report.ends_with("\nunknown func"), "{}", finding.report);
        for error in &errors {
            assert_eq!(
                crate::error_chain(error),
                error.to_string(),
                "nothing follows the log"
            );
        }
        assert_eq!(accepted(&[]).state, State::Ok);
    }
}
