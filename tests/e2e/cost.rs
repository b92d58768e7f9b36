//! What a connection costs, in counts that a busy machine does not move.

use anyhow::{Result, bail};
use harness::apps;
use harness::mesh::{Options, Plan};
use harness::trace::Calls;
use harness::{Mesh, Pod, trace};
use nix::libc::{SYS_epoll_wait, SYS_fcntl};

const CONNECTIONS: usize = 100;

/// System calls of a sidecar, on all its threads, for a connection that is held, carries one exchange, and ends. Waiting comes
/// on top, about five times where connections come one by one. Two of them ask the kernel what it knows of the two connections.
const PLAIN: usize = 25;
/// The same of the client's sidecar and of the server's, in an open tunnel.
const MESH: [usize; 2] = [18, 21];

/// A process does other things at times, which only adds.
const ATTEMPTS: usize = 10;

#[test]
fn a_held_connection_takes_no_more_system_calls_than_it_did() -> Result<()> {
    let mesh = Mesh::of("cost-plain", &plan())?;
    let _echo = apps::echo(&mesh.outside, 9000)?;
    none_costs_more(&mesh, &mesh.outside, [PLAIN, 0])
}

#[test]
fn a_held_connection_in_the_mesh_takes_no_more_system_calls_than_it_did() -> Result<()> {
    let mesh = Mesh::of("cost-mesh", &plan())?;
    let _echo = apps::echo(&mesh.server().pod, 9000)?;
    none_costs_more(&mesh, &mesh.server().pod, MESH)
}

fn plan() -> Plan {
    Plan {
        client: Options::new("client").workers(1),
        server: Options::new("server").workers(1),
        ..Plan::default()
    }
}

/// Of the client's sidecar, and the server's, each connection to the server takes so many system calls at most.
fn none_costs_more(mesh: &Mesh, server: &Pod, most: [usize; 2]) -> Result<()> {
    let [client, far] = [&mesh.client.sidecar, &mesh.server().sidecar].map(|s| s.pid().expect("it runs"));
    let to = (server.ipv4(), 9000).into();
    // Opens the tunnel, where there is one.
    apps::one_by_one(&mesh.client.pod, to, 1)?;
    let mut last = Vec::new();
    for _ in 0..ATTEMPTS {
        let work = || apps::one_by_one(&mesh.client.pod, to, CONNECTIONS);
        let (((), far), near) = trace::system_calls(client, || trace::system_calls(far, work))?;
        let each = [&near, &far].map(|calls| working(calls) as f64 / CONNECTIONS as f64);
        // Not one in two connections may make another one.
        let fits = |each: f64, most: usize| each < most as f64 + 0.5;
        if fits(each[0], most[0]) && fits(each[1], most[1]) {
            // Far fewer, and the count has not counted.
            let counts = |each: f64, most: usize| each >= most as f64 / 2.0;
            assert!(counts(each[0], most[0]) && counts(each[1], most[1]), "{each:?}");
            return Ok(());
        }
        last.push((each, near, far));
    }
    bail!("more than {most:?} for each: {last:?}")
}

/// Without waiting, which one call may do for many, and without what Rust asks in a debug build before it closes a file.
fn working(calls: &Calls) -> usize {
    let [waiting, asking] = [SYS_epoll_wait, SYS_fcntl].map(|number| number as u64);
    let working = calls
        .iter()
        .filter(|(number, _)| **number != waiting && **number != asking);
    working.map(|(_, count)| count).sum()
}
