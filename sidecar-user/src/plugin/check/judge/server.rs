//! The API server: can it be reached, is it new enough, and do clocks agree?

use std::time::Duration;

use super::super::facts::ApiServer;
use super::super::report::{Category, Check, category, ok};

/// Sidecars that start before their pod's containers are stable from here on.
const LEAST: u32 = 33;
/// MutatingAdmissionPolicy is stable from here on.
const BY_POLICY: u32 = 36;
/// Certificates are good from some minutes before they are signed, and the server's time has whole seconds.
const SKEW: Duration = Duration::from_secs(30);

pub(super) fn judge(ApiServer { address, server, now }: &ApiServer, by_policy: bool) -> Category {
    let reached = ok(
        "api-server-reachable",
        format!("the API server {address} answers"),
    );
    let server = match server {
        Ok(server) => server,
        Err(unknown) => {
            let failed = reached.failed(
                unknown.why.clone(),
                "is the cluster up, and is this the right --context?",
            );
            return category("API server", vec![failed]);
        }
    };
    let mut checks = vec![reached, version(&server.version, server.minor, by_policy)];
    if let Some(time) = server.time {
        let (apart, whose) = match time.duration_since(*now) {
            Ok(ahead) => (ahead, "ahead"),
            Err(behind) => (behind.duration(), "behind"),
        };
        let clock = ok("api-server-clock", "its clock and this machine's agree");
        checks.push(match apart > SKEW {
            false => clock,
            true => clock.warning(
                format!("it is {} s {whose} of this machine", apart.as_secs()),
                "set both by NTP: certificates are good for a time that both have to agree on",
            ),
        });
    }
    category("API server", checks)
}

fn version(version: &str, minor: u32, by_policy: bool) -> Check {
    let check = ok("api-server-version", format!("it is Kubernetes {version}"));
    match minor {
        _ if minor < LEAST => check.failed(
            format!(
                "Outrigger needs Kubernetes 1.{LEAST} or later, where sidecars start before other containers"
            ),
            "upgrade the cluster",
        ),
        _ if minor >= BY_POLICY => check,
        _ if by_policy => check.failed(
            format!("it injects by policy from 1.{BY_POLICY} on only"),
            "install the chart with --set injection.by=webhook",
        ),
        _ => check.warning(
            format!("it injects by policy from 1.{BY_POLICY} on only; by webhook before"),
            "install the chart with --set injection.by=webhook",
        ),
    }
}
