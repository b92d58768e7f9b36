//! Reads a capture: Ethernet frames with TCP over IPv4 or IPv6, streams put together again, TLS hellos. Knows the
//! classic pcap format as written on this machine, and puts no IP fragments together.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, bail};
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};

/// A finished capture.
#[derive(Debug, Default)]
pub struct Recording {
    frames: Vec<Vec<u8>>,
    segments: Vec<Segment>,
}

/// One TCP segment.
#[derive(Clone, Debug)]
pub struct Segment {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub sequence: u32,
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    pub payload: Vec<u8>,
}

/// `0x0304` on the wire.
pub const TLS13: u16 = 0x0304;

impl Recording {
    pub fn read(file: &Path) -> Result<Self> {
        let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        Self::parse(&bytes)
    }

    /// A frame at the end that is still being written is left out.
    fn parse(bytes: &[u8]) -> Result<Self> {
        const MICROSECONDS: u32 = 0xa1b2_c3d4;
        const ETHERNET: u32 = 1;
        let Some(header) = bytes.get(..24) else {
            return Ok(Self::default());
        };
        if (u32_ne(header, 0), u32_ne(header, 20)) != (Some(MICROSECONDS), Some(ETHERNET)) {
            bail!("not a pcap file of Ethernet frames in this machine's byte order");
        }
        let mut recording = Self::default();
        let mut rest = &bytes[24..];
        while let Some(length) = u32_ne(rest, 8) {
            let Some(frame) = rest.get(16..16 + length as usize) else {
                break;
            };
            recording.segments.extend(Segment::parse(frame));
            recording.frames.push(frame.to_vec());
            rest = &rest[16 + length as usize..];
        }
        Ok(recording)
    }

    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether these bytes went over the bridge: in one frame of any kind, or across the segments of a stream.
    pub fn holds(&self, needle: &[u8]) -> bool {
        self.frames.iter().any(|frame| contains(frame, needle))
            || self.streams().values().any(|stream| contains(stream, needle))
    }

    /// The directions of connections, from and to, in which these bytes went.
    pub fn who_sent(&self, needle: &[u8]) -> Vec<(SocketAddr, SocketAddr)> {
        let streams = self.streams().into_iter();
        streams
            .filter(|(_, stream)| contains(stream, needle))
            .map(|(ends, _)| ends)
            .collect()
    }

    /// Segments between two hosts, either way.
    pub fn between(&self, a: IpAddr, b: IpAddr) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(move |segment| {
            let ends = (segment.from.ip(), segment.to.ip());
            ends == (a, b) || ends == (b, a)
        })
    }

    /// Each direction of each connection, its bytes in order, duplicates dropped.
    pub fn streams(&self) -> BTreeMap<(SocketAddr, SocketAddr), Vec<u8>> {
        let mut directions: BTreeMap<_, Vec<&Segment>> = BTreeMap::new();
        for segment in &self.segments {
            directions
                .entry((segment.from, segment.to))
                .or_default()
                .push(segment);
        }
        directions
            .into_iter()
            .map(|(ends, segments)| (ends, assemble(&segments)))
            .collect()
    }

    /// The TLS version each server on `port` chose, one entry a connection that got so far.
    pub fn tls_versions(&self, port: u16) -> Vec<u16> {
        self.tls_versions_of(|server| server.port() == port)
    }

    /// The same of the servers that are meant.
    pub fn tls_versions_of(&self, is_meant: impl Fn(&SocketAddr) -> bool) -> Vec<u16> {
        let streams = self.streams();
        let from_servers = streams.iter().filter(|((from, _), _)| is_meant(from));
        from_servers
            .filter_map(|(_, stream)| server_hello_version(stream))
            .collect()
    }
}

impl Segment {
    fn parse(frame: &[u8]) -> Option<Self> {
        // Lax, for lengths that the kernel leaves to the network card.
        let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
        let (source, destination): (IpAddr, IpAddr) = match packet.net? {
            LaxNetSlice::Ipv4(ip) => (
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
            ),
            LaxNetSlice::Ipv6(ip) => (
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
            ),
            LaxNetSlice::Arp(_) => return None,
        };
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
            return None;
        };
        Some(Self {
            from: SocketAddr::new(source, tcp.source_port()),
            to: SocketAddr::new(destination, tcp.destination_port()),
            sequence: tcp.sequence_number(),
            syn: tcp.syn(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            payload: tcp.payload().to_vec(),
        })
    }
}

/// Orders by distance from the first sequence number seen, which also survives its wrap.
fn assemble(segments: &[&Segment]) -> Vec<u8> {
    let Some(first) = segments
        .iter()
        .find(|s| !s.rst)
        .map(|s| s.sequence.wrapping_add(u32::from(s.syn)))
    else {
        return Vec::new();
    };
    let mut parts: Vec<(u32, &[u8])> = segments
        .iter()
        .filter(|segment| !segment.payload.is_empty())
        .map(|segment| (segment.sequence.wrapping_sub(first), &*segment.payload))
        .collect();
    parts.sort_by_key(|(offset, _)| *offset);
    let mut stream: Vec<u8> = Vec::new();
    for (offset, payload) in parts {
        let seen = stream.len().saturating_sub(offset as usize);
        stream.extend(payload.get(seen..).unwrap_or_default());
    }
    stream
}

/// RFC 8446 section 4.1.3: the version is in the extension supported_versions, or, before TLS 1.3, in the hello.
fn server_hello_version(stream: &[u8]) -> Option<u16> {
    const HANDSHAKE: u8 = 22;
    const SERVER_HELLO: u8 = 2;
    const SUPPORTED_VERSIONS: u16 = 43;
    let hello = stream
        .get(5..)
        .filter(|hello| stream[0] == HANDSHAKE && hello.first() == Some(&SERVER_HELLO))?;
    let session = usize::from(*hello.get(38)?);
    let mut extensions = hello.get(39 + session + 5..)?;
    while let (Some(kind), Some(length)) = (u16_be(extensions, 0), u16_be(extensions, 2)) {
        if kind == SUPPORTED_VERSIONS {
            return u16_be(extensions, 4);
        }
        extensions = extensions.get(4 + usize::from(length)..)?;
    }
    u16_be(hello, 4)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn u16_be(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_ne(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(sequence: u32, payload: &[u8]) -> Segment {
        Segment {
            from: "10.0.0.1:1".parse().unwrap(),
            to: "10.0.0.2:2".parse().unwrap(),
            sequence,
            syn: false,
            fin: false,
            rst: false,
            payload: payload.to_vec(),
        }
    }

    #[test]
    fn a_needle_across_two_segments_is_found_whatever_their_order() {
        let segments = vec![
            segment(u32::MAX - 1, b"the "),
            segment(6, b"et"),
            segment(2, b"secr"),
            segment(2, b"sec"),
        ];
        let recording = Recording {
            frames: Vec::new(),
            segments,
        };
        assert!(recording.holds(b"secret"));
        assert!(!recording.holds(b"secrets"));
    }

    #[test]
    fn the_version_comes_from_the_extension_not_from_the_hello() {
        let mut hello = vec![22, 3, 3, 0, 0, 2, 0, 0, 0, 3, 3];
        hello.extend([0; 32]);
        hello.extend([0, 0x13, 0x01, 0, 0, 12]);
        hello.extend([0, 51, 0, 2, 0, 0]);
        hello.extend([0, 43, 0, 2, 3, 4]);
        assert_eq!(server_hello_version(&hello), Some(TLS13));
        hello.truncate(hello.len() - 6);
        assert_eq!(server_hello_version(&hello), Some(0x0303));
    }
}
