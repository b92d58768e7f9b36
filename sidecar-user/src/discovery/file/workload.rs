//! One entry of `workloads`.

use std::net::IpAddr;

use super::address::{check_gateway, read_ip, read_pair, read_service_name, warn_network};
use super::reader::{Place, Reader, read_ports};
use crate::document::{Field, Object};
use crate::model::authorization::PolicyName;
use crate::model::snapshot::Serves;
use crate::model::{Locality, ServiceName, SpiffeId, TunnelProtocol, Workload};

pub(super) struct Entry {
    pub workload: Workload,
    /// Of the uid, or of the entry when it has none.
    pub uid: Place,
    pub places: Vec<(IpAddr, Place)>,
    serves: Serves,
    pub service_places: Vec<(ServiceName, Place)>,
    pub policies: Vec<(PolicyName, Place)>,
    /// It shares its addresses with the node and with other workloads.
    pub host_network: bool,
    pub waypoint: bool,
}

const KEYS: [&str; 25] = [
    "uid",
    "name",
    "namespace",
    "serviceAccount",
    "trustDomain",
    "workloadIps",
    "services",
    "protocol",
    "status",
    "capacity",
    "authorizationPolicies",
    "network",
    "networkMode",
    "waypoint",
    "networkGateway",
    "applicationTunnel",
    "hostname",
    "nativeTunnel",
    "node",
    "clusterId",
    "workloadName",
    "workloadType",
    "canonicalName",
    "canonicalRevision",
    "locality",
];

/// Labels that change nothing about a connection.
const LABELS: [&str; 5] = [
    "clusterId",
    "workloadName",
    "workloadType",
    "canonicalName",
    "canonicalRevision",
];

pub(super) fn read(reader: &Reader, field: &Field<'_>) -> Option<Entry> {
    let object = field.object(&KEYS)?;
    let places = read_addresses(reader, &object);
    let (serves, service_places) = read_services(&object);
    let host_network = object
        .get("networkMode")
        .and_then(|mode| mode.one_of(&[("Standard", false), ("HostNetwork", true)]))
        .unwrap_or(false);
    let policies = object.list_of("authorizationPolicies", "a list of \"namespace/name\"", |item| {
        let (namespace, name) = read_pair(&item, "policy")?;
        let name = PolicyName {
            namespace: namespace.into(),
            name: name.into(),
        };
        Some((name, Place::from(&item)))
    });
    check_unused(reader, &object);
    let waypoint = read_waypoint(reader, &object);
    let workload = read_workload(&object, places.iter().map(|(ip, _)| *ip).collect())?;
    Some(Entry {
        workload,
        uid: Place::from(object.get("uid").as_ref().unwrap_or(field)),
        places,
        serves,
        service_places,
        policies,
        host_network,
        waypoint,
    })
}

impl Entry {
    /// A workload without an address is no endpoint: there would be nothing to dial.
    pub(super) fn into_parts(self) -> (Workload, Serves) {
        match self.workload.addresses.is_empty() {
            true => (self.workload, Serves::new()),
            false => (self.workload, self.serves),
        }
    }
}

fn read_workload(object: &Object<'_>, addresses: Vec<IpAddr>) -> Option<Workload> {
    let namespace = object
        .require("namespace", "write the workload's namespace")?
        .text()?;
    let (name, uid) = (object.text_or_empty("name"), object.text_or_empty("uid"));
    let uid = match (uid, name, addresses.first()) {
        ("", "", Some(ip)) => format!("{}//Address/{namespace}/{ip}", object.text_or_empty("clusterId")),
        ("", _, _) => format!("{}//Pod/{namespace}/{name}", object.text_or_empty("clusterId")),
        (uid, ..) => uid.to_owned(),
    };
    Some(Workload {
        uid,
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        identity: read_identity(object, namespace)?,
        addresses,
        protocol: object
            .get("protocol")
            .and_then(|f| f.one_of(&[("TCP", TunnelProtocol::None), ("HBONE", TunnelProtocol::Hbone)]))
            .unwrap_or(TunnelProtocol::None),
        healthy: object
            .get("status")
            .and_then(|f| f.one_of(&[("Healthy", true), ("Unhealthy", false)]))
            .unwrap_or(true),
        capacity: object
            .get("capacity")
            .and_then(|f| f.parse("weight", "write a whole number such as 1"))
            .unwrap_or(1),
        locality: read_locality(object),
        node: object.text_or_empty("node").to_owned(),
    })
}

fn read_locality(object: &Object<'_>) -> Locality {
    let parts = object
        .get("locality")
        .and_then(|field| field.object(&["region", "zone", "subzone"]));
    let part = |name| match &parts {
        Some(parts) => parts.text_or_empty(name).to_owned(),
        None => String::new(),
    };
    Locality {
        region: part("region"),
        zone: part("zone"),
        subzone: part("subzone"),
    }
}

/// An empty trust domain is `cluster.local`, as in Istio's discovery protocol. (In ztunnel's file it stays empty
/// and yields an identity that nobody can prove.)
fn read_identity(object: &Object<'_>, namespace: &str) -> Option<SpiffeId> {
    let or = |name, default| match object.text_or_empty(name) {
        "" => default,
        text => text,
    };
    let identity = SpiffeId::new(
        or("trustDomain", "cluster.local"),
        namespace,
        or("serviceAccount", "default"),
    );
    identity
        .map_err(|error| {
            object.field().problem(
                format!("the identity `{}` is not possible: {}", error.value, error.reason),
                "correct `trustDomain`, `namespace` or `serviceAccount`",
            );
        })
        .ok()
}

fn read_addresses(reader: &Reader, object: &Object<'_>) -> Vec<(IpAddr, Place)> {
    let Some(field) = object.require("workloadIps", "write the workload's addresses, e.g. [10.0.0.1]") else {
        return Vec::new();
    };
    let items = field.list("a list of addresses").unwrap_or_default();
    if items.is_empty() && field.is_list() {
        match object.get("hostname") {
            Some(hostname) => reader.warn(
                &hostname,
                "host names are not resolved, so this workload is never chosen",
                "give it `workloadIps`",
            ),
            None => field.problem(
                "a workload without an address cannot be reached",
                "write e.g. [10.0.0.1]",
            ),
        }
    }
    items
        .into_iter()
        .filter_map(|item| Some((read_ip(&item)?, Place::from(&item))))
        .collect()
}

fn read_services(object: &Object<'_>) -> (Serves, Vec<(ServiceName, Place)>) {
    const FORM: &str = "a map such as {\"namespace/hostname\": {80: 8080}}";
    let entries = object
        .get("services")
        .and_then(|field| field.entries(FORM))
        .unwrap_or_default();
    let (mut serves, mut places) = (Serves::new(), Vec::new());
    for (key, ports) in entries {
        if let Some(name) = read_service_name(&key) {
            places.push((name.clone(), Place::from(&key)));
            serves.insert(name, read_ports(&ports, 1));
        }
    }
    (serves, places)
}

pub(super) fn read_waypoint(reader: &Reader, object: &Object<'_>) -> bool {
    let Some(waypoint) = object.get("waypoint") else {
        return false;
    };
    check_gateway(&waypoint);
    reader.warn(
        &waypoint,
        "waypoints are not supported yet, so connections that would have to pass it are refused",
        "remove the waypoint to connect directly",
    );
    true
}

fn check_unused(reader: &Reader, object: &Object<'_>) {
    for label in LABELS {
        object.text_or_empty(label);
    }
    if let Some(network) = object.get("network") {
        warn_network(reader, &network, network.text().unwrap_or_default());
    }
    if let Some(native) = object.get("nativeTunnel") {
        native.bool();
    }
    if let Some(gateway) = object.get("networkGateway") {
        check_gateway(&gateway);
        reader.warn(
            &gateway,
            "gateways to other networks are not used",
            "make the addresses reachable directly",
        );
    }
    if let Some(tunnel) = object.get("applicationTunnel") {
        check_tunnel(reader, &tunnel);
    }
}

fn check_tunnel(reader: &Reader, field: &Field<'_>) {
    let Some(tunnel) = field.object(&["protocol", "port"]) else {
        return;
    };
    if let Some(port) = tunnel.get("port") {
        port.parse::<std::num::NonZeroU16>("port", "write a number from 1 to 65535");
    }
    let protocol = tunnel.require("protocol", "write NONE or PROXY");
    if protocol.and_then(|f| f.one_of(&[("NONE", false), ("PROXY", true)])) == Some(true) {
        reader.warn(
            field,
            "the PROXY protocol is not spoken to this workload",
            "let it accept plain connections",
        );
    }
}
