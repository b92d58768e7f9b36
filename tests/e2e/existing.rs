//! Connections that were there before the programs: left, or ended by choice, and counted; nobody else's are touched.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::Result;
use harness::Mesh;
use harness::apps::{self, Keep};
use harness::mesh::{Options, Plan};

struct Open {
    outbound: Keep,
    inbound: Keep,
    inside: Keep,
    left_alone: Keep,
    /// Of the pod's network namespace, and of another cgroup.
    other: TcpStream,
}

/// Where the interception policy leaves connections alone.
const LEFT_ALONE: u16 = 9100;
const EACH: usize = 3;

/// A client's pod without anything attached, and its connections.
fn before(mesh: &mut Mesh) -> Result<Open> {
    // It would attach again as soon as there is a program.
    mesh.fabric.kill_agent();
    mesh.client.sidecar.stop()?;
    mesh.client.sidecar.detach()?;
    let (client, outside) = (&mesh.client.pod, &mesh.outside);
    for (pod, port) in [(client, 9000), (outside, 9000), (outside, LEFT_ALONE)] {
        mesh.programs.push(apps::echo(pod, port)?);
    }
    let open = |from, to: SocketAddr| -> Result<Keep> {
        let (keep, results) = Keep::open(from, &[to], EACH)?;
        assert_eq!(results.get("ok"), Some(&EACH), "{results:?}");
        Ok(keep)
    };
    Ok(Open {
        outbound: open(client, (outside.ipv6(), 9000).into())?,
        inbound: open(outside, (client.ipv4(), 9000).into())?,
        inside: open(client, (client.ipv4(), 9000).into())?,
        left_alone: open(client, (outside.ipv4(), LEFT_ALONE).into())?,
        other: client.run_in(|| TcpStream::connect((outside.ipv4(), 9000)))??,
    })
}

fn mesh(kind: &str, existing: &str) -> Result<Mesh> {
    let policy = format!("outbound: [{{ports: [{LEFT_ALONE}], action: leave}}]");
    let plan = Plan {
        client: Options::new("client").existing(existing).policy(&policy),
        ..Plan::default()
    };
    Mesh::of(kind, &plan)
}

fn counted(mesh: &Mesh, outcome: &str) -> Result<usize> {
    let outcome = format!("outcome=\"{outcome}\"");
    let sidecar = &mesh.client.sidecar;
    Ok(sidecar.metric("outrigger_interception_existing_connections", &[&outcome])? as usize)
}

/// Of the ones that are nobody's to end.
fn the_others_live(inside: Keep, left_alone: Keep, mut other: TcpStream) -> Result<()> {
    assert_eq!(inside.close()?, EACH, "they never leave the pod");
    assert_eq!(left_alone.close()?, EACH, "as the policy says");
    other.write_all(b"x")?;
    other.read_exact(&mut [0])?;
    Ok(())
}

#[test]
fn connections_from_before_are_left_and_counted() -> Result<()> {
    let mut mesh = mesh("existing-keep", "keep")?;
    let open = before(&mut mesh)?;
    mesh.client.sidecar.restart()?;
    assert_eq!(
        (counted(&mesh, "kept")?, counted(&mesh, "destroyed")?),
        (2 * EACH, 0)
    );
    let log = mesh.client.sidecar.log();
    assert!(
        log.contains("connections from before go on past the proxy"),
        "{log}"
    );
    assert_eq!(open.outbound.close()?, EACH);
    assert_eq!(open.inbound.close()?, EACH);
    the_others_live(open.inside, open.left_alone, open.other)
}

#[test]
fn connections_from_before_are_ended_by_choice_and_no_others() -> Result<()> {
    let mut mesh = mesh("existing-destroy", "destroy")?;
    let open = before(&mut mesh)?;
    mesh.client.sidecar.restart()?;
    assert_eq!(
        (counted(&mesh, "kept")?, counted(&mesh, "destroyed")?),
        (0, 2 * EACH)
    );
    assert!(
        mesh.client
            .sidecar
            .log()
            .contains("connections from before were ended")
    );
    assert_eq!(open.outbound.close()?, 0);
    assert_eq!(open.inbound.close()?, 0);
    the_others_live(open.inside, open.left_alone, open.other)
}

#[test]
fn what_a_restarted_proxy_finds_is_not_from_before() -> Result<()> {
    let mut mesh = mesh("existing-restart", "destroy")?;
    mesh.programs.push(apps::echo(&mesh.outside, LEFT_ALONE)?);
    let to = (mesh.outside.ipv4(), LEFT_ALONE).into();
    let (keep, _) = Keep::open(&mesh.client.pod, &[to], EACH)?;
    mesh.client.sidecar.stop()?;
    mesh.client.sidecar.restart()?;
    assert_eq!((counted(&mesh, "kept")?, counted(&mesh, "destroyed")?), (0, 0));
    assert_eq!(keep.close()?, EACH);
    Ok(())
}
