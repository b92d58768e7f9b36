//! Addresses, names and gateways as the registry spells them.

use std::net::IpAddr;

use super::reader::Reader;
use crate::document::Field;
use crate::model::ServiceName;

/// An address that a host can have.
pub(super) fn read_ip(field: &Field<'_>) -> Option<IpAddr> {
    let ip: IpAddr = field.parse("IP address", "write one such as 10.0.0.1 or fd00::1")?;
    usable(field, ip)
}

/// `network/ip`, the network often empty: `/10.96.0.10`.
pub(super) fn read_network_address(reader: &Reader, field: &Field<'_>) -> Option<IpAddr> {
    let text = field.text()?;
    let Some((network, ip)) = text.split_once('/') else {
        let remedy = match text.parse::<IpAddr>() {
            Ok(_) => format!("write \"/{text}\": the network, here empty, stands before the slash"),
            Err(_) => "write \"network/ip\", or \"/ip\" for no network".to_owned(),
        };
        field.problem(format!("`{text}` is no address with a network"), remedy);
        return None;
    };
    let Ok(ip) = ip.parse::<IpAddr>() else {
        field.problem(
            format!("`{ip}` is no IP address"),
            "write \"network/ip\" such as \"/10.96.0.10\" or \"/fd00::10\"",
        );
        return None;
    };
    warn_network(reader, field, network);
    usable(field, ip)
}

/// Outrigger knows one network, so a name of one decides nothing.
pub(super) fn warn_network(reader: &Reader, field: &Field<'_>, network: &str) {
    if !network.is_empty() {
        reader.warn(
            field,
            format!("the network `{network}` is not told apart from any other"),
            "make sure that the address is reachable directly and belongs to one host",
        );
    }
}

fn usable(field: &Field<'_>, ip: IpAddr) -> Option<IpAddr> {
    let ip = ip.to_canonical();
    if ip.is_unspecified() || ip.is_multicast() {
        field.problem(
            format!("`{ip}` is not the address of one host"),
            "write a unicast address",
        );
        return None;
    }
    Some(ip)
}

/// `namespace/name`, both present.
pub(super) fn read_pair<'d>(field: &Field<'d>, what: &str) -> Option<(&'d str, &'d str)> {
    let text = field.text()?;
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Some((namespace, name))
        }
        _ => {
            field.problem(
                format!("`{text}` is no {what}"),
                format!("write \"namespace/{what}\""),
            );
            None
        }
    }
}

pub(super) fn read_service_name(field: &Field<'_>) -> Option<ServiceName> {
    let (namespace, hostname) = read_pair(field, "hostname")?;
    Some(ServiceName {
        namespace: namespace.into(),
        hostname: hostname.into(),
    })
}

/// A waypoint or gateway: its form is checked, for nothing is done with it yet.
pub(super) fn check_gateway(field: &Field<'_>) {
    let Some(object) = field.object(&["destination", "hboneMtlsPort"]) else {
        return;
    };
    if let Some(text) = object.require("destination", "write \"network/ip\" or \"namespace/hostname\"") {
        let parts = text.text().and_then(|text| text.split_once('/'));
        if parts.is_none_or(|(_, place)| place.is_empty() || place.contains('/')) {
            text.problem(
                "this names no gateway",
                "write \"network/ip\" or \"namespace/hostname\"",
            );
        }
    }
    if let Some(port) = object.require("hboneMtlsPort", "write the gateway's HBONE port, mostly 15008") {
        port.parse::<std::num::NonZeroU16>("port", "write a number from 1 to 65535");
    }
}
