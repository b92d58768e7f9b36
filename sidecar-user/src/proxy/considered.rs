//! The endpoints of a service as this proxy considers them for its next connection, as reports. Chooses none; `route/` says how each
//! fares.

use std::net::SocketAddr;

use crate::model::snapshot::Load;
use crate::model::{Endpoint, Locality, Service, TunnelProtocol, Workload};
use crate::observe::{DialFailureReport, EndpointReport};
use crate::route::{Consideration, Considered, Request, consider};

/// How it fares, in the order in which endpoints are listed.
const STATES: [&str; 6] = ["ready", "failing", "standby", "excluded", "not_ready", "no_port"];

/// Those that the next connection may go to come first, the likeliest at the top.
pub(super) fn of_service(
    service: &Service,
    endpoints: &[Endpoint],
    request: &Request<'_>,
) -> Vec<EndpointReport> {
    let considered = consider(service, endpoints, request);
    let mut reports: Vec<EndpointReport> = considered
        .iter()
        .map(|one| report(service, one, request.dst.0.port()))
        .collect();
    let order = |report: &EndpointReport| {
        let state = report.state.as_deref();
        STATES.iter().position(|known| Some(*known) == state)
    };
    reports.sort_by(|a, b| {
        let chance = |report: &EndpointReport| report.chance.unwrap_or_default();
        // One that fails is as likely to be dialled as one that does not.
        chance(b)
            .total_cmp(&chance(a))
            .then_with(|| order(a).cmp(&order(b)))
            .then_with(|| a.address.cmp(&b.address))
    });
    reports
}

/// A workload that is dialled by an address of its own.
pub(super) fn of_workload(workload: &Workload, load: &Load, at: SocketAddr) -> EndpointReport {
    let failures = load.failures_of(at);
    EndpointReport {
        address: at.to_string(),
        service_port: Some(at.port()),
        identities: match workload.protocol {
            TunnelProtocol::Hbone => vec![workload.identity.to_string()],
            TunnelProtocol::None => Vec::new(),
        },
        // Its health decides nothing where it is dialled by itself.
        state: Some(if failures.is_some() { "failing" } else { "ready" }.into()),
        open_connections: Some(load.open()),
        chance: Some(1.0),
        last_failure: failures.as_ref().map(DialFailureReport::new),
        ..of(workload)
    }
}

fn report(service: &Service, one: &Considered<'_>, port: u16) -> EndpointReport {
    let (workload, load) = (&one.endpoint.workload, &one.endpoint.load);
    let failures = one.address.and_then(|address| load.failures_of(address));
    let (state, chance) = match one.what {
        Consideration::Candidate { chance } if failures.is_some() => ("failing", chance),
        Consideration::Candidate { chance } => ("ready", chance),
        Consideration::Standby => ("standby", 0.0),
        Consideration::Excluded => ("excluded", 0.0),
        Consideration::NotReady => ("not_ready", 0.0),
        Consideration::NoPort => ("no_port", 0.0),
    };
    let named = service.subject_alt_names.iter();
    let identities = std::iter::once(&workload.identity).chain(named);
    EndpointReport {
        address: match (one.address, workload.addresses.first()) {
            (Some(address), _) => address.to_string(),
            (None, Some(ip)) => ip.to_string(),
            (None, None) => String::new(),
        },
        service_port: Some(port),
        identities: match workload.protocol {
            TunnelProtocol::Hbone => identities.map(ToString::to_string).collect(),
            TunnelProtocol::None => Vec::new(),
        },
        state: Some(state.into()),
        open_connections: Some(load.open()),
        chance: Some(chance),
        last_failure: failures.as_ref().map(DialFailureReport::new),
        ..of(workload)
    }
}

/// What the registry says of it.
fn of(workload: &Workload) -> EndpointReport {
    EndpointReport {
        transport: match workload.protocol {
            TunnelProtocol::Hbone => "hbone".into(),
            TunnelProtocol::None => "plain".into(),
        },
        workload: Some(format!("{}/{}", workload.namespace, workload.pod())),
        node: Some(workload.node.clone()).filter(|node| !node.is_empty()),
        locality: locality(&workload.locality),
        capacity: Some(workload.capacity),
        ..EndpointReport::default()
    }
}

fn locality(
    Locality {
        region,
        zone,
        subzone,
    }: &Locality,
) -> Option<String> {
    let parts = [region, zone, subzone].map(String::as_str);
    let known = parts.iter().rposition(|part| !part.is_empty())?;
    Some(parts[..=known].join("/"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::model::{Cause, Failure, Location, OriginalDst, Outcome, Party, SpiffeId};
    use crate::route::Unknown;

    fn endpoint(n: u8, healthy: bool, ports: &[(u16, u16)]) -> Endpoint {
        Endpoint {
            workload: Arc::new(Workload {
                uid: format!("w{n}"),
                name: format!("w{n}"),
                namespace: "demo".into(),
                identity: SpiffeId::new("td.test", "demo", "web").unwrap(),
                addresses: vec![[10, 0, 0, n].into()],
                protocol: TunnelProtocol::Hbone,
                healthy,
                capacity: 1,
                locality: Locality {
                    region: "r".into(),
                    zone: "z".into(),
                    subzone: String::new(),
                },
                node: "n1".into(),
            }),
            ports: ports.iter().copied().collect::<BTreeMap<_, _>>(),
            load: Arc::<Load>::default(),
        }
    }

    #[test]
    fn who_is_likely_comes_first_and_who_fails_or_serves_nothing_says_so() {
        let endpoints = [
            endpoint(1, false, &[(80, 8080)]),
            endpoint(2, true, &[]),
            endpoint(3, true, &[(80, 8080)]),
            endpoint(4, true, &[(80, 8080)]),
        ];
        let _open = endpoints[2].load.enter();
        let failed = Failure::new(Outcome::new(Party::Upstream, Cause::ConnectionRefused), "503");
        let at = SystemTime::UNIX_EPOCH;
        endpoints[3]
            .load
            .failed("10.0.0.4:8080".parse().unwrap(), failed, at);
        let service = Service::default();
        let request = Request {
            dst: OriginalDst::new("10.96.0.1:80".parse().unwrap()),
            unknown: Unknown::PassThrough,
            tried: &[],
            from: Location {
                locality: &Locality::unknown(),
                node: "",
            },
            stays_with: None,
        };
        let reports = of_service(&service, &endpoints, &request);
        let said: Vec<_> = reports
            .iter()
            .map(|r| (r.address.as_str(), r.state.as_deref().unwrap(), r.chance.unwrap()))
            .collect();
        assert_eq!(
            said,
            [
                ("10.0.0.4:8080", "failing", 1.0),
                ("10.0.0.3:8080", "ready", 0.0),
                ("10.0.0.1:8080", "not_ready", 0.0),
                ("10.0.0.2", "no_port", 0.0),
            ],
            "the balancer counts connections only"
        );
        let failure = reports[0].last_failure.as_ref().unwrap();
        assert_eq!(
            (failure.count, &*failure.cause, &*failure.detail),
            (1, "connection_refused", "503")
        );
        assert_eq!(reports[1].open_connections, Some(1));
        assert_eq!(reports[1].locality.as_deref(), Some("r/z"));
        assert_eq!(reports[1].identities, ["spiffe://td.test/ns/demo/sa/web"]);
    }
}
