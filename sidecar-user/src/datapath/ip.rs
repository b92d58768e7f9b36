//! Addresses as the programs have them, and as everybody else has.

use std::net::IpAddr;

use sidecar_ebpf::addr::Ip;

/// In canonical form.
pub(super) fn user_ip(ip: Ip) -> IpAddr {
    let octets: [u8; 16] = bytemuck::cast(ip);
    IpAddr::from(octets).to_canonical()
}

pub(super) fn kernel_ip(ip: IpAddr) -> Ip {
    Ip::from_octets(match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    })
}
