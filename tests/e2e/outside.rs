//! `interception.netns`: a pod that is attached to, and served, by processes that were started in another network namespace.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use harness::apps::{self, Dialogue};
use harness::mesh::{Plan, binaries};
use harness::{Mesh, Output, Pod, Sidecar, wait};

/// `outrigger attach` in the namespace and the cgroup of this test, for the pod of the sidecar.
fn attach(sidecar: &Sidecar, netns: &Path, before: &[&str]) -> Result<Output> {
    let outrigger = binaries::path("outrigger")?;
    let mut words: Vec<&OsStr> = before.iter().map(OsStr::new).collect();
    words.extend([outrigger.as_os_str(), OsStr::new("attach")]);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command.arg("--config").arg(sidecar.config());
    command.arg("--netns").arg(netns);
    sidecar.pod().run_within(command, wait::SOON)
}

/// A command in the pod's cgroup, and in the namespace of this test.
fn in_cgroup(pod: &Pod, program: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\""]);
    command.arg(pod.cgroup()).arg(program);
    command
}

#[test]
fn a_pod_is_closed_and_served_from_another_network_namespace() -> Result<()> {
    // `interception.netns` is for a proxy that installs by itself: an agent finds the namespace (`pods/find.rs`).
    let mut mesh = Mesh::of("outside", &Plan::privileged())?;
    mesh.serve(apps::nginx, 8080)?;
    mesh.client.sidecar.stop()?;
    let sidecar = &mesh.client.sidecar;
    sidecar.detach()?;
    let pod = sidecar.pod().clone();
    let netns = pod.netns().path();
    let attached = attach(sidecar, &netns, &[])?.ok()?;
    assert!(
        attached.contains("refused until a proxy takes over"),
        "{attached}"
    );
    // Nothing of the pod runs yet, so that nobody but the file tells which one it is.
    let pins = sidecar.pins();
    let status = |netns: &Path| {
        let words = [("--pins", &*pins), ("--cgroup", pod.cgroup()), ("--netns", netns)];
        let words: Vec<&OsStr> = words
            .iter()
            .flat_map(|(name, path)| [OsStr::new(*name), path.as_os_str()])
            .collect();
        let mut command = Command::new(binaries::path("outrigger")?);
        command.arg("status").args(words);
        pod.run_within(command, wait::SOON)
    };
    let said = status(&netns)?.ok()?;
    assert!(
        said.contains(&format!("netns    {}\n", netns.display())),
        "{said}"
    );
    let other = mesh.servers[0].pod.netns().path();
    for (netns, said) in [
        (&*other, format!("{} is the one with inode", other.display())),
        (
            Path::new("/run/netns/absent"),
            "/run/netns/absent is not there".to_owned(),
        ),
    ] {
        let output = status(netns)?;
        assert!(
            output.code() == Some(1) && output.stdout.contains(&said),
            "{said}: {output:?}"
        );
    }
    let server = mesh.servers[0].pod.ipv4();
    let lines = Dialogue::connect(&pod, (server, 8080).into(), &["close"])?.lines()?;
    assert_eq!(lines, ["connect errno ECONNREFUSED"]);

    let mut command = in_cgroup(&pod, &binaries::path("outrigger")?);
    command.arg("proxy").arg("--config").arg(sidecar.config());
    command.arg("--netns").arg(&netns);
    let mut proxy = pod.spawn(command)?;
    proxy.until("is ready", |_| sidecar.is_ready())?;
    // By the proxy, which was told.
    let socket = sidecar.admin_socket();
    let said = sidecar
        .status(&[OsStr::new("--admin-socket"), socket.as_os_str()])?
        .ok()?;
    assert!(
        said.contains(&format!("netns    {}\n", netns.display())),
        "{said}"
    );
    // By a process of the cgroup, or by its file.
    for more in [&[][..], &["--netns", &netns.display().to_string()]] {
        let mut command = Command::new(binaries::path("outrigger")?);
        command.arg("check").arg("--cgroup").arg(pod.cgroup()).args(more);
        let said = pod.run_within(command, wait::SOON)?.ok()?;
        let looked = format!("net:[{}]: ", fs::metadata(&netns)?.ino());
        assert!(said.contains(&looked), "{looked} {said}");
    }
    for url in [apps::url(mesh.vip4(80)), apps::url((server, 8080))] {
        assert_eq!(apps::curl(&pod, &url)?.ok()?, "server-1\n");
    }
    let flow = sidecar.until_flow("through the mesh", |flow| flow["direction"] == "outbound")?;
    assert_eq!(flow["transport"], "hbone", "{flow}");

    let again = attach(sidecar, &netns, &[])?.ok()?;
    assert!(again.contains("already attached"), "{again}");
    Ok(())
}

#[test]
fn a_namespace_that_is_not_the_pods_or_cannot_be_entered_is_refused_and_nothing_is_attached() -> Result<()> {
    let mut mesh = Mesh::of("outside-refused", &Plan::privileged())?;
    let other = mesh.servers[0].pod.netns().path();
    let sidecar = &mut mesh.client.sidecar;
    sidecar.stop()?;
    sidecar.detach()?;
    let pod = sidecar.pod().clone();
    let mut application = pod.command("sleep");
    application.arg("infinity");
    let _application = pod.spawn(application)?;
    let own = pod.netns().path();
    let unprivileged = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];
    for (netns, before, said) in [
        (&*other, &[][..], "belong to different pods"),
        (&own, &unprivileged, "cannot be entered"),
        (&own, &unprivileged, "CAP_SYS_ADMIN"),
        (
            Path::new("/run/netns/absent"),
            &[],
            "/run/netns/absent cannot be opened",
        ),
        (Path::new("/proc/self/status"), &[], "is no network namespace"),
    ] {
        let refused = attach(sidecar, netns, before)?;
        assert_ne!(refused.code(), Some(0), "{refused:?}");
        assert!(refused.stderr.contains(said), "{said}: {refused:?}");
        assert!(refused.stderr.contains("interception.netns"), "{refused:?}");
        assert!(!sidecar.pins().exists(), "{said}: nothing is attached");
    }
    Ok(())
}
