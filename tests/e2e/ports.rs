//! Ports on which the application does not listen are as closed to outsiders as without a sidecar.

use anyhow::Result;
use harness::apps;
use harness::{Mesh, wait};

use crate::expect::{self, inbound};

#[test]
fn a_port_on_which_nobody_listens_refuses_outsiders() -> Result<()> {
    let mut mesh = Mesh::start("closed-port")?;
    mesh.serve(apps::nginx, 8080)?;
    let server = mesh.server();
    for ip in server.pod.addresses() {
        expect::connection_refused(&mesh.outside, (ip, 8081).into())?;
        assert_eq!(
            apps::curl(&mesh.outside, &apps::url((ip, 8080)))?.ok()?,
            "server-1\n"
        );
    }
    // Of the refused ones the proxy never heard.
    let accepted = server
        .sidecar
        .metric("outrigger_inbound_plaintext_accepted_total", &[])?;
    assert_eq!(accepted, 2.0);

    // The last listener is gone, and so is the port.
    mesh.programs.clear();
    for ip in mesh.server().pod.addresses() {
        expect::connection_refused(&mesh.outside, (ip, 8080).into())?;
    }
    Ok(())
}

#[test]
fn a_listener_on_loopback_is_none_for_outsiders() -> Result<()> {
    let mesh = Mesh::start("loopback-port")?;
    let server = &mesh.server().pod;
    let mut command = server.command("/usr/bin/python3");
    command.args([
        "-c",
        "import socket, time\n\
         sockets = [socket.create_server(('127.0.0.1', 9000)),\n\
                    socket.create_server(('::1', 9000), family=socket.AF_INET6)]\n\
         sockets[0].accept()",
    ]);
    let _program = server.spawn(command)?.until_listening(9000)?;
    for ip in server.addresses() {
        expect::connection_refused(&mesh.outside, (ip, 9000).into())?;
    }
    assert!(!mesh.server().sidecar.all_flows()?.iter().any(inbound));
    Ok(())
}

#[test]
fn a_server_that_is_older_than_its_sidecar_is_reached_until_it_ends() -> Result<()> {
    let mut mesh = Mesh::start("older-server")?;
    mesh.servers[0].sidecar.stop()?;
    mesh.servers[0].sidecar.detach()?;
    mesh.serve(apps::nginx, 8080)?;
    mesh.servers[0].sidecar.restart()?;
    let addresses = mesh.server().pod.addresses();
    for ip in addresses {
        assert_eq!(
            apps::curl(&mesh.outside, &apps::url((ip, 8080)))?.ok()?,
            "server-1\n"
        );
        expect::connection_refused(&mesh.outside, (ip, 8081).into())?;
    }
    // It is the proxy that serves it.
    mesh.server().sidecar.until_flow("an inbound flow", inbound)?;
    mesh.programs.clear();
    let accepted = || {
        mesh.server()
            .sidecar
            .metric("outrigger_inbound_plaintext_accepted_total", &[])
    };
    wait::until("its end is noticed", wait::SOON, || {
        let before = accepted().ok();
        expect::refused(&mesh.outside, (addresses[0], 8080).into()).is_ok() && before == accepted().ok()
    })
}
