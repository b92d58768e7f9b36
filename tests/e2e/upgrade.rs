//! A second proxy takes a pod over from the first, and no connection notices.

use std::fs;

use anyhow::{Context, Result, ensure};
use harness::apps::ceaseless::Done;
use harness::apps::script::Script;
use harness::apps::{self, Ceaseless, Server};
use harness::mesh::whole::Member;
use harness::mesh::{Options, Plan};
use harness::pod::Pod;
use harness::process::Process;
use harness::{Mesh, Sidecar, wait};
use nix::sys::signal::Signal;

use crate::expect;

/// Enough for several takeovers with connections that stay open.
const LONG: &str = "10m";

fn mesh(name: &str) -> Result<Mesh> {
    mesh_of(name, Options::new("client"), Options::new("server"))
}

fn mesh_of(name: &str, client: Options, server: Options) -> Result<Mesh> {
    let plan = Plan {
        client: client.drain("0s", LONG),
        server: server.drain("0s", LONG),
        ..Plan::default()
    };
    let mut mesh = Mesh::of(name, &plan)?;
    mesh.serve(apps::echo, 9000)?;
    mesh.programs.push(apps::echo(&mesh.outside, 9000)?);
    Ok(mesh)
}

/// Connections of both directions, in the mesh and in plaintext, over both families: 1,000 new ones a second and 1,000 that
/// stay open, as far as the machine can.
struct Traffic {
    mesh: Ceaseless,
    plain: Ceaseless,
    inbound: Ceaseless,
}

impl Traffic {
    fn start(mesh: &Mesh) -> Result<Self> {
        let (client, server) = (&mesh.client.pod, &mesh.server().pod);
        let of = |pod: &Pod| {
            let open = pod.addresses().map(|ip| Server::Open((ip, 9000).into()));
            let closed = pod.addresses().map(|ip| Server::Closed((ip, 9001).into()));
            open.into_iter().chain(closed).collect::<Vec<_>>()
        };
        let service = [
            Server::Open(mesh.vip4(9000)),
            Server::Open(mesh.vip6(9000)),
            Server::Closed(mesh.vip4(9001)),
        ];
        Ok(Self {
            mesh: Ceaseless::start(client, 350, 170, &service)?,
            plain: Ceaseless::start(client, 350, 170, &of(&mesh.outside))?,
            inbound: Ceaseless::start(&mesh.outside, 350, 170, &of(server))?,
        })
    }

    fn all(&mut self) -> [&mut Ceaseless; 3] {
        [&mut self.mesh, &mut self.plain, &mut self.inbound]
    }

    /// Until each has seen what comes after this moment.
    fn until_more(&mut self) -> Result<()> {
        self.all().into_iter().try_for_each(|each| each.until_more(100))
    }

    /// Ends it all: none may have failed.
    fn finish(self) -> Result<()> {
        for (what, each) in [
            ("mesh", self.mesh),
            ("plain", self.plain),
            ("inbound", self.inbound),
        ] {
            let done = each.stop()?;
            let Done {
                connections,
                exchanges,
                failures,
            } = &done;
            println!("{what}: {connections} connections, {exchanges} exchanges");
            ensure!(failures.is_empty() && *exchanges > 0, "{what}: {done:?}");
        }
        Ok(())
    }
}

/// What the sidecars know of connections that failed, for messages.
fn failed_flows(mesh: &Mesh) -> String {
    let mut text = String::new();
    for sidecar in [&mesh.client.sidecar, &mesh.server().sidecar] {
        let failed = sidecar.failed_flows().unwrap_or_default();
        for flow in failed.iter().take(20) {
            text += &format!("{flow}\n");
        }
        let page = sidecar.metrics().unwrap_or_default();
        for line in page
            .lines()
            .filter(|line| line.starts_with("outrigger_kernel") && !line.ends_with(" 0"))
        {
            text += &format!("{line}\n");
        }
    }
    text
}

/// A proxy that was replaced ends by itself, and well.
fn ends_well(mut old: Process) -> Result<()> {
    let status = old.wait(wait::SOON)?;
    ensure!(status.success(), "{status}\n{}", old.log());
    ensure!(
        old.log().contains("another proxy has taken this pod over"),
        "{}",
        old.log()
    );
    Ok(())
}

fn take_over_all(
    mesh: &mut Mesh,
    traffic: &mut Traffic,
    prepare: impl Fn(&Sidecar) -> Result<()>,
) -> Result<Vec<Process>> {
    let mut old = Vec::new();
    let (client, servers) = (&mut mesh.client, &mut mesh.servers);
    for member in [client].into_iter().chain(servers) {
        let Member { sidecar, .. } = member;
        prepare(sidecar)?;
        old.push(sidecar.take_over()?);
        traffic.until_more()?;
    }
    Ok(old)
}

#[test]
fn a_pod_goes_from_proxy_to_proxy_and_no_connection_fails() -> Result<()> {
    let mut mesh = mesh("takeover")?;
    let mut traffic = Traffic::start(&mesh)?;
    let mut old = Vec::new();
    for _ in 0..3 {
        old.extend(take_over_all(&mut mesh, &mut traffic, |_| Ok(()))?);
    }
    traffic.finish().with_context(|| failed_flows(&mesh))?;
    for sidecar in [&mesh.client.sidecar, &mesh.server().sidecar] {
        assert_eq!(sidecar.metric("outrigger_proxy_takeovers", &[])?, 3.0);
        assert!(sidecar.is_ready());
    }
    old.into_iter().try_for_each(ends_well)
}

/// As far as a proxy can tell, the programs and maps that are pinned are of a version that lays these maps out otherwise.
fn of_another_version(sidecar: &Sidecar) -> Result<()> {
    let maps = sidecar.pins().join("maps");
    let changed = ["or_pending", "or_presented", "or_settings", "or_rings"];
    let mut renamed = 0;
    for entry in fs::read_dir(&maps)? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        if changed.iter().any(|map| name.starts_with(map)) {
            fs::rename(maps.join(&name), maps.join(format!("{name}_other")))?;
            renamed += 1;
        }
    }
    ensure!(renamed == changed.len(), "{renamed} maps renamed");
    Ok(())
}

/// By proxies that load their own programs. Those of an agent are of its version, for all pods.
#[test]
fn a_version_with_other_maps_takes_over_and_back_and_no_connection_fails() -> Result<()> {
    let [client, server] = ["client", "server"].map(|name| Options::new(name).privileged());
    let mut mesh = mesh_of("other-maps", client, server)?;
    let mut traffic = Traffic::start(&mesh)?;
    let mut old = Vec::new();
    for prepare in [of_another_version, |_: &Sidecar| Ok(()), of_another_version] {
        old.extend(take_over_all(&mut mesh, &mut traffic, prepare)?);
    }
    traffic.finish().with_context(|| failed_flows(&mesh))?;
    old.into_iter().try_for_each(ends_well)?;
    // What the replaced ones needed is gone with them.
    for sidecar in [&mesh.client.sidecar, &mesh.server().sidecar] {
        wait::until("nine hooks are left", wait::SOON, || {
            fs::read_dir(sidecar.pins().join("links")).is_ok_and(|links| links.count() == 9)
        })?;
    }
    Ok(())
}

/// A second proxy that is granted the pod and cannot become ready, because nobody signs its certificate.
pub(super) fn stuck_successor(mesh: &mut Mesh) -> Result<Process> {
    mesh.control.stop();
    let mut second = mesh.client.sidecar.spawn()?;
    second.until("waits for its certificate", |process| {
        process.log().contains("will be replaced once this one is ready")
    })?;
    Ok(second)
}

#[test]
fn a_second_proxy_that_is_not_ready_changes_nothing_and_dies_unnoticed() -> Result<()> {
    let mut mesh = mesh("never-ready")?;
    let mut traffic = Traffic::start(&mesh)?;
    for _ in 0..2 {
        let mut second = stuck_successor(&mut mesh)?;
        traffic.until_more()?;
        // Nobody else may come in between.
        let third = mesh.client.sidecar.spawn()?;
        let first = format!("process {} is already taking over", second.id());
        refuses(third, &first)?;
        second.kill();
        mesh.client.sidecar.until_log("this one goes on")?;
        traffic.until_more()?;
        mesh.control.restart()?;
    }
    let old = mesh.client.sidecar.take_over()?;
    traffic.until_more()?;
    traffic.finish()?;
    ends_well(old)
}

#[test]
fn where_the_owner_is_killed_meanwhile_the_second_proxy_serves_at_once() -> Result<()> {
    let mut mesh = mesh("owner-killed")?;
    let second = stuck_successor(&mut mesh)?;
    let mut first = mesh.client.sidecar.replace(second)?;
    first.kill();
    mesh.client.sidecar.until_log("proxy started")?;
    let client = &mesh.client.pod;
    // In plaintext, for which it needs no certificate.
    for ip in mesh.outside.addresses() {
        assert_eq!(apps::crowd(client, (ip, 9000).into(), 20)?, 20, "{ip}");
        expect::connection_refused(client, (ip, 9001).into())?;
    }
    mesh.control.restart()?;
    let old = mesh.client.sidecar.take_over()?;
    assert_eq!(apps::crowd(client, mesh.vip4(9000), 20)?, 20);
    drop(old);
    Ok(())
}

fn refuses(mut second: Process, why: &str) -> Result<()> {
    let status = second.wait(wait::SOON)?;
    let said = second.log();
    ensure!(
        !status.success() && said.contains(why),
        "{status}, not {why:?}: {said}"
    );
    Ok(())
}

/// The configuration of a sidecar, with other words in it.
fn with_config(sidecar: &Sidecar, from: &str, to: &str) -> Result<Process> {
    let before = fs::read_to_string(sidecar.config())?;
    ensure!(before.contains(from), "no {from:?} in {before}");
    fs::write(sidecar.config(), before.replace(from, to))?;
    let second = sidecar.spawn();
    // It has been read once the process has said or done anything.
    let mut second = second?;
    second.until("has read its configuration", |process| !process.log().is_empty())?;
    fs::write(sidecar.config(), before)?;
    Ok(second)
}

#[test]
fn who_is_not_the_same_workload_or_may_not_is_refused_with_a_sentence() -> Result<()> {
    let mesh = mesh("takeover-refused")?;
    let sidecar = &mesh.client.sidecar;
    let other = with_config(sidecar, "serviceAccount: client", "serviceAccount: server")?;
    refuses(
        other,
        "it serves spiffe://cluster.local/ns/demo/sa/client, and not",
    )?;
    let unwilling = with_config(sidecar, "interception: {", "interception: {takeover: refuse, ")?;
    refuses(
        unwilling,
        &format!("process {}", sidecar.pid().unwrap_or_default()),
    )?;
    assert_eq!(apps::crowd(&mesh.client.pod, mesh.vip4(9000), 20)?, 20);

    // An owner that drains serves a connection that stays open.
    let kept = Ceaseless::start(&mesh.client.pod, 1, 1, &[Server::Open(mesh.vip4(9000))])?;
    mesh.client.sidecar.signal(Signal::SIGTERM)?;
    mesh.client.sidecar.until_log("newcomers are refused")?;
    refuses(mesh.client.sidecar.spawn()?, "it is ending; wait for that")?;
    drop(kept);
    Ok(())
}

/// One that an agent serves has no door in the pod: `handover.rs`.
#[test]
fn an_application_gets_nothing_from_the_owner_and_cannot_end_it() -> Result<()> {
    let plan = Plan {
        client: Options::new("client").privileged(),
        ..Plan::default()
    };
    let mut mesh = Mesh::of("takeover-strangers", &plan)?;
    mesh.serve(apps::echo, 9000)?;
    let sidecar = &mesh.client.sidecar;
    for user in ["0", "65534"] {
        let mut command = mesh.client.pod.command("setpriv");
        command.args([
            "--reuid",
            user,
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
            STRANGER,
        ]);
        let said = mesh.client.pod.run_within(command, wait::SOON)?.ok()?;
        let lines: Vec<&str> = said.lines().collect();
        // Root is answered, others are not.
        let answer = if user == "0" { "refused" } else { "nothing" };
        assert_eq!(lines, [answer; 3], "user {user}");
    }
    assert!(sidecar.is_ready());
    assert_eq!(apps::crowd(&mesh.client.pod, mesh.vip4(9000), 20)?, 20);
    Ok(())
}

/// Asks with no descriptor, with one of another directory, and says at once that it has the pod.
const STRANGER: &str = r#"
import json, os, socket
names = [line.split()[-1] for line in open("/proc/net/unix") if "@outrigger/takeover/" in line and " 00010000 " in line]
for say, fds in (("ask", []), ("ask", [os.open("/", os.O_RDONLY)]), ("taken", [])):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(20)
    s.connect("\0" + names[0][1:])
    identity = "spiffe://cluster.local/ns/demo/sa/client"
    try:
        socket.send_fds(s, [json.dumps({"say": say, "identity": identity}).encode()], fds)
        answer, given, _, _ = socket.recv_fds(s, 4096, 16)
    except (BrokenPipeError, ConnectionResetError):
        answer, given = b"", []
    print(json.loads(answer)["say"] if answer else "nothing", *given)
"#;

#[test]
fn the_status_command_stays_true() -> Result<()> {
    let mut mesh = mesh("takeover-status")?;
    let status = |sidecar: &Sidecar| {
        let (pins, socket) = (sidecar.pins(), sidecar.admin_socket());
        let words = [
            "--pins".as_ref(),
            pins.as_os_str(),
            "--admin-socket".as_ref(),
            socket.as_os_str(),
        ];
        sidecar.status(&words)?.ok()
    };
    status(&mesh.client.sidecar)?;
    let old = mesh.client.sidecar.take_over()?;
    status(&mesh.client.sidecar)?;
    ends_well(old)?;
    status(&mesh.client.sidecar)?;
    Ok(())
}

/// The MAC address of the pod's only link.
fn mac(pod: &Pod) -> Result<String> {
    let said = pod.run("ip", ["-o", "link", "show", "eth0"])?.ok()?;
    let mac = said
        .split_whitespace()
        .skip_while(|word| *word != "link/ether")
        .nth(1);
    Ok(mac.with_context(|| said.clone())?.to_owned())
}

/// Clients from outside whose SYN the first proxy has answered, and whose handshake ends once the second one has the pod:
/// how many were answered, served and reset.
fn crossing(name: &str, cookies: &str) -> Result<[u32; 3]> {
    let mut mesh = mesh(name)?;
    let server = mesh.server().pod.clone();
    server.sysctl("net/ipv4/tcp_syncookies", cookies)?;
    let (outside, source) = (mesh.outside.clone(), "10.99.0.200");
    server.netns().ip_batch(&format!(
        "neighbour add {source} lladdr {} dev eth0",
        mac(&outside)?
    ))?;
    let go = outside.scratch().join("go");
    let mut command = Script::Crossing.command(&outside)?;
    command.args([
        &mac(&outside)?,
        &mac(&server)?,
        source,
        &server.ipv4().to_string(),
    ]);
    command.args(["9000", "50"]).arg(&go);
    let mut clients = outside.spawn(command)?;
    clients.until("has its SYNs answered", |process| {
        process.log().contains("answered")
    })?;
    let _old = mesh.servers[0].sidecar.take_over()?;
    fs::write(&go, "")?;
    ensure!(clients.wait(wait::SOON)?.success(), "{}", clients.log());
    let log = clients.log();
    let count = |what: &str| {
        let line = log.lines().find_map(|line| line.strip_prefix(what));
        line.and_then(|count| count.trim().parse().ok())
            .unwrap_or_default()
    };
    Ok(["answered", "served", "reset"].map(count))
}

#[test]
fn a_handshake_that_the_first_proxy_has_begun_ends_with_it() -> Result<()> {
    assert_eq!(crossing("crossing", "1")?, [50, 50, 0]);
    Ok(())
}

/// A listener takes a cookie back only when it has sent some itself lately, and of the second proxy's some have, to its own nonces.
#[test]
fn a_handshake_by_cookie_is_served_or_reset_when_the_pod_is_taken_over_meanwhile() -> Result<()> {
    let [answered, served, reset] = crossing("crossing-cookies", "2")?;
    assert_eq!(
        [answered, served + reset],
        [50, 50],
        "{served} served, {reset} reset"
    );
    Ok(())
}
