//! What the agent says of itself and its node: which pods are intercepted, and what the kernel says of the programs that are attached to
//! each. Attaches nothing.

use std::fs;
use std::sync::Arc;
use std::time::SystemTime;

use super::memory::Pods;
use super::register::Register;
use crate::datapath::{self, NeighbourQuery};
use crate::error_chain;
use crate::observe::{InterceptedPod, MapFill, NodeStatus, OtherProgram, PodCounts};

/// The kernel is asked about each pod, some milliseconds for a hundred.
pub(super) async fn status(register: &Arc<Register>, node: Option<String>) -> NodeStatus {
    let all = register.all_attached();
    let asked = tokio::task::spawn_blocking(move || {
        let pods = all.into_iter();
        pods.map(|(pod, query)| (pod, intercepted(&query)))
            .collect::<Vec<_>>()
    });
    let mut pods: Vec<InterceptedPod> = asked
        .await
        .unwrap_or_default()
        .into_iter()
        .map(|(uid, pod)| InterceptedPod {
            pod: register.names.of(&uid),
            ..pod
        })
        .collect();
    pods.sort_by(|a, b| a.pod.cmp(&b.pod));
    NodeStatus {
        node,
        version: env!("CARGO_PKG_VERSION").into(),
        kernel: kernel(),
        time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        pods: counts(register),
        intercepted: pods,
    }
}

fn counts(register: &Register) -> PodCounts {
    let (pods, sidecars) = (register.pods(), register.sidecars(&Pods::default()));
    let has_one = |pod: &&String| sidecars.iter().any(|sidecar| *sidecar.pod == ***pod);
    let with_sidecar = pods.keys().filter(has_one).count() as u64;
    let intercepted = pods.len() as u64;
    PodCounts {
        intercepted,
        with_sidecar,
        waiting: intercepted - with_sidecar,
        refused: register.refused().len() as u64,
    }
}

fn intercepted(query: &NeighbourQuery) -> InterceptedPod {
    let asked = query
        .ask()
        .and_then(|found| Ok((found, datapath::fills(query.pins())?)));
    let (found, fills) = match asked {
        Ok(asked) => asked,
        Err(error) => {
            return InterceptedPod {
                problem: Some(error_chain(&error)),
                ..InterceptedPod::default()
            };
        }
    };
    InterceptedPod {
        pod: String::new(),
        programs: (query.hooks() - found.missing.len()) as u64,
        missing: found.missing.iter().map(|hook| (*hook).to_owned()).collect(),
        others: found
            .foreign
            .into_iter()
            .map(|other| OtherProgram {
                hook: other.hook.into(),
                id: other.id,
                name: other.name,
                order: other.order.name().into(),
            })
            .collect(),
        maps: fills
            .into_iter()
            .map(|fill| MapFill {
                map: fill.map.into(),
                entries: fill.entries as u64,
                size: fill.size as u64,
            })
            .collect(),
        problem: None,
    }
}

/// Empty where /proc is not there.
fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::memory::Limits;
    use super::*;

    #[tokio::test]
    async fn it_says_which_node_and_kernel_and_who_waits_and_who_is_refused() {
        let dir = std::env::temp_dir().join(format!("outrigger-{}-nodes", std::process::id()));
        let register = Arc::new(Register::open(&dir, Limits::default()).unwrap());
        for pod in ["a", "b"] {
            register.installed(pod);
        }
        let _listens = register.questions("a").unwrap();
        register.refuse("c".into(), "shop/c".into(), "hostNetwork".into());
        let told = status(&register, Some("node-1".into())).await;
        std::fs::remove_dir_all(dir).unwrap();
        let counts = PodCounts {
            intercepted: 2,
            with_sidecar: 1,
            waiting: 1,
            refused: 1,
        };
        assert_eq!((told.pods, told.node.as_deref()), (counts, Some("node-1")));
        assert_eq!(told.version, env!("CARGO_PKG_VERSION"));
        assert!(told.kernel.starts_with(|c: char| c.is_ascii_digit()), "{told:?}");
        humantime::parse_rfc3339(&told.time).unwrap();
    }
}
