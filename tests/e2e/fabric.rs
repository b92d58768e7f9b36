//! The harness itself, without Outrigger: what later tests compare with, and what they stand on.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use harness::apps::{self, Dialogue};
use harness::{Capture, Fabric, cgroup, name};

#[test]
fn pods_reach_each_other_over_both_families() -> Result<()> {
    let fabric = Fabric::new("reach")?;
    let (client, server) = (fabric.pod("client")?, fabric.pod("server")?);
    let _nginx = apps::nginx(&server, 8080)?;
    for ip in server.addresses() {
        assert_eq!(apps::curl(&client, &apps::url((ip, 8080)))?.ok()?, "server\n");
    }
    Ok(())
}

/// The port that comes has the lowest link address there can be.
#[test]
fn pods_reach_the_node_whoever_comes_later() -> Result<()> {
    let fabric = Fabric::new("later")?;
    let node = fabric.node();
    // The frames of the pod whose port lends the bridge its address would arrive all the same; those of the other not.
    let pods = [fabric.pod("one")?, fabric.pod("two")?];
    let _echo = apps::echo(node, 9000)?;
    let all_reach_it = || -> Result<()> {
        for (pod, ip) in pods.iter().flat_map(|pod| node.addresses().map(|ip| (pod, ip))) {
            apps::one_by_one(pod, (ip, 9000).into(), 1)?;
        }
        Ok(())
    };
    all_reach_it()?;
    node.netns().ip_batch(
        "link add low address 00:00:00:00:00:01 type veth peer name end\n\
         link set low master br0 up\n",
    )?;
    all_reach_it()
}

#[test]
fn a_program_starts_in_its_pods_namespace_and_cgroup() -> Result<()> {
    let fabric = Fabric::new("place")?;
    let pod = fabric.pod("a")?;
    let cgroups = pod.run("cat", ["/proc/self/cgroup"])?.ok()?;
    let expected = format!("0::/{}/a", fabric.name());
    assert!(cgroups.lines().any(|line| line.ends_with(&expected)), "{cgroups}");
    let links = pod.run("ip", ["-oneline", "link"])?.ok()?;
    assert_eq!(links.lines().count(), 2, "only lo and eth0: {links}");
    Ok(())
}

#[test]
fn a_capture_shows_the_payload_of_a_plain_flow() -> Result<()> {
    let fabric = Fabric::new("capture")?;
    let (client, server) = (fabric.pod("client")?, fabric.pod("server")?);
    let capture = Capture::start(&fabric)?;
    let dialogue = Dialogue::listen(&server, 9000, &["recv:14", "shutdown", "drain"])?;
    Dialogue::connect(
        &client,
        (server.ipv4(), 9000).into(),
        &["send:in plain sight", "drain"],
    )?
    .lines()?;
    dialogue.lines()?;
    let recording = capture.stop()?;
    assert!(recording.holds(b"in plain sight"));
    assert!(!recording.holds(b"out of sight"));
    assert!(
        recording
            .between(client.ipv4().into(), server.ipv4().into())
            .any(|s| s.syn)
    );
    Ok(())
}

#[test]
fn databases_and_mail_servers_run_in_pods() -> Result<()> {
    let fabric = Fabric::new("programs")?;
    let (client, server) = (fabric.pod("client")?, fabric.pod("server")?);
    let _redis = apps::redis(&server, 6379)?;
    let _smtp = apps::smtp(&server, 2525)?;
    let _postgres = apps::postgres(&server, 5432)?;
    let _iperf3 = apps::iperf3_server(&server, 5201)?;
    for ip in server.addresses() {
        let at = |port| SocketAddr::new(ip, port);
        assert_eq!(
            apps::redis_cli(&client, at(6379), &["SET", "k", "v"])?.ok()?,
            "OK\n"
        );
        assert_eq!(apps::psql(&client, at(5432), "select 6 * 7")?.ok()?, "42\n");
        assert!(
            apps::curl(&client, &format!("smtp://{}", at(2525)))?
                .ok()?
                .contains("HELP")
        );
        let report = apps::iperf3(&client, at(5201), 1 << 20)?.ok()?;
        assert!(report.contains("\"sum_received\""), "{report}");
    }
    Ok(())
}

#[test]
fn a_reset_and_a_half_close_look_like_this_without_a_mesh() -> Result<()> {
    let fabric = Fabric::new("bare")?;
    let (client, server) = (fabric.pod("client")?, fabric.pod("server")?);
    let at = SocketAddr::from((server.ipv4(), 9000));

    let listener = Dialogue::listen(&server, 9000, &["recv:5", "reset"])?;
    let lines = Dialogue::connect(&client, at, &["send:hello", "recv:1"])?.lines()?;
    assert_eq!(lines, ["connect ok", "send ok", "recv errno ECONNRESET"]);
    listener.lines()?;

    let listener = Dialogue::listen(&server, 9000, &["drain", "send:answer", "close"])?;
    let lines = Dialogue::connect(&client, at, &["send:hello", "shutdown", "recv:6", "recv:1"])?.lines()?;
    assert_eq!(
        lines,
        [
            "connect ok",
            "send ok",
            "shutdown ok",
            "recv answer",
            "recv <eof>"
        ]
    );
    listener.lines()?;

    let refused = Dialogue::connect(&client, (server.ipv4(), 9001).into(), &[])?.lines()?;
    assert_eq!(refused, ["connect errno ECONNREFUSED"]);
    let unreachable = Dialogue::connect(&client, "10.98.0.1:80".parse()?, &[])?.lines()?;
    assert_eq!(unreachable, ["connect errno EHOSTUNREACH"]);
    Ok(())
}

#[test]
fn a_crowd_is_answered() -> Result<()> {
    let fabric = Fabric::new("crowd")?;
    let (client, server) = (fabric.pod("client")?, fabric.pod("server")?);
    let _echo = apps::echo(&server, 9000)?;
    assert_eq!(apps::crowd(&client, (server.ipv4(), 9000).into(), 1000)?, 1000);
    Ok(())
}

#[test]
fn a_program_that_takes_too_long_is_ended() -> Result<()> {
    let fabric = Fabric::new("limit")?;
    let pod = fabric.pod("a")?;
    let mut command = pod.command("sleep");
    command.arg("600");
    let error = pod.run_within(command, Duration::from_millis(50)).unwrap_err();
    assert!(error.to_string().contains("sleep ends"), "{error}");
    assert!(cgroup::processes(pod.cgroup()).is_empty());
    Ok(())
}

#[test]
fn nothing_is_left_when_a_fabric_is_dropped() -> Result<()> {
    let fabric = Fabric::new("gone")?;
    let name = fabric.name().to_owned();
    let pod = fabric.pod("a")?;
    let nginx = apps::nginx(&pod, 8080)?;
    assert!(
        name::leftovers(&name).len() >= 4,
        "namespaces, cgroup, files and mount: {:?}",
        name::leftovers(&name)
    );
    let pid = nginx.id();
    // The master is forgotten, not ended, so that only the cgroup can find it and its worker.
    std::mem::forget(nginx);
    drop((pod, fabric));
    assert_eq!(name::leftovers(&name), Vec::<std::path::PathBuf>::new());
    // Nobody has reaped the master, so it is a zombie: dead, with its name still on the list.
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    assert!(state.contains(") Z "), "{state}");
    Ok(())
}
