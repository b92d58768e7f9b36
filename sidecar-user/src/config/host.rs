//! What this machine, or the network namespace and cgroup the process is in, gives as defaults.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use nix::sys::socket::SockaddrStorage;

use crate::datapath::Netns;

/// As [`addresses`], of the network namespace of that file.
pub(super) fn addresses_in(netns: Option<&Path>) -> io::Result<Vec<IpAddr>> {
    match netns {
        Some(netns) => Netns::open(netns)
            .and_then(|netns| netns.within(addresses))
            .map_err(io::Error::other)?,
        None => addresses(),
    }
}

/// The addresses that others can reach: of every interface, without loopback and link-local ones.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    let addresses = interfaces
        .filter_map(|interface| ip(&interface.address?))
        .filter(|ip| is_reachable(*ip));
    let mut addresses: Vec<IpAddr> = addresses.collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

/// Cores that this process may use: by its affinity, and by the CPU quota of its cgroup.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| Some(IpAddr::V6(address.as_sockaddr_in6()?.ip())))
}

fn is_reachable(ip: IpAddr) -> bool {
    let local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(local || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_link_local_addresses_are_left_out() {
        for (ip, reachable) in [
            ("127.0.0.1", false),
            ("169.254.1.1", false),
            ("::1", false),
            ("fe80::1", false),
            ("10.0.0.1", true),
            ("fd99::2", true),
        ] {
            assert_eq!(is_reachable(ip.parse().unwrap()), reachable, "{ip}");
        }
        assert!(addresses().unwrap().into_iter().all(is_reachable));
    }

    #[test]
    fn there_is_a_core() {
        assert!(cores() >= 1);
    }
}
