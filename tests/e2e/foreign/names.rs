//! Names with several addresses, good and bad, and the server that tells whom it sees: what clients in Java, Go and
//! Python are asked about alike. Does not know what they do with a list.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use harness::{Pod, Process, apps};

use super::facts::Facts;
use super::world::{World, silent, unreachable};

/// For all names together; a client waits some seconds for each that is silent.
const LIMIT: Duration = Duration::from_secs(120);

/// Open in the server's pod only.
pub(super) const PORT: u16 = 8080;

/// Open outside the mesh only.
const OUTSIDE: u16 = 8081;

/// What resolvers do to the order matters: addresses near the client's own and those by IPv6 come first, those
/// without a route last. So the closed port in front is the server's, and the open one behind it is outside.
fn names(world: &World) -> Vec<(&'static str, u16, Vec<IpAddr>)> {
    let [ipv4, ipv6] = world.server.addresses();
    let [outside4, outside6] = world.outside.addresses();
    let (nowhere4, nowhere6) = (unreachable(false), unreachable(true));
    vec![
        ("alive", PORT, vec![ipv4]),
        ("alive-by-ipv6", PORT, vec![ipv6]),
        ("alive-by-both", PORT, vec![ipv6, ipv4]),
        ("alive-outside", OUTSIDE, vec![outside4]),
        ("alive-outside-by-ipv6", OUTSIDE, vec![outside6]),
        ("refused", OUTSIDE, vec![ipv4]),
        ("refused-by-ipv6", OUTSIDE, vec![ipv6]),
        ("refused-outside", PORT, vec![outside4]),
        ("unreachable", PORT, vec![nowhere4]),
        ("unreachable-by-ipv6", PORT, vec![nowhere6]),
        ("silent", PORT, vec![silent(false)]),
        ("refused-then-alive", OUTSIDE, vec![ipv4, outside4]),
        ("refused-by-ipv6-then-alive", OUTSIDE, vec![ipv6, outside4]),
        ("refused-outside-by-ipv6-then-alive", PORT, vec![outside6, ipv4]),
        ("unreachable-then-alive", PORT, vec![nowhere4, ipv4]),
        ("unreachable-by-ipv6-then-alive", PORT, vec![nowhere6, ipv4]),
        ("silent-by-ipv6-then-alive", PORT, vec![silent(true), ipv4]),
        ("all-dead", OUTSIDE, vec![ipv4, ipv6, nowhere4]),
    ]
}

/// nginx, which answers with the address and port of its client.
pub(super) fn who(pod: &Pod, port: u16) -> Result<Process> {
    let http = format!(
        "access_log off;\n\
         server {{ listen [::]:{port} ipv6only=off; location / {{ return 200 \"$remote_addr $remote_port\"; }} }}\n"
    );
    apps::nginx_with(pod, port, &http)
}

/// Runs a client of `tests/foreign` with all names; its facts. The server's side of [`PORT`] is the caller's.
pub(super) fn ask(world: &World, program: &str, prepare: impl Fn(&mut Command)) -> Result<Facts> {
    let _outside = who(&world.outside, OUTSIDE)?;
    let names = names(world);
    let known: Vec<(&str, &[IpAddr])> = names.iter().map(|(name, _, list)| (*name, &list[..])).collect();
    let mut command = world.client_knowing(program, &known)?;
    prepare(&mut command);
    command.args(names.iter().map(|(name, port, _)| format!("{name}:{port}")));
    let mut facts = Facts::default();
    let program = program.rsplit('/').next().unwrap_or(program);
    facts.printed(program, world.client.run_within(command, LIMIT));
    Ok(facts)
}

/// A program's source in `tests/foreign`.
pub(super) fn source(file: &str) -> String {
    format!("{}/foreign/{file}", env!("CARGO_MANIFEST_DIR"))
}
