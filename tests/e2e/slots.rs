//! The proxy's listeners are its own: another program of its uid, in its pod, gets none of the pod's connections, and the
//! ports are the application's.

use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::PathBuf;

use anyhow::Result;
use harness::apps::script::Script;
use harness::apps::{self, Dialogue};
use harness::mesh::{agent, ports};
use harness::pod::Pod;
use harness::process::Process;
use harness::{Mesh, wait};

use crate::expect;

/// Ports that proxies of other meshes use, and this one's own.
const USUAL: [u16; 2] = [15001, 15006];

/// A program that joins every port that lets it (`programs/intruder.py`).
struct Intruder {
    process: Process,
    taken: PathBuf,
}

impl Intruder {
    fn start(pod: &Pod, places: &[String]) -> Result<Self> {
        let taken = pod.scratch().join("taken");
        // Of the proxy's user.
        let user = if agent::is_default() {
            agent::SIDECAR_USER
        } else {
            0
        };
        std::fs::write(&taken, "")?;
        chown(&taken, Some(user), Some(user))?;
        let script = Script::Intruder.command(pod)?;
        let mut command = pod.command("setpriv");
        command.args([format!("--reuid={user}"), format!("--regid={user}")]);
        command
            .arg("--clear-groups")
            .arg(script.get_program())
            .args(script.get_args());
        command.arg(&taken).args(places);
        let mut process = pod.spawn(command)?;
        process.until("has tried its ports", |process| {
            process.log().contains("all tried")
        })?;
        Ok(Self { process, taken })
    }

    /// What was dialled, of all that it was given.
    fn taken(&self) -> Result<Vec<String>> {
        Ok(std::fs::read_to_string(&self.taken)?
            .lines()
            .map(Into::into)
            .collect())
    }
}

/// The ports on which the proxy's own listeners really are.
fn of_the_proxy(pod: &Pod) -> Result<Vec<u16>> {
    let listening = pod.run("ss", ["-Htln", "src", "127.129.0.1"])?.ok()?;
    let port = |line: &str| line.split_whitespace().nth(3)?.rsplit_once(':')?.1.parse().ok();
    Ok(listening.lines().filter_map(port).collect())
}

/// The kernel lets programs of one uid share a port with SO_REUSEPORT, and spreads connections over them.
#[test]
fn a_program_of_the_proxys_uid_takes_none_of_the_pods_connections() -> Result<()> {
    let mut mesh = Mesh::start("intruder")?;
    mesh.serve(apps::echo, 9000)?;
    let _echo = apps::echo(&mesh.outside, 9000)?;
    let (client, server) = (mesh.client.pod.clone(), mesh.server().pod.clone());
    let mut intruders = Vec::new();
    for pod in [&client, &server] {
        let everywhere = USUAL.into_iter().chain([ports::HBONE]);
        let everywhere = everywhere.map(|port| format!("[::]:{port}"));
        let own = of_the_proxy(pod)?;
        assert!(own.len() >= 2, "{own:?}");
        let own = own.iter().map(|port| format!("[::ffff:127.129.0.1]:{port}"));
        let places: Vec<String> = everywhere.chain(own).collect();
        intruders.push(Intruder::start(pod, &places)?);
    }
    for intruder in &intruders {
        let log = intruder.process.log();
        assert!(
            log.contains(&format!("cannot have [::]:{}", ports::HBONE)),
            "the mesh's port is taken: {log}"
        );
        assert!(
            log.contains("listens [::ffff:127.129.0.1]:"),
            "one is shared, which helps nobody: {log}"
        );
    }

    let mesh_and_outside = [mesh.vip4(9000), mesh.vip6(9000)]
        .into_iter()
        .chain(mesh.outside.addresses().map(|ip| SocketAddr::new(ip, 9000)));
    for to in mesh_and_outside {
        assert_eq!(apps::crowd(&client, to, 40)?, 40, "{to}");
    }
    for to in server.addresses().map(|ip| SocketAddr::new(ip, 9000)) {
        assert_eq!(apps::crowd(&mesh.outside, to, 40)?, 40, "{to}");
    }
    for intruder in &intruders {
        assert_eq!(intruder.taken()?, Vec::<String>::new());
    }

    // What is meant for itself it serves, as any other program: to its own pod and to outsiders.
    for port in USUAL {
        for from in [&client, &mesh.outside] {
            for ip in client.addresses() {
                let lines = Dialogue::connect(from, (ip, port).into(), &["recv:8", "close"])?.lines()?;
                assert_eq!(lines[..2], ["connect ok", "recv intruder"], "{ip} {port}");
            }
        }
    }
    assert_eq!(intruders[0].taken()?.len(), 2 * 2 * USUAL.len());
    Ok(())
}

#[test]
fn an_application_may_bind_the_ports_that_connections_are_redirected_by() -> Result<()> {
    let mesh = Mesh::start("free-ports")?;
    let _echo = apps::echo(&mesh.outside, 9000)?;
    let client = &mesh.client.pod;
    let mut open = Dialogue::connect(
        client,
        (mesh.outside.ipv4(), 9000).into(),
        &["send:ping", "recv:4", "recv:1"],
    )?;
    open.result("recv")?;
    // Without SO_REUSEADDR, while a connection is open that was redirected.
    let mut command = client.command("/usr/bin/python3");
    command.args([
        "-c",
        "import socket\n\
         for port in (1, 15001, 15006):\n\
         \x20   s = socket.socket(socket.AF_INET6)\n\
         \x20   try:\n\
         \x20       s.bind(('::', port))\n\
         \x20       print(port, 'bound')\n\
         \x20   except OSError as error: print(port, error.strerror)\n",
    ]);
    let said = client.run_within(command, wait::SOON)?.ok()?;
    assert_eq!(said, "1 Address already in use\n15001 bound\n15006 bound\n");
    Ok(())
}

/// To the pod's own programs it is closed, as all of 127.64.0.0/10 is without a sidecar.
#[test]
fn a_program_of_the_pod_that_dials_where_others_are_redirected_to_is_refused() -> Result<()> {
    let mesh = Mesh::start("own-ports")?;
    let client = &mesh.client;
    let unclaimed = || {
        client
            .sidecar
            .metric("outrigger_kernel_events_total", &["event=\"unclaimed\""])
    };
    let before = unclaimed()?;
    expect::connection_refused(&client.pod, "127.64.0.1:1".parse()?)?;
    assert_eq!(unclaimed()?, before + 1.0);
    for port in of_the_proxy(&client.pod)? {
        expect::connection_refused(&client.pod, SocketAddr::from(([127, 129, 0, 1], port)))?;
    }
    for host in ["127.0.0.1", "::1"] {
        for port in USUAL {
            expect::connection_refused(&client.pod, SocketAddr::new(host.parse()?, port))?;
        }
    }
    Ok(())
}
