//! The door for fuzzers: everything that reads bytes of a stranger or of a user, by name, with what has to hold for
//! any bytes at all.
//!
//! Here the input gets its shape; what is asserted stands in the `fuzz.rs` of the room that parses it. `tests/fuzz`
//! runs these with libFuzzer, and the tests below run them over the kept corpus and over damaged copies of it. Not in the
//! product: only tests and the feature `fuzzing` have it.

mod shape;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use crate::model::{HeldEvent, SpiffeId};
use crate::policy::{Claim, client_address};
use crate::{
    config, datapath, discovery, host, identity, intercept, issuer, observe, plugin, transport, xds,
};
use shape::{frames, pem, request, text};

/// What people are told about the input: `Ok` when it was taken, `Err` when it was refused.
pub type Told = Result<String, String>;

pub struct Target {
    pub name: &'static str,
    run: fn(&[u8]) -> Told,
}

const fn target(name: &'static str, run: fn(&[u8]) -> Told) -> Target {
    Target { name, run }
}

/// By name. Each has a file in `tests/fuzz/targets` and inputs in `tests/fuzz/corpus`.
pub const TARGETS: [Target; 21] = [
    // A query string: what a caller of the admin endpoint asks for.
    target("admin_query", |data| text(data, observe::fuzz::query)),
    // Frames of DER or of PEM, the last one the bundle: what an authority answered.
    target("certificate_answer", |data| identity::fuzz::answer(&pems(data))),
    // An `authorization` header up to the first line feed, then a message in protobuf: what a caller of the authority
    // sends. The bytes `@TOKEN` in the header stand for a token that is known.
    target("certificate_call", |data| {
        let (authorization, message) = shape::split_line(data);
        issuer::api::fuzz::call(authorization, message)
    }),
    // DER: the certificate that a peer of the mesh presents.
    target("certificate_peer", transport::tls::fuzz::certificate),
    // DER or PEM: a PKCS#10 request.
    target("certificate_request", |data| {
        issuer::fuzz::sign(&pem("CERTIFICATE REQUEST", data))
    }),
    // YAML: a file of any kind, as `outrigger config check` is given it.
    target("config_file", |data| text(data, config::fuzz::file)),
    // A status and header lines: what a peer answers to CONNECT.
    target("connect_answer", |data| {
        transport::hbone::fuzz::connect_answer(request(data)?.headers())
    }),
    // Protobuf: a request of a discovery stream, as a client sends it.
    target("discovery_request", xds::message::fuzz::request),
    // Protobuf, behind a byte that tells its type: a workload or service (even), or a policy.
    target("discovery_resource", |data| {
        let (kind, encoded) = data.split_first().ok_or("it is empty")?;
        let kind = xds::Kind::ALL[usize::from(kind % 2)];
        xds::message::fuzz::resource(kind, encoded)
    }),
    // Protobuf: a response of a discovery stream, as a server sends it.
    target("discovery_response", xds::message::fuzz::response),
    // A method, an authority and header lines: what a peer asks for.
    target("hbone_request", hbone_request),
    // The bytes of a tunnel, inside TLS: everything that a peer can send before and after its requests.
    target("hbone_tunnel", transport::hbone::server::fuzz::tunnel),
    // A record of the kernel's ring: a SYN that waits, and what it is answered with.
    target("held_syn", held_syn),
    // YAML: what is intercepted.
    target("interception_policy", |data| {
        text(data, datapath::policy::fuzz::policy)
    }),
    // A datagram of netlink, behind a byte that tells its protocol.
    target("netlink", host::fuzz::answers),
    // JSON: what the admin endpoint answers to the plugin.
    target("plugin_answer", |data| text(data, plugin::fuzz::answer)),
    // YAML: what exists.
    target("registry", |data| text(data, discovery::file::fuzz::registry)),
    // Two positions of 8 bytes each, then the data: the memory of a ring of the kernel.
    target("ring", datapath::fuzz::ring),
    // PEM: the roots of the authority that the proxy asks.
    target("root_bundle", identity::fuzz::roots),
    // The token that the proxy shows to the authority.
    target("token_file", identity::fuzz::token),
    // JSON: the authority's list of tokens.
    target("token_list", issuer::fuzz::tokens),
];

/// Runs one input. Panics when something does not hold.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    target.expect("a target of that name").run(data);
}

impl Target {
    /// Whether the input was taken.
    fn run(&self, data: &[u8]) -> bool {
        let told = (self.run)(data);
        let (Ok(words) | Err(words)) = &told;
        // Terminals obey control characters, and these words may be a stranger's.
        let control = words.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(control, None, "people are told {words:?}");
        told.is_ok()
    }
}

fn pems(data: &[u8]) -> Vec<String> {
    frames(data)
        .into_iter()
        .map(|frame| pem("CERTIFICATE", frame))
        .collect()
}

/// The client that a request names is believed only where the peer may speak for it.
fn hbone_request(data: &[u8]) -> Told {
    let forwarded = transport::hbone::fuzz::request(&request(data)?)?;
    let tunnel = SocketAddr::from(([10, 0, 0, 1], 999));
    let own = IpAddr::from([10, 0, 0, 9]);
    let peer = SpiffeId::new("td.test", "demo", "client").expect("a valid identity");
    for registered in [None, Some(&peer)] {
        let shown = client_address(&Claim {
            claimed: forwarded.client,
            tunnel,
            peer: &peer,
            registered,
            own: &[own],
        });
        assert!(registered.is_some() || shown.ip() == tunnel.ip(), "{shown}");
        assert!(
            !shown.ip().is_loopback() && shown.ip() != own && shown.port() != 0,
            "{shown}"
        );
        assert!(
            !shown.ip().is_unspecified() && !shown.ip().is_multicast(),
            "{shown}"
        );
    }
    Ok(String::new())
}

/// What is not fit to be answered never becomes a SYN, and every answer is a packet that its receiver takes.
fn held_syn(record: &[u8]) -> Told {
    match datapath::fuzz::held_event(record) {
        Some(HeldEvent::Held(syn) | HeldEvent::Again(syn)) => intercept::packet::fuzz::answers(&syn),
        Some(HeldEvent::Stray { pair, sequence } | HeldEvent::Gone { pair, sequence }) => {
            intercept::packet::fuzz::refused(pair, sequence)
        }
        None => return Err(String::new()),
    }
    Ok(String::new())
}
