//! Is everything as it says? Pure: facts in, sentences out, each with its remedy.

use serde::Serialize;

use super::facts::{Addresses, Facts};
use crate::datapath::{ABI_VERSION, Attached, Hook, Place};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Finding {
    /// It is not as it should be; otherwise somebody may want to know.
    pub(super) is_problem: bool,
    pub(super) what: String,
    pub(super) remedy: String,
}

const ANEW: &str = "restart the proxy, which attaches to what is there now";

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = match &facts.attached {
        Ok(attached) => hooks(attached, facts),
        Err(error) => vec![problem(
            format!("nothing is attached: {error}"),
            "pins go with their file system: mount one and restart the proxy",
        )],
    };
    findings.extend(cgroup(facts));
    findings.extend(netns(facts));
    findings.extend(proxy(facts));
    findings.extend(facts.addresses.iter().flat_map(addresses));
    findings
}

fn hooks(attached: &Attached, facts: &Facts) -> Vec<Finding> {
    let names = |of: &dyn Fn(&Hook) -> bool| {
        let named: Vec<&str> = attached
            .hooks
            .iter()
            .filter(|hook| of(hook))
            .map(|hook| hook.program)
            .collect();
        (!named.is_empty()).then(|| named.join(", "))
    };
    let pins = facts.pins.display();
    if attached.hooks.iter().all(|hook| hook.place == Place::Absent) {
        return vec![problem(
            format!("nothing is pinned in {pins}: no connection is intercepted"),
            "start the proxy, or name the directory that its interception.pins names",
        )];
    }
    let mut findings = Vec::new();
    if let Some(names) = names(&|hook| hook.place == Place::Absent) {
        findings.push(problem(
            format!("not pinned in {pins}: {names}"),
            "restart the proxy, which attaches what is missing",
        ));
    }
    for (of_netns, target) in [(false, "cgroup"), (true, "network namespace")] {
        if let Some(names) = names(&|hook| hook.place == Place::Gone && hook.is_of_netns() == of_netns) {
            findings.push(problem(
                format!("detached: {names}: the {target} is gone, or somebody has detached them"),
                format!("{ANEW}; if the pod is gone for good: outrigger detach --pins {pins}"),
            ));
        }
    }
    for hook in &attached.hooks {
        if let Place::Unknown(why) = &hook.place {
            findings.push(problem(
                format!("{} cannot be asked: {why}", hook.program),
                "run this as root, on the host of the proxy",
            ));
        }
    }
    findings.extend(elsewhere(attached, facts));
    if let Some(abi) = attached.abi
        && abi != ABI_VERSION
    {
        findings.push(note(
            format!("the programs are of ABI {abi}, and this outrigger has {ABI_VERSION}"),
            "a restart of the proxy replaces them",
        ));
    }
    findings
}

/// Attached, and not to what it should be attached to.
fn elsewhere(attached: &Attached, facts: &Facts) -> Option<Finding> {
    let of_cgroup = |hook: &Hook| match hook.place {
        Place::Cgroup(id) => Some(id),
        _ => None,
    };
    let of_netns = |hook: &Hook| match hook.place {
        Place::Netns(inode) => Some(inode),
        _ => None,
    };
    if let Some(id) = attached.hooks.iter().find_map(of_cgroup) {
        let wanted = facts.cgroup.as_ref();
        let place = facts.attached_to.as_ref().map(|path| path.display());
        let place = place.map_or_else(|| "which has been removed".to_owned(), |path| path.to_string());
        let wrong = match wanted.and_then(|wanted| Some((wanted.id?, &wanted.path))) {
            Some((wanted, path)) if wanted != id => Some(format!(
                "the hooks are attached to the cgroup with inode {id} ({place}), and {} is another one, with inode {wanted}",
                path.display()
            )),
            None if facts.attached_to.is_none() => Some(format!(
                "the hooks are attached to the cgroup with inode {id}, which has been removed"
            )),
            _ => None,
        };
        if let Some(wrong) = wrong {
            return Some(problem(wrong, ANEW));
        }
    }
    let found = attached.hooks.iter().find_map(of_netns)?;
    let of_processes = facts.netns.iter();
    let of_processes = of_processes.map(|netns| (netns.inode, format!("{} is in the one", netns.of)));
    let named = facts.named_netns.iter();
    let named =
        named.filter_map(|named| Some((named.inode?, format!("{} is the one", named.path.display()))));
    let mut others = named.chain(of_processes).filter(|(inode, _)| *inode != found);
    let (inode, other) = others.next()?;
    let what = format!(
        "sk_lookup is attached to the network namespace with inode {found}, and {other} with inode {inode}"
    );
    Some(problem(what, ANEW))
}

fn netns(facts: &Facts) -> Option<Finding> {
    let gone = facts.named_netns.as_ref().filter(|named| named.inode.is_none())?;
    Some(problem(
        format!("the network namespace {} is not there", gone.path.display()),
        "make it; then restart the proxy, which attaches to it",
    ))
}

fn cgroup(facts: &Facts) -> Option<Finding> {
    let gone = facts.cgroup.as_ref().filter(|cgroup| cgroup.id.is_none())?;
    Some(problem(
        format!("the cgroup {} is not there", gone.path.display()),
        "start what runs in it; then restart the proxy, which attaches to it",
    ))
}

fn proxy(facts: &Facts) -> Vec<Finding> {
    let Some(proxy) = &facts.proxy else {
        return Vec::new();
    };
    match &proxy.answer {
        Err(error) => vec![problem(
            format!("no proxy answers at {}: {error}", proxy.socket.display()),
            "start it: what is intercepted is refused until one serves it; \
             or name its socket by --admin-socket",
        )],
        Ok(told) => told
            .missing
            .iter()
            .map(|missing| {
                problem(
                    format!("the proxy is not ready: {missing}"),
                    "its log has the reason",
                )
            })
            .collect(),
    }
}

fn addresses(addresses: &Addresses) -> Vec<Finding> {
    let Addresses { known, there } = addresses;
    let known_now = known.iter().filter(|ip| !there.contains(ip));
    let gone = known_now.map(|ip| {
        problem(
            format!("the proxy takes {ip} for an address of the pod, and no interface has it"),
            "restart the proxy; if it is named in workload.addresses, take it out",
        )
    });
    let new = there.iter().filter(|ip| !known.contains(ip)).map(|ip| {
        note(
            format!("an interface of the pod has {ip}, and the proxy does not know it"),
            "restart the proxy if it came later; leave it out of workload.addresses if that is meant",
        )
    });
    gone.chain(new).collect()
}

fn problem(what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding {
        is_problem: true,
        what: what.into(),
        remedy: remedy.into(),
    }
}

fn note(what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding {
        is_problem: false,
        ..problem(what, remedy)
    }
}

#[cfg(test)]
mod tests;
