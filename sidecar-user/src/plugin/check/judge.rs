//! From facts to lines. Pure: asks nobody.

mod agents;
mod before;
mod control;
mod injection;
mod pods;
mod rights;
mod server;
#[cfg(test)]
mod tests;

use super::facts::{ApiServer, Before, Installed};
use super::report::CheckReport;

/// Of an API server that could not be reached: nothing else is known then.
pub(super) fn unreachable(server: &ApiServer) -> CheckReport {
    CheckReport::new(vec![server::judge(server, false)])
}

pub(super) fn before(server: &ApiServer, before: &Before) -> CheckReport {
    CheckReport::new(vec![
        server::judge(server, false),
        before::rights(&before.rights),
        before::nodes(&before.nodes),
        before::namespace(&before.namespace),
    ])
}

pub(super) fn installed(server: &ApiServer, installed: &Installed) -> CheckReport {
    let Installed {
        rights,
        control,
        roots,
        injection,
        nodes,
        agents,
        pods,
    } = installed;
    let by_policy = matches!(injection.policy, Ok(Some(_)));
    CheckReport::new(vec![
        server::judge(server, by_policy),
        rights::judge(rights),
        control::judge(control, roots, server.now),
        injection::judge(injection),
        agents::judge(nodes, agents),
        pods::judge(pods, agents),
    ])
}
