//! What the ends of flows are called: by identity where there is one, else by service or address. Of addresses only so many
//! have a place of their own, so that nobody can fill a picture from outside.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::SpiffeId;
use crate::observe::FlowReport;

/// Addresses with names of their own; the others are one.
const MOST_ADDRESSES: usize = 16;
const OTHERS: &str = "other addresses";

type Name = (String, &'static str);

pub(in crate::plugin) struct Names {
    /// More than one trust domain is there, so identities are told with theirs.
    has_domains: bool,
    addresses: BTreeSet<String>,
    /// Behind each service: whom its clients came to, at which port, and whether through the mesh.
    served: BTreeMap<String, BTreeSet<(Name, Option<u16>, bool)>>,
}

impl Names {
    pub(super) fn of(flows: &[&FlowReport]) -> Self {
        let identities = flows
            .iter()
            .flat_map(|flow| [&flow.source_identity, &flow.destination_identity]);
        let domains: BTreeSet<String> = identities
            .flatten()
            .filter_map(|id| id.parse::<SpiffeId>().ok())
            .map(|id| id.trust_domain().to_owned())
            .collect();
        let mut names = Self {
            has_domains: domains.len() > 1,
            addresses: BTreeSet::new(),
            served: BTreeMap::new(),
        };
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for flow in flows {
            for (name, kind) in [names.plain_source(flow), names.plain_destination(flow)] {
                if kind == "address" {
                    *counts.entry(name).or_default() += 1;
                }
            }
        }
        for flow in flows {
            if let (Some(service), Some(_)) = (&flow.service, &flow.chosen_dst)
                && is_outbound(flow)
            {
                let server = (
                    names.plain_destination(flow),
                    port(flow),
                    flow.transport == "hbone",
                );
                names.served.entry(service.clone()).or_default().insert(server);
            }
        }
        let mut most: Vec<(usize, String)> = counts.into_iter().map(|(name, n)| (n, name)).collect();
        most.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        names.addresses = most
            .into_iter()
            .take(MOST_ADDRESSES)
            .map(|(_, name)| name)
            .collect();
        names
    }

    pub(super) fn source(&self, flow: &FlowReport) -> Name {
        self.bounded(self.plain_source(flow))
    }

    pub(super) fn destination(&self, flow: &FlowReport) -> Name {
        self.bounded(self.plain_destination(flow))
    }

    /// Who is behind the flow's service, where that is one workload at one port.
    pub(super) fn serving(&self, flow: &FlowReport) -> Option<(Name, Option<u16>, bool)> {
        let mut servers = self.served.get(flow.service.as_ref()?)?.iter();
        servers.next().filter(|_| servers.next().is_none()).cloned()
    }

    fn bounded(&self, (name, kind): Name) -> Name {
        match kind == "address" && !self.addresses.contains(&name) {
            true => (OTHERS.to_owned(), kind),
            false => (name, kind),
        }
    }

    fn plain_source(&self, flow: &FlowReport) -> Name {
        match &flow.source_identity {
            Some(id) => self.workload(id),
            None if flow.standing == "stranger" => ("strangers".to_owned(), "strangers"),
            None => (host(&flow.client), "address"),
        }
    }

    fn plain_destination(&self, flow: &FlowReport) -> Name {
        match (
            &flow.destination_identity,
            &flow.service,
            &flow.chosen_dst,
            &flow.original_dst,
        ) {
            (Some(id), ..) => self.workload(id),
            (None, Some(service), ..) => (service.clone(), "service"),
            (None, None, Some(at), _) | (None, None, None, Some(at)) if is_outbound(flow) => {
                (host(at), "address")
            }
            _ => ("unknown".to_owned(), "address"),
        }
    }

    /// `namespace/account`.
    fn workload(&self, id: &str) -> Name {
        let name = match id.parse::<SpiffeId>() {
            Ok(id) if self.has_domains => {
                format!(
                    "{}/{}/{}",
                    id.trust_domain(),
                    id.namespace(),
                    id.service_account()
                )
            }
            Ok(id) => format!("{}/{}", id.namespace(), id.service_account()),
            Err(_) => id.to_owned(),
        };
        (name, "workload")
    }
}

pub(in crate::plugin) fn is_outbound(flow: &FlowReport) -> bool {
    flow.direction == "outbound"
}

/// Without the port.
pub(in crate::plugin) fn host(at: &str) -> String {
    let host = at.rsplit_once(':').map_or(at, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

/// Of the endpoint; or what was asked for, where nobody was chosen.
pub(in crate::plugin) fn port(flow: &FlowReport) -> Option<u16> {
    let at = flow.chosen_dst.as_deref().or(flow.original_dst.as_deref())?;
    at.rsplit_once(':')?.1.parse().ok()
}
