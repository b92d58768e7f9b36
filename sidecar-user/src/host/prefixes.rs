//! An address of a prefix that no longer prefix of the set holds: what the kernel says about it, it says about all that
//! the prefix alone decides. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// `None`: longer ones cover it, and it decides nothing.
pub(super) fn sample(prefix: &IpNet, set: &BTreeSet<IpNet>) -> Option<IpAddr> {
    let (first, last) = (number(prefix.network()), number(prefix.broadcast()));
    // From the middle, because the ends of prefixes are special: zeros and broadcasts.
    let middle = first + (last - first).div_ceil(2);
    search(prefix, set, middle, last).or_else(|| search(prefix, set, first, middle))
}

fn search(prefix: &IpNet, set: &BTreeSet<IpNet>, mut from: u128, last: u128) -> Option<IpAddr> {
    while from <= last {
        let candidate = address(from, prefix.addr().is_ipv4());
        match longer(prefix, set, candidate) {
            None => return Some(candidate),
            Some(inner) => from = number(inner.broadcast()).checked_add(1)?,
        }
    }
    None
}

/// The shortest prefix of the set within `prefix` that holds the address, so that the search leaps over it.
fn longer(prefix: &IpNet, set: &BTreeSet<IpNet>, ip: IpAddr) -> Option<IpNet> {
    (prefix.prefix_len() + 1..=prefix.max_prefix_len())
        .filter_map(|len| IpNet::new(ip, len).ok())
        .map(|net| net.trunc())
        .find(|net| set.contains(net))
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    if v4 {
        Ipv4Addr::from(number as u32).into()
    } else {
        Ipv6Addr::from(number).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(prefixes: &[&str]) -> BTreeSet<IpNet> {
        prefixes.iter().map(|p| p.parse().expect("a prefix")).collect()
    }

    fn sampled(prefix: &str, others: &[&str]) -> Option<String> {
        let prefix: IpNet = prefix.parse().expect("a prefix");
        sample(&prefix, &set(others)).map(|ip| ip.to_string())
    }

    #[test]
    fn the_sample_is_held_by_no_longer_prefix() {
        assert_eq!(sampled("10.0.0.0/24", &[]).as_deref(), Some("10.0.0.128"));
        assert_eq!(
            sampled("10.0.0.0/24", &["10.0.0.0/24", "10.0.0.128/26", "10.0.0.192/32"]).as_deref(),
            Some("10.0.0.193")
        );
        assert_eq!(
            sampled("10.0.0.0/24", &["10.0.0.128/25"]).as_deref(),
            Some("10.0.0.0"),
            "the lower half"
        );
        assert_eq!(
            sampled("::/0", &["8000::/1", "::/8"]).as_deref(),
            Some("100::"),
            "to the last address and back"
        );
        assert_eq!(
            sampled("10.0.0.1/32", &["10.0.0.1/32"]).as_deref(),
            Some("10.0.0.1")
        );
    }

    #[test]
    fn a_prefix_that_longer_ones_cover_has_no_sample() {
        assert_eq!(sampled("10.0.0.0/24", &["10.0.0.0/25", "10.0.0.128/25"]), None);
        assert_eq!(sampled("::/0", &["::/1", "8000::/1"]), None);
    }
}
