//! What a connection costs, in counts that a busy machine does not move.

use anyhow::Result;
use harness::apps;
use harness::mesh::{Options, Plan};
use harness::trace::Calls;
use harness::{Mesh, trace};
use nix::libc::{SYS_epoll_wait, SYS_fcntl};

const CONNECTIONS: usize = 100;
/// For a connection that is held, carries one exchange, and ends. Waiting comes on top, about five times where connections
/// come one by one.
const MOST: usize = 32;

#[test]
fn a_held_connection_takes_no_more_system_calls_than_it_did() -> Result<()> {
    let plan = Plan {
        client: Options::new("client").workers(1),
        ..Plan::default()
    };
    let mesh = Mesh::of("cost-calls", &plan)?;
    let _echo = apps::echo(&mesh.outside, 9000)?;
    let server = (mesh.outside.ipv4(), 9000).into();
    let pid = mesh.client.sidecar.pid().expect("it runs");
    let work = || apps::one_by_one(&mesh.client.pod, server, CONNECTIONS);
    let ((), calls) = trace::system_calls(pid, "shard-0", work)?;
    let each = working(&calls) as f64 / CONNECTIONS as f64;
    // Not one in two connections may make another one.
    assert!(each < MOST as f64 + 0.5, "{each} for each: {calls:?}");
    // Far fewer, and the count has not counted.
    assert!(each > MOST as f64 / 2.0, "{each} for each: {calls:?}");
    Ok(())
}

/// Without waiting, which one call may do for many, and without what Rust asks in a debug build before it closes a file.
fn working(calls: &Calls) -> usize {
    let [waiting, asking] = [SYS_epoll_wait, SYS_fcntl].map(|number| number as u64);
    let working = calls
        .iter()
        .filter(|(number, _)| **number != waiting && **number != asking);
    working.map(|(_, count)| count).sum()
}
