//! Does control run, and for how long are the roots good?

use std::time::{Duration, SystemTime};

use super::super::facts::{Known, Roots, Workload};
use super::super::report::{Category, Check, category, counted, ok};
use crate::kubernetes::{CONTROL, ROOTS, SYSTEM_NAMESPACE};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// New roots have to be everywhere before the old ones end, and somebody has to find the time.
const SOON: Duration = Duration::from_secs(60 * 24 * 60 * 60);

pub(super) fn judge(
    control: &Known<Option<Workload>>,
    roots: &Known<Option<Roots>>,
    now: SystemTime,
) -> Category {
    category("control", vec![replicas(control), valid(roots, now)])
}

fn replicas(control: &Known<Option<Workload>>) -> Check {
    let check = ok("control-ready", "control runs");
    let look = format!(
        "kubectl --namespace {SYSTEM_NAMESPACE} get deployment,pods --selector app.kubernetes.io/component=control, and kubectl logs"
    );
    match control {
        Err(unknown) => check.unknown(unknown),
        Ok(None) => check.failed(
            format!("there is no Deployment {CONTROL} in the namespace {SYSTEM_NAMESPACE}"),
            "install the chart: kubectl outrigger check --pre says whether it can be",
        ),
        Ok(Some(Workload { wanted: 0, .. })) => check.failed(
            "it is stopped, at 0 replicas: nobody signs certificates or tells of changes, so new pods do not start",
            format!("kubectl --namespace {SYSTEM_NAMESPACE} scale deployment {CONTROL} --replicas 2"),
        ),
        Ok(Some(Workload { wanted, ready: 0, .. })) => check.failed(
            format!("of {} none is ready: nobody signs certificates or tells of changes", replicas_of(*wanted)),
            look,
        ),
        Ok(Some(Workload { wanted, ready, .. })) if ready < wanted => {
            check.warning(format!("of {} {ready} are ready", replicas_of(*wanted)), look)
        }
        Ok(Some(Workload { wanted, version, .. })) => ok(
            "control-ready",
            match version {
                Some(version) => format!("control {version} runs: {} ready", replicas_of(*wanted)),
                None => format!("control runs: {} ready", replicas_of(*wanted)),
            },
        ),
    }
}

fn replicas_of(n: u64) -> String {
    counted(usize::try_from(n).unwrap_or(usize::MAX), "replica")
}

fn valid(roots: &Known<Option<Roots>>, now: SystemTime) -> Check {
    let check = ok("control-roots", "the roots of the mesh are there");
    let renew = "docs/authority.md says how roots are replaced, which takes days in which both are trusted";
    let roots = match roots {
        Err(unknown) => return check.unknown(unknown),
        Ok(None) => {
            return check.failed(
                format!("the ConfigMap {ROOTS} of the namespace {SYSTEM_NAMESPACE} has none, so no certificate can be verified"),
                "control writes it when it starts: kubectl logs of its pods says why not",
            );
        }
        Ok(Some(Roots::Unreadable(why))) => {
            return check.failed(
                why.clone(),
                "control writes them anew when the ConfigMap is deleted",
            );
        }
        Ok(Some(Roots::Until(ends))) => ends,
    };
    let Some(last) = roots.iter().max() else {
        return check.failed("there is none among them", renew);
    };
    match last.duration_since(now) {
        Err(_) => check.failed("they have ended, and every certificate with them", renew),
        Ok(left) if left < SOON => check.warning(
            format!(
                "they end in {}",
                counted((left.as_secs() / DAY.as_secs()) as usize, "day")
            ),
            renew,
        ),
        Ok(left) => ok(
            "control-roots",
            format!(
                "the roots of the mesh are good for {}",
                counted((left.as_secs() / DAY.as_secs()) as usize, "day")
            ),
        ),
    }
}
