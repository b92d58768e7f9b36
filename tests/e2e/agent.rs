//! The agent of a node, and sidecars that have no privilege.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use harness::{apps, wait};
use harness::mesh::{Mesh, Options, Plan};

fn plan() -> Plan {
    Plan {
        client: Options::new("client").by_agent(),
        server: Options::new("server").by_agent(),
        ..Plan::default()
    }
}

fn curl(mesh: &Mesh, at: SocketAddr) -> Result<String> {
    let url = format!("http://{at}/");
    mesh.client
        .pod
        .run("curl", ["-sS", "--max-time", "10", &url])?
        .ok()
}

#[test]
fn pods_of_an_agent_talk_mutual_tls_by_sidecars_without_any_privilege() -> Result<()> {
    let mut mesh = Mesh::of("agent-mesh", &plan())?;
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
        let pid = member.sidecar.pid().context("it runs")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        for wanted in [
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
            "Uid:\t65532",
        ] {
            ensure!(status.contains(wanted), "no {wanted:?} in\n{status}");
        }
    }
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
    let mesh = Mesh::of("agent-confined", &plan())?;
    let sidecar = &mesh.client.sidecar;
    // One of root's own would be found first, which nobody else may run.
    let words = ["env", "PATH=/usr/bin:/bin", "python3", "-c", CALLS, "/etc/outrigger", "own"];
    let words = words.map(OsString::from);
    let mut command = sidecar.confined(&words)?;
    command.current_dir(sidecar.dir());
    let answers = mesh.client.pod.run_within(command, wait::SOON)?.ok()?;
    for refused in [
        "bpf EPERM",
        "perf_event_open EPERM",
        "setns EPERM",
        "unshare EPERM",
        "mount EPERM",
        "vsock EPERM",
        "write /etc/outrigger EROFS",
        "write own OK",
    ] {
        ensure!(answers.contains(refused), "no {refused:?} in\n{answers}");
    }
    // Without the filter the kernel answers: it is the filter that refuses.
    let answers = mesh.client.pod.run("python3", ["-c", CALLS])?.ok()?;
    for answered in ["bpf EINVAL", "setns EBADF", "unshare OK", "mount EFAULT"] {
        ensure!(answers.contains(answered), "no {answered:?} in\n{answers}");
    }
    Ok(())
}
