//! What has to hold of every packet that answers a SYN, judged as its receiver judges it. Takes nothing of what makes them.

use crate::model::{HeldSyn, Pair};

use super::{Packet, Unreachable, again, refusal, unreachable};

/// RFC 8200 section 5: what every link carries in one piece. A SYN with all its options fits many times.
const SMALLEST_MTU: usize = 1280;

/// All answers to a SYN.
pub(crate) fn answers(syn: &HeldSyn) {
    check(&again(syn));
    for what in [Unreachable::Host, Unreachable::Net, Unreachable::Prohibited] {
        check(&unreachable(syn, what));
    }
    refused(syn.pair, syn.sequence);
}

pub(crate) fn refused(pair: Pair, sequence: u32) {
    let packet = refusal(pair, sequence);
    check(&packet);
    assert_eq!(packet.to, pair.client.ip());
}

fn check(packet: &Packet) {
    let bytes = &packet.bytes[..];
    assert!(bytes.len() <= SMALLEST_MTU, "{} bytes", bytes.len());
    let (addresses, protocol, payload) = match bytes[0] >> 4 {
        4 => {
            assert_eq!(usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), bytes.len());
            assert_eq!(sum(&bytes[..20]), 0xffff, "the header of {bytes:x?}");
            (&bytes[12..20], bytes[9], &bytes[20..])
        }
        6 => {
            assert_eq!(
                usize::from(u16::from_be_bytes([bytes[4], bytes[5]])),
                bytes.len() - 40
            );
            (&bytes[8..40], bytes[6], &bytes[40..])
        }
        version => panic!("IP version {version}"),
    };
    // The pseudo header, which ICMP of IPv4 does without.
    let mut covered = match protocol {
        1 => Vec::new(),
        _ => {
            let length = u32::try_from(payload.len()).expect("it fits into a packet");
            [addresses, &length.to_be_bytes(), &[0, 0, 0, protocol]].concat()
        }
    };
    covered.extend_from_slice(payload);
    assert_eq!(sum(&covered), 0xffff, "{bytes:x?}");
    if protocol == 6 {
        let header = usize::from(payload[12] >> 4) * 4;
        assert!(
            (20..=payload.len()).contains(&header),
            "a TCP header of {header} bytes in {}",
            payload.len()
        );
    }
}

/// RFC 1071: everything, the checksum included, adds up to all ones.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes
        .chunks(2)
        .map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}
