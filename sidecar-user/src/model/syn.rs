//! A connection that the kernel holds: its SYN has come, and waits for the answer.

use std::net::{IpAddr, SocketAddr};

use super::addr::OriginalDst;

/// The two ends of a redirected connection, in canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    /// Where the application's socket sends from: loopback, or the address that it was bound to.
    pub client: SocketAddr,
    /// Where it was redirected to.
    pub listener: SocketAddr,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldSyn {
    pub pair: Pair,
    pub sequence: u32,
    pub original_dst: OriginalDst,
    /// The address that the application would have sent from, where the routes say.
    pub source: Option<IpAddr>,
    /// The interface that the application has bound its socket to.
    pub device: Option<u32>,
    /// Of the IP header.
    pub traffic_class: u8,
    /// The TCP header with its options.
    pub header: Vec<u8>,
}

/// What happens to a connection before it is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldEvent {
    Held(HeldSyn),
    /// The SYN of a connection that was told of before. By the time that this is read the connection may be accepted.
    Again(HeldSyn),
    /// A connection that nobody redirected, or that has ended while its SYN was on the way. It has to be refused.
    Stray {
        pair: Pair,
        sequence: u32,
    },
    /// The application's socket is no longer waiting: it gave up, or has got its refusal.
    Gone {
        pair: Pair,
        sequence: u32,
    },
}
