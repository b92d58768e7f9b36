//! gRPC: calls and streams of every shape, whom the server sees, and how a channel falls back in its list of addresses.

use std::time::Duration;

use super::facts::Facts;
use super::names::source;
use super::same;
use super::world::{CLOSED, World, unreachable};

const PORT: u16 = 5050;

#[test]
fn grpc_shows_what_it_shows_bare() {
    same("f-grpc", |world| {
        let mut server = world.server.command("/usr/bin/python3");
        server.arg(source("rpc.py")).args(["server", &PORT.to_string()]);
        let _server = world.server.spawn(server)?.until_listening(PORT)?;
        let mut client = world.client.command("/usr/bin/python3");
        client.arg(source("rpc.py")).arg("client").args(targets(world));
        let mut facts = Facts::default();
        facts.printed("gRPC", world.client.run_within(client, Duration::from_secs(60)));
        Ok(facts)
    });
}

fn targets(world: &World) -> Vec<String> {
    let [ipv4, ipv6] = world.at(PORT);
    let closed = world.outside.ipv4();
    let unreachable = unreachable(false);
    vec![
        format!("IPv4=ipv4:{ipv4}"),
        format!("IPv6=ipv6:{ipv6}"),
        format!("refused=ipv4:{}:{CLOSED}", ipv4.ip()),
        format!("refused outside=ipv4:{closed}:{PORT}"),
        format!("unreachable=ipv4:{unreachable}:{PORT}"),
        format!("refused, then alive=ipv4:{}:{CLOSED},{ipv4}", ipv4.ip()),
        format!("refused outside, then alive=ipv4:{closed}:{PORT},{ipv4}"),
        format!("unreachable, then alive=ipv4:{unreachable}:{PORT},{ipv4}"),
        format!("two dead, then alive=ipv4:{closed}:{PORT},{unreachable}:{PORT},{ipv4}"),
    ]
}
