//! Nothing is left behind: not by a mesh that ends in order, not by one whose processes were killed.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use harness::apps::{self, Dialogue};
use harness::{Mesh, name};

#[test]
fn nothing_is_left_of_a_mesh() -> Result<()> {
    let mut mesh = Mesh::start("cleanup")?;
    mesh.serve(apps::nginx, 8080)?;
    apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?.ok()?;
    let fabric = mesh.fabric.name().to_owned();
    let proxies: Vec<u32> = [&mesh.client.sidecar, &mesh.server().sidecar]
        .iter()
        .filter_map(|s| s.pid())
        .collect();
    let programs = links_of(&fabric)?;
    assert!(
        !programs.is_empty(),
        "no program is attached to a cgroup of the mesh"
    );
    drop(mesh);
    assert_eq!(name::leftovers(&fabric), Vec::<PathBuf>::new());
    for pid in proxies {
        assert!(!PathBuf::from(format!("/proc/{pid}")).exists(), "proxy {pid}");
    }
    Ok(())
}

#[test]
fn a_stopped_sidecar_leaves_its_pod_as_it_was() -> Result<()> {
    let mut mesh = Mesh::start("stopped")?;
    let _nginx = apps::nginx(&mesh.outside, 8080)?;
    let server: SocketAddr = (mesh.outside.ipv4(), 8080).into();
    mesh.client.sidecar.stop()?;
    mesh.client.sidecar.detach()?;
    let pins = mesh.client.sidecar.pins();
    assert!(
        !pins.exists() || fs::read_dir(&pins)?.next().is_none(),
        "{}",
        pins.display()
    );
    // A plain connection, straight to where it was sent.
    let lines = Dialogue::connect(&mesh.client.pod, server, &["peername", "close"])?.lines()?;
    assert_eq!(
        lines,
        [
            "connect ok",
            &format!("peername {} 8080", server.ip()),
            "close ok"
        ]
    );
    Ok(())
}

/// Pinned objects below the fabric's own bpffs.
fn links_of(fabric: &str) -> Result<Vec<PathBuf>> {
    fn walk(dir: PathBuf, found: &mut Vec<PathBuf>) -> Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                walk(path, found)?
            } else {
                found.push(path)
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(name::scratch(fabric).join("bpf"), &mut found)?;
    Ok(found)
}
