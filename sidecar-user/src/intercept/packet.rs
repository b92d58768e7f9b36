//! The packets that answer a held SYN: the SYN again, a refusal, or "unreachable". Pure: bytes in, bytes out.
//!
//! A refusal must come from a packet. The kernel would answer for the listener that it accepts.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{HeldSyn, Pair};

/// A whole IP packet, and where to send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub to: IpAddr,
    pub bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// EHOSTUNREACH
    Host,
    /// ENETUNREACH
    Net,
    /// EACCES; with IPv4 a router can say no more than EHOSTUNREACH.
    Prohibited,
}

const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const HOPS: u8 = 64;
const RST_ACK: u8 = 0x14;

/// The first SYN once more, headers only: data of a fast open is sent again by the client, as to any server that
/// does not take it.
pub fn again(syn: &HeldSyn) -> Packet {
    let (from, to) = (syn.pair.client.ip(), syn.pair.listener.ip());
    let mut tcp = syn.header.clone();
    put(&mut tcp, 16, [0, 0]);
    let sum = transport_checksum(from, to, TCP, &tcp);
    put(&mut tcp, 16, sum);
    ip(from, to, TCP, syn.traffic_class, &tcp)
}

/// ECONNREFUSED.
pub fn refusal(pair: Pair, sequence: u32) -> Packet {
    let (from, to) = (pair.listener, pair.client);
    let mut tcp = vec![0; 20];
    put(&mut tcp, 0, from.port().to_be_bytes());
    put(&mut tcp, 2, to.port().to_be_bytes());
    put(&mut tcp, 8, sequence.wrapping_add(1).to_be_bytes());
    put(&mut tcp, 12, [5 << 4, RST_ACK]);
    let sum = transport_checksum(from.ip(), to.ip(), TCP, &tcp);
    put(&mut tcp, 16, sum);
    ip(from.ip(), to.ip(), TCP, 0, &tcp)
}

/// As a router on the way would say it: with the head of the packet that cannot be delivered.
pub fn unreachable(syn: &HeldSyn, what: Unreachable) -> Packet {
    let (from, to) = (syn.pair.listener.ip(), syn.pair.client.ip());
    let offending = ip(to, from, TCP, syn.traffic_class, &syn.header).bytes;
    let v4 = from.is_ipv4();
    let (kind, code) = match (v4, what) {
        (true, Unreachable::Host) => (3, 1),
        (true, Unreachable::Net) => (3, 0),
        (false, Unreachable::Host) => (1, 3),
        (false, Unreachable::Net) => (1, 0),
        (true, Unreachable::Prohibited) => (3, 13),
        (false, Unreachable::Prohibited) => (1, 1),
    };
    let mut icmp = vec![kind, code, 0, 0, 0, 0, 0, 0];
    // An IPv4 router quotes the header and 8 bytes.
    let quoted = if v4 { 28 } else { offending.len() };
    icmp.extend_from_slice(&offending[..quoted]);
    if v4 {
        let sum = fold(add(0, &icmp));
        put(&mut icmp, 2, sum);
        ip(from, to, ICMP, 0, &icmp)
    } else {
        let sum = transport_checksum(from, to, ICMPV6, &icmp);
        put(&mut icmp, 2, sum);
        ip(from, to, ICMPV6, 0, &icmp)
    }
}

/// Puts an IP header before the payload. Both ends of a redirected connection have one family.
fn ip(from: IpAddr, to: IpAddr, protocol: u8, traffic_class: u8, payload: &[u8]) -> Packet {
    let mut bytes = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => v4_header(from, to, protocol, traffic_class, payload.len()),
        _ => v6_header(v6(from), v6(to), protocol, traffic_class, payload.len()),
    };
    bytes.extend_from_slice(payload);
    Packet { to, bytes }
}

fn v4_header(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, tos: u8, payload: usize) -> Vec<u8> {
    const DONT_FRAGMENT: u8 = 0x40;
    let mut header = vec![0; 20];
    put(&mut header, 0, [0x45, tos]);
    put(&mut header, 2, ((20 + payload) as u16).to_be_bytes());
    put(&mut header, 6, [DONT_FRAGMENT, 0, HOPS, protocol]);
    put(&mut header, 12, from.octets());
    put(&mut header, 16, to.octets());
    let sum = fold(add(0, &header));
    put(&mut header, 10, sum);
    header
}

fn v6_header(from: Ipv6Addr, to: Ipv6Addr, next: u8, traffic_class: u8, payload: usize) -> Vec<u8> {
    let mut header = vec![0; 40];
    put(&mut header, 0, [0x60 | traffic_class >> 4, traffic_class << 4]);
    put(&mut header, 4, (payload as u16).to_be_bytes());
    put(&mut header, 6, [next, HOPS]);
    put(&mut header, 8, from.octets());
    put(&mut header, 24, to.octets());
    header
}

/// The checksum of TCP and ICMPv6, which covers the addresses too.
fn transport_checksum(from: IpAddr, to: IpAddr, protocol: u8, segment: &[u8]) -> [u8; 2] {
    let addresses = |sum| match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => add(add(sum, &from.octets()), &to.octets()),
        _ => add(add(sum, &v6(from).octets()), &v6(to).octets()),
    };
    let sum = addresses(u32::from(protocol) + segment.len() as u32);
    fold(add(sum, segment))
}

/// One's complement addition of 16-bit words. A packet of ours has a few dozen: nothing overflows.
fn add(sum: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(sum, |sum, word| {
        sum + u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]))
    })
}

fn fold(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::OriginalDst;

    fn syn(client: &str, listener: &str) -> HeldSyn {
        let (client, listener): (std::net::SocketAddr, std::net::SocketAddr) =
            (client.parse().unwrap(), listener.parse().unwrap());
        let mut header = vec![0; 24];
        put(&mut header, 0, client.port().to_be_bytes());
        put(&mut header, 2, listener.port().to_be_bytes());
        put(&mut header, 4, 0xffff_ffff_u32.to_be_bytes());
        put(&mut header, 12, [6 << 4, 2]);
        // As a local sender leaves it, to be filled in by hardware.
        put(&mut header, 16, [0xab, 0xcd]);
        put(&mut header, 20, [2, 4, 0xff, 0xd7]);
        HeldSyn {
            pair: Pair { client, listener },
            sequence: 0xffff_ffff,
            original_dst: OriginalDst::new("10.0.0.1:80".parse().unwrap()),
            source: None,
            device: None,
            traffic_class: 0xb9,
            header,
        }
    }

    const V4: (&str, &str) = ("127.0.0.1:40000", "127.70.1.2:15001");
    const V6: (&str, &str) = ("[::1]:40000", "[::1]:15001");

    /// The receiver's rule: everything, the checksum included, adds up to all ones.
    fn adds_up(packet: &[u8]) -> bool {
        let (head, next) = if packet[0] >> 4 == 4 {
            (20, packet[9])
        } else {
            (40, packet[6])
        };
        let payload = &packet[head..];
        if packet[0] >> 4 == 4 && fold(add(0, &packet[..20])) != [0, 0] {
            return false;
        }
        let pseudo = match (packet[0] >> 4, next) {
            (4, ICMP) => 0,
            (4, _) => add(u32::from(next) + payload.len() as u32, &packet[12..20]),
            _ => add(u32::from(next) + payload.len() as u32, &packet[8..40]),
        };
        fold(add(pseudo, payload)) == [0, 0]
    }

    #[test]
    fn every_packet_carries_the_checksums_that_a_receiver_expects() {
        for (client, listener) in [V4, V6] {
            let syn = syn(client, listener);
            for packet in [
                again(&syn),
                refusal(syn.pair, syn.sequence),
                unreachable(&syn, Unreachable::Host),
                unreachable(&syn, Unreachable::Net),
            ] {
                assert!(adds_up(&packet.bytes), "{client}: {packet:x?}");
                let mut broken = packet.bytes.clone();
                *broken.last_mut().unwrap() ^= 1;
                assert!(!adds_up(&broken), "the test can fail");
            }
        }
    }

    #[test]
    fn the_syn_goes_again_with_its_options_and_service_class() {
        let syn4 = syn(V4.0, V4.1);
        let packet = again(&syn4);
        assert_eq!(packet.to, syn4.pair.listener.ip());
        assert_eq!(packet.bytes[1], 0xb9);
        assert_eq!(packet.bytes[2..4], 44_u16.to_be_bytes());
        assert_eq!(packet.bytes[20..36], syn4.header[..16]);
        assert_eq!(packet.bytes[40..], syn4.header[20..]);
        let packet = again(&syn(V6.0, V6.1));
        assert_eq!(packet.bytes[..2], [0x6b, 0x90]);
    }

    #[test]
    fn a_refusal_acknowledges_the_syn_and_comes_from_the_listener() {
        let syn = syn(V4.0, V4.1);
        let packet = refusal(syn.pair, syn.sequence);
        assert_eq!(packet.to, "127.0.0.1".parse::<IpAddr>().unwrap());
        let tcp = &packet.bytes[20..];
        assert_eq!(
            tcp[..4],
            [15001_u16.to_be_bytes(), 40000_u16.to_be_bytes()].concat()
        );
        assert_eq!(tcp[8..12], [0; 4], "one after the highest number");
        assert_eq!(tcp[13], RST_ACK);
    }

    #[test]
    fn unreachable_quotes_the_syn() {
        let packet = unreachable(&syn(V4.0, V4.1), Unreachable::Net);
        let icmp = &packet.bytes[20..];
        assert_eq!((icmp[0], icmp[1], icmp.len()), (3, 0, 8 + 28));
        assert_eq!(icmp[8 + 12..8 + 16], [127, 0, 0, 1], "the quoted packet's source");
        assert_eq!(icmp[8 + 20..], syn(V4.0, V4.1).header[..8]);
        let packet = unreachable(&syn(V6.0, V6.1), Unreachable::Host);
        assert_eq!(
            (packet.bytes[6], packet.bytes[40], packet.bytes[41]),
            (ICMPV6, 1, 3)
        );
    }
}
