//! Names with several addresses, good and bad, and the server that tells whom it sees: what clients in Java, Go and
//! Python are asked about alike. Does not know what they do with a list.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use harness::{Process, apps};

use super::facts::Facts;
use super::world::{World, silent, unreachable};

pub(super) const PORT: u16 = 8080;

/// The first one is alive.
fn names(world: &World) -> Vec<(&'static str, Vec<IpAddr>)> {
    let [ipv4, ipv6] = world.server.addresses();
    let [closed4, closed6] = world.outside.addresses();
    vec![
        ("alive", vec![ipv4]),
        ("alive-by-ipv6", vec![ipv6]),
        ("alive-by-both", vec![ipv6, ipv4]),
        ("refused", vec![closed4]),
        ("refused-by-ipv6", vec![closed6]),
        ("unreachable", vec![unreachable(false)]),
        ("unreachable-by-ipv6", vec![unreachable(true)]),
        ("silent", vec![silent()]),
        ("refused-then-alive", vec![closed4, ipv4]),
        ("refused-by-ipv6-then-alive", vec![closed6, ipv4]),
        ("unreachable-then-alive", vec![unreachable(false), ipv4]),
        ("unreachable-by-ipv6-then-alive", vec![unreachable(true), ipv4]),
        ("silent-then-alive-by-ipv6", vec![silent(), ipv6]),
        ("all-dead", vec![closed4, unreachable(true)]),
    ]
}

/// nginx, which answers with the address and port of its client.
pub(super) fn server(world: &World) -> Result<Process> {
    let http = format!(
        "access_log off;\n\
         server {{ listen [::]:{PORT} ipv6only=off; location / {{ return 200 \"$remote_addr $remote_port\"; }} }}\n"
    );
    apps::nginx_with(&world.server, PORT, &http)
}

/// Runs a client of `tests/foreign` with all names; its facts.
pub(super) fn ask(world: &World, program: &str, prepare: impl Fn(&mut Command)) -> Result<Facts> {
    let names = names(world);
    let known: Vec<(&str, &[IpAddr])> = names.iter().map(|(name, list)| (*name, &list[..])).collect();
    let mut command = world.client_knowing(program, &known)?;
    prepare(&mut command);
    command
        .arg(PORT.to_string())
        .args(names.iter().map(|(name, _)| name));
    let mut facts = Facts::default();
    facts.printed(program, world.client.run_within(command, Duration::from_secs(120)));
    Ok(facts)
}

/// A program's source in `tests/foreign`.
pub(super) fn source(file: &str) -> String {
    format!("{}/foreign/{file}", env!("CARGO_MANIFEST_DIR"))
}
