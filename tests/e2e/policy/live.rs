//! A policy ends what it forbids, also what was open before it came.

use std::net::SocketAddr;

use anyhow::Result;
use harness::apps::{self, Background, Dialogue};
use harness::mesh::{RegistryFile, identity};
use harness::pod::Pod;
use harness::process::Process;
use harness::{Mesh, wait};
use serde_json::Value;

use super::policy;
use crate::hbone::client::{Client, leaf_of, until_reset};

fn deny_port(mut registry: RegistryFile, port: u16) -> Result<()> {
    registry.update(|registry| {
        let matches = format!("{{destinationPorts: [{port}]}}");
        registry.policies = vec![policy("cut", "Namespace", "Deny", &matches)];
    })
}

fn cuts(mesh: &Mesh) -> Result<f64> {
    mesh.server()
        .sidecar
        .metric("outrigger_inbound_policy_cuts_total", &[])
}

fn is_cut(flow: &Value) -> bool {
    flow["closedBy"] == "policy" && flow["closeCause"] == "denied"
}

#[test]
fn open_connections_that_a_new_policy_forbids_are_reset_and_others_go_on() -> Result<()> {
    let mut mesh = Mesh::start("policy-live")?;
    mesh.serve(apps::echo, 9001)?;
    let server = mesh.server().pod.clone();
    let mut spared = Background::ticker(&mesh.client.pod, mesh.vip4(9001))?;
    spared.until("has lines", |lines| !lines.is_empty())?;
    let direct = SocketAddr::from((server.ipv4(), 9000));
    let both = [
        (mesh.client.pod.clone(), mesh.vip4(9000), "hbone"),
        (mesh.outside.clone(), direct, "plain"),
    ];
    for (n, (client, to, transport)) in both.iter().enumerate() {
        let listener = Dialogue::listen(&server, 9000, &["recv:4", "send:pong", "recv:1"])?;
        let mut open = Dialogue::connect(client, *to, &["send:ping", "recv:4", "recv:1"])?;
        assert_eq!(open.result("recv")?, "pong", "{to}");
        deny_port(mesh.registry.clone(), 9000)?;
        assert_eq!(
            open.lines()?.last().map(String::as_str),
            Some("recv errno ECONNRESET"),
            "{to}"
        );
        assert_eq!(
            listener.lines()?.last().map(String::as_str),
            Some("recv errno ECONNRESET"),
            "{to}"
        );
        mesh.server().sidecar.until_flow("the flow says so", |flow| {
            flow["transport"] == *transport && is_cut(flow)
        })?;
        assert_eq!(cuts(&mesh)?, (n + 1) as f64, "{to}");
        mesh.registry.update(|_| ())?;
        wait::until("the policy is gone", wait::SOON, || {
            let generation = mesh.server().sidecar.metric("outrigger_registry_generation", &[]);
            generation.is_ok_and(|now| now == (2 * n + 3) as f64)
        })?;
    }
    let lines = spared.progress();
    spared.until("goes on", |now| now != lines)?;
    spared.stop().map(drop)
}

/// To other proxies, too, it is told in the words of HTTP/2.
#[test]
fn a_stream_that_a_new_policy_forbids_is_cancelled() -> Result<()> {
    let mut mesh = Mesh::start("policy-cancel")?;
    mesh.serve(apps::echo, 9000)?;
    let leaf = leaf_of(&mesh.control, &identity("client"))?;
    let to = SocketAddr::from((mesh.server().pod.ipv4(), 9000));
    let registry = mesh.registry.clone();
    let reset = until_reset(&mesh, Client::with(&leaf), to, || deny_port(registry, 9000))?;
    assert_eq!(reset, Some(h2::Reason::CANCEL));
    Ok(())
}

/// Listens, and never accepts: after the first connection the kernel leaves every SYN without an answer.
fn deaf(pod: &Pod, port: u16) -> Result<Process> {
    let mut command = pod.command("/usr/bin/python3");
    let program = format!(
        "import socket, time; s = socket.create_server(('::', {port}), family=socket.AF_INET6, dualstack_ipv6=True, \
         backlog=0)\nwhile True: time.sleep(60)"
    );
    command.args(["-c", &program]);
    pod.spawn(command)?.until_listening(port)
}

#[test]
fn connections_that_are_being_dialled_are_ended_too() -> Result<()> {
    let mesh = Mesh::start("policy-dialling")?;
    let _deaf = deaf(&mesh.server().pod, 9000)?;
    let direct = SocketAddr::from((mesh.server().pod.ipv4(), 9000));
    let begun = |count: usize, transport: &str| {
        wait::until_some("all have begun, and one is being dialled", wait::SOON, || {
            let flows = mesh.server().sidecar.all_flows()?;
            let of_these: Vec<&Value> = flows
                .iter()
                .filter(|flow| flow["transport"] == transport && flow["originalDst"] == direct.to_string())
                .collect();
            let is_dialled = of_these.iter().any(|flow| flow["state"] == "connecting");
            Ok((of_these.len() == count && is_dialled).then_some(()))
        })
    };
    // What the application's backlog takes is enough to fill it.
    let plain: Vec<Dialogue> = (0..3)
        .map(|_| Dialogue::connect(&mesh.outside, direct, &["recv:1"]))
        .collect::<Result<_>>()?;
    begun(3, "plain")?;
    let meshed = Dialogue::connect(&mesh.client.pod, mesh.vip4(9000), &["recv:1"])?;
    begun(1, "hbone")?;
    deny_port(mesh.registry.clone(), 9000)?;
    assert_eq!(
        meshed.lines()?,
        ["connect errno ECONNREFUSED"],
        "its connect() was waiting"
    );
    for dialogue in plain {
        assert_eq!(dialogue.lines()?, ["connect ok", "recv errno ECONNRESET"]);
    }
    wait::until_some("all of them are told as cut", wait::SOON, || {
        let flows = mesh.server().sidecar.all_flows()?;
        let inbound: Vec<&Value> = flows
            .iter()
            .filter(|flow| flow["direction"] == "inbound")
            .collect();
        assert_eq!(inbound.len(), 4, "{inbound:#?}");
        Ok(inbound.iter().all(|flow| is_cut(flow)).then_some(()))
    })?;
    assert_eq!(cuts(&mesh)?, 4.0);
    Ok(())
}
