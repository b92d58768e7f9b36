//! Between whom a flow is, as long as the view runs: each flow is named once, when it is first heard of. Of addresses only so many have a
//! name of their own, and strangers have one together, so that nobody can fill the view from outside.

use std::collections::BTreeSet;

use super::super::edges::naming::port;
use super::super::edges::naming::{host, is_outbound};
use crate::model::SpiffeId;
use crate::observe::FlowReport;

/// One row of the view. Plaintext and mesh are two.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Pair {
    pub(super) source: End,
    pub(super) destination: End,
    /// Of the endpoint.
    pub(super) port: Option<u16>,
    pub(super) is_mesh: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum End {
    /// By its whole SPIFFE ID.
    Workload(String),
    /// Nobody was found behind it, or nobody has proved to be.
    Service(String),
    Address(String),
    OtherAddresses,
    Strangers,
}

#[derive(Debug, Default)]
pub(super) struct Ends {
    domains: BTreeSet<String>,
    addresses: BTreeSet<String>,
}

/// More than a screen has rows for.
const MOST_ADDRESSES: usize = 64;

impl Ends {
    pub(super) fn pair(&mut self, flow: &FlowReport) -> Pair {
        let is_stranger = flow.standing == "stranger";
        let source = match &flow.source_identity {
            Some(id) => self.workload(id),
            None if is_stranger => End::Strangers,
            None => self.address(host(&flow.client)),
        };
        let at = flow.chosen_dst.as_deref().or(flow.original_dst.as_deref());
        let destination = match (&flow.destination_identity, &flow.service, at) {
            (Some(id), ..) => self.workload(id),
            (None, Some(service), _) => End::Service(service.clone()),
            (None, None, Some(at)) if is_outbound(flow) => self.address(host(at)),
            _ => self.address("unknown".to_owned()),
        };
        Pair {
            source,
            destination,
            // A scan of all ports is one row.
            port: port(flow).filter(|_| !is_stranger),
            is_mesh: flow.transport == "hbone",
        }
    }

    fn workload(&mut self, id: &str) -> End {
        if let Ok(parsed) = id.parse::<SpiffeId>()
            && !self.domains.contains(parsed.trust_domain())
        {
            self.domains.insert(parsed.trust_domain().to_owned());
        }
        End::Workload(id.to_owned())
    }

    fn address(&mut self, address: String) -> End {
        if !self.addresses.contains(&address) {
            if self.addresses.len() == MOST_ADDRESSES {
                return End::OtherAddresses;
            }
            self.addresses.insert(address.clone());
        }
        End::Address(address)
    }

    /// For people: `namespace/account`, with the trust domain before it once there is more than one.
    pub(super) fn name(&self, end: &End) -> String {
        let id = match end {
            End::Workload(id) => id,
            End::Service(name) => return short(name).to_owned(),
            End::Address(name) => return name.clone(),
            End::OtherAddresses => return "other addresses".to_owned(),
            End::Strangers => return "strangers".to_owned(),
        };
        let Ok(parsed) = id.parse::<SpiffeId>() else {
            return id.clone();
        };
        let name = format!("{}/{}", parsed.namespace(), parsed.service_account());
        match self.domains.len() {
            0 | 1 => name,
            _ => format!("{}/{name}", parsed.trust_domain()),
        }
    }
}

/// `web.demo.svc` of `demo/web.demo.svc.cluster.local`: there is a port to come behind it.
fn short(service: &str) -> &str {
    let host = service.split_once('/').map_or(service, |(_, host)| host);
    match host.find(".svc.") {
        Some(at) => &host[..at + ".svc".len()],
        None => service,
    }
}

impl End {
    /// In full where [`Ends::name`] is not.
    pub(super) fn whole_name(&self) -> Option<&str> {
        match self {
            Self::Service(name) => Some(name),
            _ => None,
        }
    }

    /// As an `EdgeList` says it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Workload(_) => "workload",
            Self::Service(_) => "service",
            Self::Address(_) | Self::OtherAddresses => "address",
            Self::Strangers => "strangers",
        }
    }
}
