//! The agent of a node, and sidecars that have no privilege.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use harness::apps::{self, Dialogue, Keep};
use harness::mesh::{Mesh, Plan};
use harness::{Capture, Sidecar, cgroup, seccomp, wait};

use crate::expect;

fn curl(mesh: &Mesh, at: SocketAddr) -> Result<String> {
    let url = format!("http://{at}/");
    mesh.client
        .pod
        .run("curl", ["-sS", "--max-time", "10", &url])?
        .ok()
}

#[test]
fn pods_of_an_agent_talk_mutual_tls_by_sidecars_without_any_privilege() -> Result<()> {
    let mut mesh = Mesh::of("agent-mesh", &Plan::by_agent())?;
    mesh.serve(apps::nginx, 8080)?;
    for at in [mesh.vip4(80), mesh.vip6(80)] {
        curl(&mesh, at)?;
    }
    let flows = mesh.client.sidecar.all_flows()?;
    ensure!(
        flows.iter().any(|flow| flow["tls"]["version"] == "TLSv1.3"),
        "none was encrypted: {flows:?}\n{}",
        mesh.fabric.agent_log()
    );
    for member in [&mesh.client, mesh.server()] {
        has_no_privilege(&member.sidecar)?;
        has_a_read_only_root(&mesh, &member.sidecar)?;
    }
    Ok(())
}

/// Each of its threads.
fn has_no_privilege(sidecar: &Sidecar) -> Result<()> {
    const NONE: &str = "0000000000000000";
    for thread in sidecar.threads()? {
        for (field, wanted) in [
            ("Uid", "65532\t65532\t65532\t65532"),
            ("Gid", "65532\t65532\t65532\t65532"),
            ("Groups", ""),
            ("CapInh", NONE),
            ("CapPrm", NONE),
            ("CapEff", NONE),
            ("CapBnd", NONE),
            ("CapAmb", NONE),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ] {
            let found = thread.field(field);
            ensure!(
                found == wanted,
                "{field} of {:?} is {found:?}, not {wanted:?}",
                thread.name
            );
        }
    }
    Ok(())
}

/// All that it sees of file systems, but for a directory of its own.
fn has_a_read_only_root(mesh: &Mesh, sidecar: &Sidecar) -> Result<()> {
    let pid = sidecar.pid().context("it runs")?;
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    // proc_pid_mountinfo(5): the fifth field is the place, the sixth its options.
    let places = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(4);
        Some((fields.next()?, fields.next()?))
    });
    let is_writable = |options: &str| options.split(',').all(|option| option != "ro");
    // What other tests mount meanwhile arrives here too.
    let own = mesh.fabric.scratch().file_name().unwrap_or_default();
    let own = own.to_string_lossy();
    let others = |place: &str| place.contains("/outrigger-") && !place.contains(&*own);
    let writable: Vec<&str> = places
        .filter(|(place, options)| is_writable(options) && !others(place))
        .map(|(place, _)| place)
        .collect();
    ensure!(
        writable == [sidecar.dir().to_string_lossy()],
        "it may write to {writable:?}"
    );
    Ok(())
}

/// Prints the errno of calls that a sidecar does not need, each with arguments that the kernel itself answers otherwise.
const CALLS: &str = r"
import ctypes, errno, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *arguments):
    ctypes.set_errno(0)
    libc.syscall(number, *arguments)
    print(name, errno.errorcode.get(ctypes.get_errno(), 'OK'))
call('bpf', 321, 9999, None, 0)
call('perf_event_open', 298, None, 0, 0, -1, 0)
call('setns', 308, -1, 0)
call('unshare', 272, 0)
call('mount', 165, ctypes.c_void_p(1), ctypes.c_void_p(1), ctypes.c_void_p(1), 0, None)
try:
    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
    print('vsock OK')
except OSError as error:
    print('vsock', errno.errorcode[error.errno])
socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
for path in sys.argv[1:]:
    try:
        open(path, 'w').close()
        print('write', path, 'OK')
    except OSError as error:
        print('write', path, errno.errorcode[error.errno])
";

#[test]
fn a_sidecar_of_an_agent_is_refused_what_a_container_runtime_refuses_by_default() -> Result<()> {
    let mesh = Mesh::of("agent-confined", &Plan::by_agent())?;
    let sidecar = &mesh.client.sidecar;
    // One of root's own would be found first, which nobody else may run.
    let words = [
        "env",
        "PATH=/usr/bin:/bin",
        "python3",
        "-c",
        CALLS,
        "/etc/outrigger",
    ];
    let mut command = sidecar.confined(&words.map(OsString::from))?;
    command.arg(sidecar.dir().join("own"));
    let answers = mesh.client.pod.run_within(command, wait::SOON)?.ok()?;
    for refused in [
        "bpf EPERM",
        "perf_event_open EPERM",
        "setns EPERM",
        "unshare EPERM",
        "mount EPERM",
        "vsock EPERM",
        "write /etc/outrigger EROFS",
    ] {
        ensure!(answers.contains(refused), "no {refused:?} in\n{answers}");
    }
    ensure!(answers.contains("/own OK"), "{answers}");
    // Without the filter the kernel answers: it is the filter that refuses.
    let answers = mesh.client.pod.run("python3", ["-c", CALLS])?.ok()?;
    for answered in ["bpf EINVAL", "setns EBADF", "unshare OK", "mount EFAULT"] {
        ensure!(answers.contains(answered), "no {answered:?} in\n{answers}");
    }
    Ok(())
}

/// Makes each call of which it is told the number, without arguments, and prints those that are answered otherwise than by EPERM.
const REFUSED: &str = r"
import ctypes, errno, sys
libc = ctypes.CDLL(None, use_errno=True)
for number in sys.argv[1:]:
    ctypes.set_errno(0)
    result = libc.syscall(int(number), 0, 0, 0, 0, 0, 0)
    if result != -1 or ctypes.get_errno() != errno.EPERM:
        print(number, errno.errorcode.get(ctypes.get_errno(), 'OK'))
print('all tried')
";

#[test]
fn a_sidecar_of_an_agent_is_refused_every_call_that_the_profile_does_not_list() -> Result<()> {
    let mesh = Mesh::of("agent-refused", &Plan::by_agent())?;
    let numbers = seccomp::refused();
    ensure!(numbers.len() > 100, "{numbers:?}");
    let words = ["env", "PATH=/usr/bin:/bin", "python3", "-c", REFUSED];
    let mut command = mesh.client.sidecar.confined(&words.map(OsString::from))?;
    command.args(numbers.iter().map(u32::to_string));
    let answers = mesh.client.pod.run_within(command, wait::SOON)?.ok()?;
    assert_eq!(answers, "all tried\n");
    Ok(())
}

/// Says what a sidecar would at the door, and prints the answer.
pub(super) const ASK: &str = r#"
import socket
door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
door.connect("\0outrigger/agent")
print(door.recv(65536).decode())
"#;

#[test]
fn an_application_that_asks_for_a_session_is_refused_whatever_user_it_is() -> Result<()> {
    let mesh = Mesh::of("agent-stranger", &Plan::by_agent())?;
    let pod = &mesh.client.pod;
    let user = ["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups"];
    for who in [&["env"][..], &user] {
        let python = ["env", "PATH=/usr/bin:/bin", "python3", "-c", ASK];
        let words = [who, &python].concat();
        let answer = pod.run(words[0], &words[1..])?.ok()?;
        ensure!(
            answer.contains("refused") && answer.contains("only that one is given a session"),
            "{answer}"
        );
    }
    let told = "asks from the cgroup";
    wait::until("the agent has told of both", wait::SOON, || {
        mesh.fabric.agent_log().matches(told).count() == 2
    })?;
    // Nothing has changed for the one that serves.
    ensure!(mesh.client.sidecar.is_ready(), "{}", mesh.client.sidecar.log());
    Ok(())
}

#[test]
fn a_second_sidecar_that_may_not_take_over_is_refused_while_one_serves_and_told_which() -> Result<()> {
    let mut mesh = Mesh::of("agent-second", &Plan::by_agent())?;
    mesh.serve(apps::nginx, 8080)?;
    let sidecar = &mesh.client.sidecar;
    let config = fs::read_to_string(sidecar.config())?;
    let unwilling = config.replace("interception: {", "interception: {takeover: refuse, ");
    ensure!(unwilling != config, "{config}");
    fs::write(sidecar.config(), unwilling)?;
    let mut second = sidecar.spawn()?;
    let status = second.wait(wait::SOON)?;
    ensure!(!status.success(), "{}", second.log());
    let log = second.log();
    let pid = mesh.client.sidecar.pid().context("it runs")?;
    ensure!(
        log.contains(&format!("process {pid} serves this pod")),
        "not told of process {pid}: {log}"
    );
    curl(&mesh, mesh.vip4(80)).map(drop)
}

#[test]
fn pods_go_on_without_the_agent_and_are_its_own_again_once_it_is_back() -> Result<()> {
    let mut mesh = Mesh::of("agent-restart", &Plan::by_agent())?;
    mesh.serve(apps::nginx, 8080)?;
    mesh.serve(apps::echo, 9000)?;
    let (kept, opened) = Keep::open(&mesh.client.pod, &[mesh.vip4(9000), mesh.vip6(9000)], 5)?;
    ensure!(opened.get("ok") == Some(&10), "{opened:?}");

    mesh.fabric.kill_agent();
    curl(&mesh, mesh.vip4(80))?;

    // A sidecar that starts meanwhile waits, and says so. Nobody passes it by.
    let server = &mut mesh.servers[0].sidecar;
    server.kill();
    let mut waiting = server.spawn_alone()?;
    waiting.until("says that it waits", |process| {
        process.log().contains("waiting for the agent of this node")
    })?;
    let past = (mesh.servers[0].pod.ipv4(), 8080).into();
    expect::connection_refused(&mesh.outside, past)?;

    mesh.fabric.start_agent()?;
    waiting.until("is served", |process| process.log().contains("proxy started"))?;
    let log = mesh.fabric.agent_log();
    ensure!(
        log.matches("is adopted").count() == 2 && !log.contains("is removed"),
        "{log}"
    );
    wait::until("the service answers", wait::SOON, || {
        curl(&mesh, mesh.vip6(80)).is_ok()
    })?;
    // The client's sidecar has served on; the server's was killed with its connections.
    ensure!(mesh.client.sidecar.is_ready(), "{}", mesh.client.sidecar.log());
    drop(kept);
    Ok(())
}

#[test]
fn established_connections_outlive_the_agent_and_its_restart() -> Result<()> {
    let mut mesh = Mesh::of("agent-adopts", &Plan::by_agent())?;
    mesh.serve(apps::echo, 9000)?;
    let (kept, _) = Keep::open(&mesh.client.pod, &[mesh.vip4(9000), mesh.vip6(9000)], 5)?;
    mesh.fabric.kill_agent();
    mesh.fabric.start_agent()?;
    wait::until("both pods are installed again", wait::SOON, || {
        mesh.fabric.agent_log().matches("a pod is installed").count() == 2
    })?;
    let (new, opened) = Keep::open(&mesh.client.pod, &[mesh.vip4(9000), mesh.vip6(9000)], 5)?;
    ensure!(opened.get("ok") == Some(&10), "{opened:?}");
    assert_eq!((kept.close()?, new.close()?), (10, 10));
    Ok(())
}

#[test]
fn a_pod_that_is_gone_leaves_nothing_behind() -> Result<()> {
    let mesh = Mesh::of("agent-gone", &Plan::by_agent())?;
    let Mesh { client, fabric, .. } = &mesh;
    let pins = client.sidecar.pins();
    ensure!(pins.exists(), "{} is missing", pins.display());
    let cgroup = client.pod.cgroup().to_owned();
    cgroup::remove_tree(&cgroup);
    wait::until("what is pinned is removed", wait::SOON, || {
        !pins.exists() && fabric.agent_log().contains("a pod is gone")
    })
}

#[test]
fn a_pod_whose_sidecar_is_killed_is_closed_until_it_is_back() -> Result<()> {
    let mut mesh = Mesh::of("agent-killed", &Plan::by_agent())?;
    mesh.serve(apps::nginx, 8080)?;
    curl(&mesh, mesh.vip4(80))?;
    let past: SocketAddr = (mesh.server().pod.ipv4(), 8080).into();
    let capture = Capture::start(&mesh.fabric)?;
    mesh.client.sidecar.kill();
    for at in [past, mesh.vip4(80), mesh.vip6(80)] {
        let lines = Dialogue::connect(&mesh.client.pod, at, &["send:GET / HTTP/1.0\r\n\r\n"])?.lines()?;
        assert_eq!(lines, ["connect errno ECONNREFUSED"], "{at}");
    }
    let recording = capture.stop()?;
    ensure!(!recording.holds(b"GET / HTTP"), "in plaintext");
    mesh.client.sidecar.restart()?;
    curl(&mesh, mesh.vip4(80)).map(drop)
}
