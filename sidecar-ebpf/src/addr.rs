//! Addresses as the kernel holds them: network byte order. The only place where bytes are swapped.
//!
//! Does not parse or print; user space has `std::net` for that.

use bytemuck::{Pod, Zeroable};

/// An IP address as four words in network order. IPv4 has one spelling, the v4-mapped one, so that the two ends
/// of a connection agree whatever family their sockets have.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Ip([u32; 4]);

/// A TCP port in network order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Port(u16);

/// Where a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub ip: Ip,
    pub port: Port,
}

const MAPPED: u32 = 0x0000_ffff_u32.to_be();

impl Ip {
    pub const LOOPBACK6: Self = Self([0, 0, 0, 1_u32.to_be()]);

    /// 192.0.0.8, the dummy address of RFC 7600: no host has it, and no rule of anybody's is made for it.
    pub const NOBODY4: Self = Self::from_v4(0xc000_0008_u32.to_be());

    /// From a word in network order, as `user_ip4` and its like hold it.
    #[inline(always)]
    pub const fn from_v4(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// From words in network order, as `user_ip6` and its like hold them.
    #[inline(always)]
    pub const fn from_v6(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// From the bytes of the address; IPv4 in its v4-mapped form.
    pub const fn from_octets(octets: [u8; 16]) -> Self {
        let o = octets;
        Self([
            u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
            u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
            u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
            u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
        ])
    }

    /// 127.a.b.c, where the low 24 bits of `host` are a, b and c.
    #[inline(always)]
    pub const fn loopback4(host: u32) -> Self {
        Self::from_v4((0x7f00_0000 | (host & 0x00ff_ffff)).to_be())
    }

    /// 127.128.a.b: where the proxy dials an application from when the pod's own address has no port left. No program is
    /// shown it.
    #[inline(always)]
    pub const fn spare_source(number: u16) -> Self {
        Self::loopback4(0x0080_0000 | number as u32)
    }

    #[inline(always)]
    pub const fn is_spare_source(self) -> bool {
        self.is_v4() && u32::from_be(self.0[3]) >> 16 == 0x7f80
    }

    /// In 127.64.0.0/10, where redirected IPv4 connections arrive.
    #[inline(always)]
    pub const fn is_spread4(self) -> bool {
        self.is_v4() && u32::from_be(self.0[3]) >> 22 == 0x7f40 >> 6
    }

    /// The words in network order.
    #[inline(always)]
    pub const fn words(self) -> [u32; 4] {
        self.0
    }

    /// The IPv4 address, in network order, if it is one.
    #[inline(always)]
    pub const fn v4(self) -> Option<u32> {
        if self.is_v4() { Some(self.0[3]) } else { None }
    }

    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        (self.0[0] | self.0[1]) == 0 && self.0[2] == MAPPED
    }

    /// 127/8, ::1, and the unspecified address, which connect() takes for loopback: the hook still sees zeros.
    #[inline(always)]
    pub const fn is_loopback(self) -> bool {
        if self.is_v4() {
            let host = u32::from_be(self.0[3]);
            host >> 24 == 127 || host == 0
        } else {
            (self.0[0] | self.0[1] | self.0[2]) == 0 && u32::from_be(self.0[3]) <= 1
        }
    }

    /// 127/8 or ::1: what a redirected socket has for its own address, unless it was bound to another.
    #[inline(always)]
    pub const fn is_redirected_source(self) -> bool {
        if self.is_v4() {
            u32::from_be(self.0[3]) >> 24 == 127
        } else {
            self.same(&Self::LOOPBACK6)
        }
    }

    /// :: in words; the unspecified IPv4 address is another.
    #[inline(always)]
    pub const fn is_zero(self) -> bool {
        (self.0[0] | self.0[1] | self.0[2] | self.0[3]) == 0
    }

    /// No address, in either family.
    #[inline(always)]
    pub const fn is_unspecified(self) -> bool {
        self.is_zero() || (self.is_v4() && self.0[3] == 0)
    }

    /// Multicast in either family, and the broadcast address.
    #[inline(always)]
    pub const fn is_multicast(self) -> bool {
        if self.is_v4() {
            let host = u32::from_be(self.0[3]);
            host >> 28 == 0xe || host == u32::MAX
        } else {
            u32::from_be(self.0[0]) >> 24 == 0xff
        }
    }

    /// fe80::/10, which means nothing without an interface.
    #[inline(always)]
    pub const fn is_link_local6(self) -> bool {
        u32::from_be(self.0[0]) & 0xffc0_0000 == 0xfe80_0000
    }

    /// Equality without a call: LLVM makes a `bcmp` of the derived one.
    #[inline(always)]
    pub const fn same(self, other: &Self) -> bool {
        ((self.0[0] ^ other.0[0])
            | (self.0[1] ^ other.0[1])
            | (self.0[2] ^ other.0[2])
            | (self.0[3] ^ other.0[3]))
            == 0
    }
}

impl Port {
    #[inline(always)]
    pub const fn new(host_order: u16) -> Self {
        Self(host_order.to_be())
    }

    /// From `user_port` of a socket address context: network order in the low half of the word.
    #[inline(always)]
    pub const fn from_user_port(word: u32) -> Self {
        Self(word as u16)
    }

    /// From `local_port` of a sockops or lookup context: host order.
    #[inline(always)]
    pub const fn from_local_port(word: u32) -> Self {
        Self::new(word as u16)
    }

    /// From `remote_port` of a sockops context: the word as a whole is in network order.
    #[inline(always)]
    pub const fn from_remote_port(word: u32) -> Self {
        Self::new(u32::from_be(word) as u16)
    }

    /// From `remote_port` of a lookup context: network order.
    #[inline(always)]
    pub const fn from_network(half: u16) -> Self {
        Self(half)
    }

    /// As `user_port` wants it.
    #[inline(always)]
    pub const fn to_user_port(self) -> u32 {
        self.0 as u32
    }

    /// As `sin_port` wants it.
    #[inline(always)]
    pub const fn network_order(self) -> u16 {
        self.0
    }

    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn ip(text: &str) -> Ip {
        match text.parse().unwrap() {
            std::net::IpAddr::V4(v4) => Ip::from_octets(v4.to_ipv6_mapped().octets()),
            std::net::IpAddr::V6(v6) => Ip::from_octets(v6.octets()),
        }
    }

    #[test]
    fn both_spellings_of_ipv4_are_one() {
        assert_eq!(ip("10.1.2.3"), ip("::ffff:10.1.2.3"));
        assert_eq!(
            ip("10.1.2.3"),
            Ip::from_v4(u32::from(Ipv4Addr::new(10, 1, 2, 3)).to_be())
        );
        assert_eq!(ip("10.1.2.3").v4(), Some(u32::from_ne_bytes([10, 1, 2, 3])));
        assert_eq!(ip("fd00::1").v4(), None);
    }

    #[test]
    fn loopback_includes_the_unspecified_address_in_every_spelling() {
        for local in [
            "127.0.0.1",
            "127.255.0.9",
            "0.0.0.0",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:0.0.0.0",
        ] {
            assert!(ip(local).is_loopback(), "{local}");
        }
        for other in ["126.0.0.1", "128.0.0.1", "0.0.0.1", "::2", "fd00::1", "::7f00:1"] {
            assert!(!ip(other).is_loopback(), "{other}");
        }
    }

    #[test]
    fn multicast_and_broadcast_are_no_hosts() {
        for group in [
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "ff02::1",
            "::ffff:224.0.0.1",
        ] {
            assert!(ip(group).is_multicast(), "{group}");
        }
        for host in ["223.255.255.255", "240.0.0.1", "255.255.255.254", "fe80::1", "::"] {
            assert!(!ip(host).is_multicast(), "{host}");
        }
    }

    #[test]
    fn link_local_is_fe80_slash_10() {
        assert!(ip("fe80::1").is_link_local6() && ip("febf::1").is_link_local6());
        assert!(!ip("fec0::1").is_link_local6() && !ip("169.254.0.1").is_link_local6());
    }

    #[test]
    fn a_port_is_read_in_the_form_that_each_context_has() {
        let port = Port::new(15001);
        assert_eq!(port.get(), 15001);
        assert_eq!(Port::from_user_port(u32::from(15001_u16.to_be())), port);
        assert_eq!(Port::from_local_port(15001), port);
        assert_eq!(Port::from_remote_port(15001_u32.to_be()), port);
        assert_eq!(Port::from_user_port(port.to_user_port()), port);
    }

    #[test]
    fn spread_addresses_stay_in_127() {
        for host in [0, 1, 0xff_ffff, u32::MAX] {
            let v4 = Ip::loopback4(host).v4().unwrap().to_ne_bytes();
            assert_eq!(v4[0], 127, "{}", Ipv4Addr::from(v4));
        }
        assert_eq!(Ip::LOOPBACK6, Ip::from_octets(Ipv6Addr::LOCALHOST.octets()));
    }
}
