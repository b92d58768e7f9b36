//! One entry of `services`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::address::{check_gateway, read_network_address};
use super::balancing;
use super::reader::{Place, Reader, read_ports};
use super::workload::read_waypoint;
use crate::document::{Field, Object};
use crate::model::{Service, ServiceName, SpiffeId};

pub(super) struct Entry {
    pub service: Service,
    pub place: Place,
    pub places: Vec<(IpAddr, Place)>,
    pub waypoint: bool,
}

const KEYS: [&str; 15] = [
    "name",
    "namespace",
    "hostname",
    "vips",
    "ports",
    "subjectAltNames",
    "canonical",
    "cidrVips",
    "waypoint",
    "weightedWaypoints",
    "loadBalancer",
    "sessionAffinity",
    "ipFamilies",
    "visibility",
    "endpoints",
];

pub(super) fn read(reader: &Reader, field: &Field<'_>) -> Option<Entry> {
    let object = field.object(&KEYS)?;
    let places = object.list_of("vips", "a list of \"network/ip\"", |item| {
        Some((read_network_address(reader, &item)?, Place::from(&item)))
    });
    let ports = object.require("ports", "write e.g. {80: 8080}");
    let ports = ports.map(|field| read_ports(&field, 0)).unwrap_or_default();
    let subject_alt_names = read_names(reader, &object);
    let weighted = read_weighted_waypoints(reader, &object);
    let waypoint = read_waypoint(reader, &object) || weighted;
    let balancing = object.get("loadBalancer");
    let balancing = balancing
        .map(|field| balancing::read(reader, &field))
        .unwrap_or_default();
    let affinity = object.get("sessionAffinity");
    let affinity = affinity.and_then(|field| balancing::read_affinity(&field));
    check_unused(reader, &object);
    let name = read_name(&object)?;
    Some(Entry {
        service: Service {
            name,
            vips: places.iter().map(|(ip, _)| *ip).collect(),
            ports,
            subject_alt_names,
            balancing,
            affinity,
        },
        place: Place::from(field),
        places,
        waypoint,
    })
}

fn read_name(object: &Object<'_>) -> Option<ServiceName> {
    let required = |name| {
        let field = object.require(name, "every service has `name`, `namespace` and `hostname`")?;
        let text = field.text()?;
        if text.is_empty() {
            field.problem(
                "this is empty",
                "every service has `name`, `namespace` and `hostname`",
            );
        }
        Some(text)
    };
    let (_, namespace, hostname) = (required("name"), required("namespace"), required("hostname"));
    Some(ServiceName {
        namespace: namespace?.into(),
        hostname: hostname?.into(),
    })
}

fn read_names(reader: &Reader, object: &Object<'_>) -> Vec<SpiffeId> {
    object.list_of("subjectAltNames", "a list of SPIFFE IDs", |item| {
        let text = item.text()?;
        let id = text.parse().ok();
        if id.is_none() {
            reader.warn(
                &item,
                format!("`{text}` is no workload identity, so no server can prove it"),
                "write spiffe://<trust domain>/ns/<namespace>/sa/<service account>",
            );
        }
        id
    })
}

fn read_weighted_waypoints(reader: &Reader, object: &Object<'_>) -> bool {
    let Some(field) = object.get("weightedWaypoints") else {
        return false;
    };
    let items = field.list("a list of {destination, weight}").unwrap_or_default();
    for item in &items {
        let Some(waypoint) = item.object(&["destination", "weight"]) else {
            continue;
        };
        if let Some(destination) =
            waypoint.require("destination", "write {destination: …, hboneMtlsPort: 15008}")
        {
            check_gateway(&destination);
        }
        if let Some(weight) = waypoint.require("weight", "write a whole number") {
            weight.parse::<u32>("weight", "write a whole number");
        }
    }
    if !items.is_empty() {
        reader.warn(
            &field,
            "waypoints are not supported yet, so connections to this service are refused",
            "remove them to connect directly",
        );
    }
    !items.is_empty()
}

fn check_unused(reader: &Reader, object: &Object<'_>) {
    if let Some(canonical) = object.get("canonical") {
        canonical.bool();
    }
    if let Some(families) = object.get("ipFamilies") {
        families.one_of(&[("Dual", ()), ("IPv4", ()), ("IPv6", ())]);
    }
    if let Some(visibility) = object.get("visibility")
        && visibility.one_of(&[("Public", false), ("Namespace", true)]) == Some(true)
    {
        reader.warn(
            &visibility,
            "visibility is not limited",
            "restrict who may connect by a policy",
        );
    }
    if let Some(endpoints) = object.get("endpoints")
        && endpoints
            .list("no endpoints")
            .is_none_or(|items| !items.is_empty())
    {
        endpoints.problem(
            "endpoints come from workloads",
            "remove this, and name the service in `workloads`",
        );
    }
    object.list_of("cidrVips", "a list of {network, cidr}", |item| {
        let range = item.object(&["network", "cidr"])?;
        range.text_or_empty("network");
        let cidr = range.require("cidr", "write a network such as 10.0.0.0/24")?;
        cidr.parse::<IpNet>("network", "write one such as 10.0.0.0/24")?;
        reader.warn(
            &item,
            "ranges of virtual addresses are not matched",
            "list single addresses in `vips`",
        );
        Some(())
    });
}
