//! Who has which address, so that facts can say `server-pod` instead. Finds nothing out: it is told.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::case::Family;

#[derive(Clone, Debug, clap::Args, Serialize, Deserialize)]
pub(crate) struct World {
    #[arg(long)]
    pub(crate) client4: Ipv4Addr,
    #[arg(long)]
    pub(crate) client6: Ipv6Addr,
    #[arg(long)]
    pub(crate) server4: Ipv4Addr,
    #[arg(long)]
    pub(crate) server6: Ipv6Addr,
    /// A service in front of the server, or the server itself where there are no services.
    #[arg(long)]
    pub(crate) service4: Ipv4Addr,
    #[arg(long)]
    pub(crate) service6: Ipv6Addr,
    /// A service in front of the client, or the client itself.
    #[arg(long)]
    pub(crate) own_service4: Ipv4Addr,
    #[arg(long)]
    pub(crate) own_service6: Ipv6Addr,
}

/// Ports with a role in a case, and its name.
pub(crate) type Ports = BTreeMap<u16, String>;

impl World {
    pub(crate) fn client(&self, family: Family) -> IpAddr {
        written(family, self.client4, self.client6)
    }

    pub(crate) fn server(&self, family: Family) -> IpAddr {
        written(family, self.server4, self.server6)
    }

    pub(crate) fn service(&self, family: Family) -> SocketAddr {
        let ip = written(family, self.service4, self.service6);
        SocketAddr::new(ip, service_port(family))
    }

    pub(crate) fn own_service(&self, family: Family) -> SocketAddr {
        let ip = written(family, self.own_service4, self.own_service6);
        SocketAddr::new(ip, service_port(family))
    }

    pub(crate) fn name(&self, at: SocketAddr, ports: &Ports) -> String {
        let ip = at.ip().to_canonical();
        let mapped = if ip == at.ip() { "" } else { "mapped:" };
        let host = match ip {
            IpAddr::V4(ip) if ip == self.client4 => "client-pod".into(),
            IpAddr::V4(ip) if ip == self.server4 => "server-pod".into(),
            IpAddr::V6(ip) if ip == self.client6 => "client-pod".into(),
            IpAddr::V6(ip) if ip == self.server6 => "server-pod".into(),
            other => format!("[{other}]"),
        };
        let port = match (at.port(), ports.get(&at.port())) {
            (_, Some(name)) => name.clone(),
            // Ports that nobody chose are below the range that the kernel chooses from.
            (0..32768, None) => at.port().to_string(),
            (_, None) => "ephemeral".into(),
        };
        format!("{mapped}{host}:{port}")
    }
}

/// Servers of one family must not be in the way of those of another, so each has its port of the service.
pub(crate) fn service_port(family: Family) -> u16 {
    match family {
        Family::V4 => 7004,
        Family::V6 => 7006,
        Family::Mapped => 7046,
    }
}

/// The address as a socket of that family wants it.
pub(crate) fn written(family: Family, v4: Ipv4Addr, v6: Ipv6Addr) -> IpAddr {
    match family {
        Family::V4 => v4.into(),
        Family::V6 => v6.into(),
        Family::Mapped => v4.to_ipv6_mapped().into(),
    }
}
