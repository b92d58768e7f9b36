//! What has to hold of the kernel's answers over netlink, whatever the bytes of a datagram.

use std::fmt::Debug;

use netlink_packet_core::NetlinkDeserializable;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_sock_diag::SockDiagMessage;

use super::netlink::Answers;
use super::{listening, routes, watch};

/// Of the question, in every datagram of the corpus.
const SEQUENCE: u32 = 1;

/// The first byte chooses: its lowest bit the protocol, the next one whether many answers are expected.
pub(crate) fn answers(data: &[u8]) -> Result<String, String> {
    let (choice, datagram) = data.split_first().ok_or_else(String::new)?;
    let many = choice & 2 != 0;
    if choice & 1 != 0 {
        let sockets = read::<SockDiagMessage>(datagram, many)?;
        let found = sockets.iter().filter_map(listening::socket).count();
        return Ok(found.to_string());
    }
    let _ = watch::change(datagram);
    for message in read::<RouteNetlinkMessage>(datagram, many)? {
        match message {
            RouteNetlinkMessage::NewRoute(route) => {
                if let Some((net, kind)) = routes::destination(&route) {
                    assert_eq!(net, net.trunc());
                    let _ = routes::is_address6(&net, kind);
                }
                let _ = routes::answer(&route);
            }
            RouteNetlinkMessage::NewRule(rule) => {
                let _ = routes::is_usual(&rule);
            }
            _ => {}
        }
    }
    Ok(String::new())
}

fn read<M: NetlinkDeserializable + Debug>(datagram: &[u8], many: bool) -> Result<Vec<M>, String> {
    let mut answers = Answers::to(SEQUENCE, many);
    answers.take(datagram).map_err(|error| error.to_string())?;
    assert!(many || answers.found.len() <= 1, "{:?}", answers.found);
    Ok(answers.found)
}
