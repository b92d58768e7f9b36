//! Streams end as they would without a mesh: half-closes, resets and refusals travel, and every byte arrives.

use std::net::SocketAddr;

use anyhow::Result;
use harness::Mesh;
use harness::apps::Dialogue;
use harness::pod::Pod;

use crate::expect;

/// The same conversation with a server in the mesh and with one outside.
fn in_and_out(kind: &str, test: impl Fn(&Pod, &Pod, SocketAddr) -> Result<()>) -> Result<()> {
    let mesh = Mesh::start(kind)?;
    test(&mesh.client.pod, &mesh.server().pod, mesh.vip4(9000))?;
    test(
        &mesh.client.pod,
        &mesh.outside,
        (mesh.outside.ipv6(), 9000).into(),
    )
}

#[test]
fn a_client_may_close_its_side_and_still_read() -> Result<()> {
    in_and_out("half-close-client", |client, server, at| {
        let listener = Dialogue::listen(server, 9000, &["drain", "fill:100000", "close"])?;
        let lines = Dialogue::connect(client, at, &["send:question", "shutdown", "drain"])?.lines()?;
        let served = listener.lines()?;
        assert!(served[1].starts_with("drain 8 "), "{served:?}");
        assert_eq!(
            lines[3].strip_prefix("drain "),
            served[2].strip_prefix("fill "),
            "{at}: {lines:?}"
        );
        Ok(())
    })
}

#[test]
fn a_server_may_close_its_side_and_still_read() -> Result<()> {
    in_and_out("half-close-server", |client, server, at| {
        let listener = Dialogue::listen(server, 9000, &["send:that is all", "shutdown", "drain"])?;
        let lines = Dialogue::connect(client, at, &["drain", "fill:100000", "close"])?.lines()?;
        let served = listener.lines()?;
        assert!(lines[1].starts_with("drain 11 "), "{lines:?}");
        assert_eq!(
            served[3].strip_prefix("drain "),
            lines[2].strip_prefix("fill "),
            "{at}: {served:?}"
        );
        Ok(())
    })
}

#[test]
fn a_reset_by_the_server_reaches_the_client_as_a_reset() -> Result<()> {
    in_and_out("reset-server", |client, server, at| {
        let listener = Dialogue::listen(server, 9000, &["recv:5", "reset"])?;
        let lines = Dialogue::connect(client, at, &["send:hello", "recv:1"])?.lines()?;
        assert_eq!(lines, ["connect ok", "send ok", "recv errno ECONNRESET"], "{at}");
        listener.lines().map(drop)
    })
}

#[test]
fn a_reset_by_the_client_reaches_the_server_as_a_reset() -> Result<()> {
    in_and_out("reset-client", |client, server, at| {
        let listener = Dialogue::listen(server, 9000, &["send:hello", "recv:1"])?;
        Dialogue::connect(client, at, &["recv:5", "reset"])?.lines()?;
        assert_eq!(
            listener.lines()?,
            ["listen ok", "send ok", "recv errno ECONNRESET"],
            "{at}"
        );
        Ok(())
    })
}

#[test]
fn what_was_sent_before_an_end_arrives_before_it() -> Result<()> {
    in_and_out("flush", |client, server, at| {
        let listener = Dialogue::listen(server, 9000, &["fill:3000000", "close"])?;
        let lines = Dialogue::connect(client, at, &["drain"])?.lines()?;
        assert_eq!(
            lines[1].strip_prefix("drain "),
            listener.lines()?[1].strip_prefix("fill "),
            "{at}"
        );
        Ok(())
    })
}

#[test]
fn an_application_that_does_not_listen_is_never_an_empty_success() -> Result<()> {
    let mesh = Mesh::start("nobody-listens")?;
    let ports = [
        mesh.vip4(9000),
        mesh.vip6(9000),
        (mesh.server().pod.ipv4(), 9000).into(),
    ];
    for server in ports.into_iter().chain([
        (mesh.outside.ipv4(), 9000).into(),
        (mesh.outside.ipv6(), 9000).into(),
    ]) {
        expect::refused_for(&mesh.client, server, "connection_refused")?;
    }
    Ok(())
}

#[test]
fn an_unreachable_host_is_never_an_empty_success() -> Result<()> {
    let mesh = Mesh::start("unreachable")?;
    // The pod's own routes say so: the proxy is not asked.
    for server in ["10.98.0.1:80", "[fd98::1]:80"] {
        let lines = Dialogue::connect(&mesh.client.pod, server.parse()?, &["recv:1"])?.lines()?;
        assert_eq!(lines, ["connect errno EHOSTUNREACH"], "{server}");
    }
    let failed = ["event=\"failed_route\""];
    let sidecar = &mesh.client.sidecar;
    assert_eq!(sidecar.metric("outrigger_kernel_events_total", &failed)?, 2.0);

    // There is a way, but nobody at its end.
    for server in ["10.99.77.77:80", "[fd99::77:77]:80"] {
        let lines = Dialogue::connect(&mesh.client.pod, server.parse()?, &["recv:1"])?.lines()?;
        let honest = [
            "connect errno EHOSTUNREACH",
            "connect errno ENETUNREACH",
            "recv errno ECONNRESET",
        ];
        let last = lines.last().map(String::as_str).unwrap_or_default();
        assert!(honest.contains(&last), "{server}: {lines:?}");
    }
    sidecar.until_flow("an unreachable flow", |flow| flow["closeCause"] == "unreachable")?;
    Ok(())
}

#[test]
fn a_mebibyte_arrives_bit_for_bit() -> Result<()> {
    in_and_out("mebibyte", |client, server, at| {
        bit_for_bit(client, server, at, 1 << 20)
    })
}

#[test]
fn what_is_more_than_any_window_or_buffer_arrives_bit_for_bit() -> Result<()> {
    let mesh = Mesh::start("bulk")?;
    bit_for_bit(&mesh.client.pod, &mesh.server().pod, mesh.vip4(9000), 64 << 20)
}

/// Both ways, one after the other, on one connection.
fn bit_for_bit(client: &Pod, server: &Pod, at: SocketAddr, bytes: u64) -> Result<()> {
    let fill = format!("fill:{bytes}");
    let listener = Dialogue::listen(server, 9000, &["drain", &fill, "close"])?;
    let sent = Dialogue::connect(client, at, &[&fill, "shutdown", "drain"])?.lines()?;
    let served = listener.lines()?;
    assert_eq!(
        sent[1].strip_prefix("fill "),
        served[1].strip_prefix("drain "),
        "{at}: to the server"
    );
    assert_eq!(
        sent[3].strip_prefix("drain "),
        served[2].strip_prefix("fill "),
        "{at}: to the client"
    );
    assert!(sent[1].starts_with(&format!("fill {bytes} ")), "{sent:?}");
    Ok(())
}
