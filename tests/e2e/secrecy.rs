//! What a capture on the bridge sees: nothing of the payload in the mesh, and the payload outside of it, which proves
//! that the capture would have seen it.

use std::fs;
use std::net::IpAddr;

use anyhow::Result;
use harness::apps::{self, Dialogue};
use harness::mesh::ports;
use harness::{Capture, Mesh, pcap};

const SECRET: &str = "a-payload-that-nobody-else-may-read";

#[test]
fn between_pods_of_the_mesh_only_tls_1_3_is_on_the_wire() -> Result<()> {
    let mesh = Mesh::start("secrecy")?;
    let (client, server) = (&mesh.client.pod, &mesh.server().pod);
    let capture = Capture::start(&mesh.fabric)?;
    for vip in [mesh.vip4(9000), mesh.vip6(9000)] {
        let listener = Dialogue::listen(server, 9000, &["recv:35", &format!("send:{SECRET}"), "close"])?;
        let lines = Dialogue::connect(client, vip, &[&format!("send:{SECRET}"), "recv:35"])?.lines()?;
        assert_eq!(lines.last().map(String::as_str), Some(&*format!("recv {SECRET}")));
        assert_eq!(listener.lines()?[1], format!("recv {SECRET}"));
    }
    let recording = capture.stop()?;

    assert!(
        !recording.holds(SECRET.as_bytes()),
        "the payload went over the bridge"
    );
    let versions = recording.tls_versions(ports::HBONE);
    assert!(
        !versions.is_empty() && versions.iter().all(|v| *v == pcap::TLS13),
        "{versions:x?}"
    );
    let pairs = client
        .addresses()
        .into_iter()
        .flat_map(|a| server.addresses().map(|b| (a, b)));
    for segment in pairs.flat_map(|(a, b): (IpAddr, IpAddr)| recording.between(a, b)) {
        assert!(
            [segment.from.port(), segment.to.port()].contains(&ports::HBONE),
            "{segment:?}"
        );
    }
    Ok(())
}

#[test]
fn the_same_payload_to_a_server_outside_is_seen() -> Result<()> {
    let mesh = Mesh::start("plain")?;
    let _nginx = apps::nginx(&mesh.outside, 8080)?;
    fs::write(mesh.outside.scratch().join("www/secret"), SECRET)?;
    let capture = Capture::start(&mesh.fabric)?;
    let url = apps::url((mesh.outside.ipv4(), 8080)) + "files/secret";
    assert_eq!(apps::curl(&mesh.client.pod, &url)?.ok()?, SECRET);
    assert!(capture.stop()?.holds(SECRET.as_bytes()));
    Ok(())
}
