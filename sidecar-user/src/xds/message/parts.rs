//! What workloads and services have in common: numbers of enumerations, addresses, ports, gateways.

use std::net::IpAddr;

use bytes::Bytes;

use super::address as wire;
use super::rejected::Rejected;
use crate::model::ServiceName;
use crate::model::balancing::{BalanceMode, Scope};
use crate::xds::{AppProtocol, Gateway, GatewayDestination, IpFamilies, NetworkAddress, Port, WorkloadType};

/// An enumeration, and the numbers that stand for it. A number that nobody here knows is its `None`.
pub(super) trait Numbered: Copy + PartialEq + Sized + 'static {
    const NUMBERS: &'static [(Self, i32)];

    fn number(self) -> i32 {
        let found = Self::NUMBERS.iter().find(|(value, _)| *value == self);
        found.map_or(0, |(_, number)| *number)
    }

    fn from_number(number: i32) -> Option<Self> {
        let found = Self::NUMBERS.iter().find(|(_, known)| *known == number);
        found.map(|(value, _)| *value)
    }
}

impl Numbered for WorkloadType {
    const NUMBERS: &'static [(Self, i32)] = &[
        (Self::Deployment, 0),
        (Self::CronJob, 1),
        (Self::Pod, 2),
        (Self::Job, 3),
    ];
}

impl Numbered for AppProtocol {
    const NUMBERS: &'static [(Self, i32)] = &[
        (Self::Unknown, 0),
        (Self::Http11, 1),
        (Self::Http2, 2),
        (Self::Grpc, 3),
        (Self::Tcp, 4),
        (Self::Tls, 5),
    ];
}

impl Numbered for Scope {
    const NUMBERS: &'static [(Self, i32)] = &[
        (Self::Region, 1),
        (Self::Zone, 2),
        (Self::Subzone, 3),
        (Self::Node, 4),
        (Self::Cluster, 5),
        (Self::Network, 6),
    ];
}

impl Numbered for BalanceMode {
    const NUMBERS: &'static [(Self, i32)] = &[
        (Self::Any, 0),
        (Self::Strict, 1),
        (Self::Failover, 2),
        (Self::Passthrough, 3),
    ];
}

impl Numbered for IpFamilies {
    const NUMBERS: &'static [(Self, i32)] = &[
        (Self::Automatic, 0),
        (Self::V4, 1),
        (Self::V6, 2),
        (Self::Dual, 3),
    ];
}

pub(super) fn octets(ip: IpAddr) -> Bytes {
    match ip {
        IpAddr::V4(v4) => Bytes::copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => Bytes::copy_from_slice(&v6.octets()),
    }
}

pub(super) fn ip(field: &'static str, octets: &[u8]) -> Result<IpAddr, Rejected> {
    let ip = <[u8; 4]>::try_from(octets)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from));
    // An IPv4 address is written in either form, and is one address.
    ip.map(|ip| ip.to_canonical()).map_err(|_| {
        let what = format!("an address has 4 or 16 bytes, and this has {}", octets.len());
        Rejected::field(field, what)
    })
}

pub(super) fn port(field: &'static str, number: u32) -> Result<u16, Rejected> {
    u16::try_from(number).map_err(|_| Rejected::field(field, format!("{number} is no port")))
}

/// `namespace/hostname`.
pub(super) fn service_name(field: &'static str, name: &str) -> Result<ServiceName, Rejected> {
    match name.split_once('/') {
        Some((namespace, hostname)) if !hostname.is_empty() && !hostname.contains('/') => Ok(ServiceName {
            namespace: namespace.into(),
            hostname: hostname.into(),
        }),
        _ => Err(Rejected::field(
            field,
            format!("`{}` is no namespace/hostname", name.escape_debug()),
        )),
    }
}

impl From<&NetworkAddress> for wire::NetworkAddress {
    fn from(address: &NetworkAddress) -> Self {
        Self {
            network: address.network.clone(),
            address: octets(address.address),
            length: address.length.map(u32::from),
        }
    }
}

impl TryFrom<wire::NetworkAddress> for NetworkAddress {
    type Error = Rejected;

    fn try_from(address: wire::NetworkAddress) -> Result<Self, Rejected> {
        let ip = ip("address", &address.address)?;
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        let length = address.length.map(|length| match u8::try_from(length) {
            Ok(length) if length <= bits => Ok(length),
            _ => Err(Rejected::field(
                "length",
                format!("{length} is more than {bits} bits"),
            )),
        });
        Ok(Self {
            network: address.network,
            address: ip,
            length: length.transpose()?,
        })
    }
}

impl From<&Port> for wire::Port {
    fn from(port: &Port) -> Self {
        Self {
            service_port: port.service_port.into(),
            target_port: port.target_port.into(),
            app_protocol: port.app_protocol.number(),
        }
    }
}

impl TryFrom<wire::Port> for Port {
    type Error = Rejected;

    fn try_from(port: wire::Port) -> Result<Self, Rejected> {
        Ok(Self {
            service_port: self::port("service_port", port.service_port)?,
            target_port: self::port("target_port", port.target_port)?,
            app_protocol: AppProtocol::from_number(port.app_protocol).unwrap_or_default(),
        })
    }
}

impl From<&Gateway> for wire::Gateway {
    fn from(gateway: &Gateway) -> Self {
        Self {
            destination: Some(match &gateway.destination {
                GatewayDestination::Hostname(name) => {
                    wire::GatewayDestination::Hostname(wire::NamespacedHostname {
                        namespace: name.namespace.to_string(),
                        hostname: name.hostname.to_string(),
                    })
                }
                GatewayDestination::Address(address) => wire::GatewayDestination::Address(address.into()),
            }),
            hbone_mtls_port: gateway.hbone_mtls_port.into(),
        }
    }
}

impl TryFrom<wire::Gateway> for Gateway {
    type Error = Rejected;

    fn try_from(gateway: wire::Gateway) -> Result<Self, Rejected> {
        Ok(Self {
            destination: match gateway.destination {
                Some(wire::GatewayDestination::Hostname(name)) => GatewayDestination::Hostname(ServiceName {
                    namespace: name.namespace.into(),
                    hostname: name.hostname.into(),
                }),
                Some(wire::GatewayDestination::Address(address)) => {
                    GatewayDestination::Address(address.try_into()?)
                }
                None => return Err(Rejected::field("destination", "the gateway is not named")),
            },
            hbone_mtls_port: port("hbone_mtls_port", gateway.hbone_mtls_port)?,
        })
    }
}
