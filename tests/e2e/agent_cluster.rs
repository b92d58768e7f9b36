//! The agent of a node of Kubernetes: which pods it serves, whom it takes for their sidecars, and what the kubelet may ask.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use harness::apps;
use harness::mesh::{Options, Registry, RegistryFile};
use harness::{ApiServer, Control, Fabric, Pod, Process, Sidecar, wait};
use serde_json::{Value, json};

use crate::agent::ASK;
use crate::expect;

const UID: &str = "0b8a3f3e-7c8e-4b57-9e0e-2f6c1d2a0001";
const OTHER: &str = "0b8a3f3e-7c8e-4b57-9e0e-2f6c1d2a0002";

/// The id of a container.
fn id(number: u8) -> String {
    format!("{number:064x}")
}

struct Node {
    server: ApiServer,
    fabric: Fabric,
}

impl Node {
    fn new(kind: &str) -> Result<Self> {
        let fabric = Fabric::new(kind)?;
        let server = ApiServer::start(fabric.node())?;
        fabric.join_cluster(&server)?;
        Ok(Self { server, fabric })
    }

    fn until_log(&self, words: &str) -> Result<()> {
        wait::until(&format!("the agent says {words:?}"), wait::SOON, || {
            self.fabric.agent_log().contains(words)
        })
        .with_context(|| self.fabric.agent_log())
    }

    fn pins(&self, uid: &str) -> PathBuf {
        self.fabric.bpffs().join("agent/pods").join(uid)
    }
}

/// As the API server has a pod; with a sidecar when it is `meshed`.
fn object(pod: &Pod, uid: &str, is_meshed: bool) -> Value {
    let sidecar = json!([{"name": "outrigger-proxy", "restartPolicy": "Always",
        "startupProbe": {"httpGet": {"path": "/startupz", "port": 15020}}}]);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": pod.name(), "namespace": "demo", "uid": uid},
        "spec": {
            "nodeName": "n1", "serviceAccountName": pod.name(),
            "initContainers": if is_meshed { sidecar } else { json!([]) },
            "containers": [{"name": "app", "image": "x", "ports": [{"name": "web", "containerPort": 8080}],
                "livenessProbe": {"httpGet": {"path": "/", "port": "web"}}}],
        },
        "status": {"phase": "Running", "podIPs": [{"ip": pod.ipv4()}, {"ip": pod.ipv6()}]},
    })
}

/// The same, once the kubelet has told of the sidecar.
fn with_sidecar(mut object: Value, id: &str) -> Value {
    object["status"]["initContainerStatuses"] =
        json!([{"name": "outrigger-proxy", "containerID": format!("containerd://{id}")}]);
    object
}

/// Its pause container.
fn sandbox(pod: &Pod) -> Result<Process> {
    let mut command = pod.command_below(&id(0xff), "sleep")?;
    command.arg("1000");
    pod.spawn(command)
}

/// What somebody in that container is answered at the door.
fn ask(pod: &Pod, container: &str) -> Result<String> {
    let mut command = pod.command_below(container, "env")?;
    command.args(["PATH=/usr/bin:/bin", "python3", "-c", ASK]);
    let output = pod.run_within(command, wait::SOON)?;
    Ok(output.stdout + &output.stderr)
}

/// A sidecar whose files are there.
fn sidecar(node: &Node, pod: &Pod, options: Options) -> Result<(Sidecar, Control, RegistryFile)> {
    let mut registry = Registry::default();
    registry.add_member(pod, &options.service_account, &[]);
    let registry = RegistryFile::create(node.fabric.scratch().join("registry.yaml"), registry)?;
    let control = Control::start(&node.fabric)?;
    let sidecar = Sidecar::configure(pod, &control, &registry, &options)?;
    Ok((sidecar, control, registry))
}

#[test]
fn a_pod_is_installed_where_the_api_server_says_that_it_is_meshed_and_no_other_is_touched() -> Result<()> {
    let node = Node::new("cluster-meshed")?;
    let [meshed, plain] =
        [("meshed", UID), ("plain", OTHER)].map(|(name, uid)| node.fabric.pod_of_kubelet(name, uid));
    let (meshed, plain) = (meshed?, plain?);
    let _programs = [sandbox(&meshed)?, sandbox(&plain)?];
    node.server.put(object(&plain, OTHER, false));
    // It has a cgroup, and the API server does not know it.
    node.fabric.start_agent()?;
    wait::until("the agent watches", wait::SOON, || {
        node.server
            .requests()
            .iter()
            .any(|request| request.contains("watch="))
    })?;
    ensure!(!node.pins(UID).exists(), "{}", node.fabric.agent_log());

    node.server.put(object(&meshed, UID, true));
    node.until_log("a pod is installed")?;
    ensure!(node.pins(UID).exists());
    let answer = ask(&meshed, &id(1))?;
    ensure!(
        answer.contains("wait") && answer.contains("the kubelet has not told yet"),
        "{answer}"
    );

    // Nothing of the other one: no program, no door.
    ensure!(!node.pins(OTHER).exists());
    let answer = ask(&plain, &id(1))?;
    ensure!(answer.contains("ConnectionRefusedError"), "{answer}");
    let selected = |request: &String| request.contains("fieldSelector=spec.nodeName%3Dn1");
    let requests = node.server.requests();
    ensure!(requests.iter().all(selected), "{requests:?}");

    // A pod that comes now, of which the watch tells late.
    let third = "0b8a3f3e-7c8e-4b57-9e0e-2f6c1d2a0003";
    let late = node.fabric.pod_of_kubelet("late", third)?;
    let _sandbox = sandbox(&late)?;
    let lists = |requests: Vec<String>| {
        requests
            .iter()
            .filter(|request| !request.contains("watch="))
            .count()
    };
    let before = lists(requests);
    wait::until("it is asked for, once", wait::SOON, || {
        lists(node.server.requests()) == before + 1
    })?;
    node.server.put(object(&late, third, true));
    wait::until("it is installed", wait::SOON, || node.pins(third).exists())
}

#[test]
fn the_sidecar_is_the_container_that_the_kubelet_names_and_waits_until_it_does() -> Result<()> {
    let node = Node::new("cluster-sidecar")?;
    let pod = node.fabric.pod_of_kubelet("client", UID)?;
    let _sandbox = sandbox(&pod)?;
    let object = object(&pod, UID, true);
    node.server.put(object.clone());
    let (mut sidecar, _control, _registry) = sidecar(&node, &pod, Options::new("client").by_agent())?;

    sidecar.run_in_container(&id(1));
    let mut first = sidecar.spawn()?;
    first.until("waits", |process| {
        process.log().contains("which does not know this proxy yet")
    })?;
    node.server.put(with_sidecar(object.clone(), &id(1)));
    first.until("is served", |process| process.log().contains("proxy started"))?;
    // Everybody else in the pod is a stranger.
    let answer = ask(&pod, &id(2))?;
    ensure!(
        answer.contains("refused") && answer.contains("only that one is given a session"),
        "{answer}"
    );

    // The kubelet starts it again, in another container, and tells of that later.
    first.kill();
    first.wait(wait::SOON)?;
    sidecar.run_in_container(&id(3));
    let mut second = sidecar.spawn()?;
    second.until("waits", |process| {
        process.log().contains("has ended, or has not begun")
    })?;
    node.server.put(with_sidecar(object, &id(3)));
    second.until("is served", |process| process.log().contains("proxy started"))?;
    let answer = ask(&pod, &id(1))?;
    ensure!(
        answer.contains("refused"),
        "the container before is nobody: {answer}"
    );
    Ok(())
}

#[test]
fn probes_of_the_node_see_the_application_as_it_is_and_nobody_else_passes_in_strict_mode() -> Result<()> {
    let node = Node::new("cluster-probes")?;
    let pod = node.fabric.pod_of_kubelet("server", UID)?;
    let outside = node.fabric.pod("outside")?;
    let _sandbox = sandbox(&pod)?;
    node.server.put(with_sidecar(object(&pod, UID, true), &id(1)));
    let options = Options::new("server").by_agent().strict();
    let (mut sidecar, _control, _registry) = sidecar(&node, &pod, options)?;
    sidecar.run_in_container(&id(1));
    sidecar.restart().with_context(|| node.fabric.agent_log())?;
    for ip in pod.addresses() {
        let mut app = apps::nginx(&pod, 8080)?;
        let _other = apps::nginx(&pod, 8081)?;
        let probed = SocketAddr::new(ip, 8080);
        let probe = || {
            node.fabric
                .node()
                .run("curl", ["-sS", "--max-time", "10", &format!("http://{probed}/")])
        };
        assert_eq!(probe()?.ok()?, "server\n");
        for (asker, port, verdict, reason) in [
            (
                node.fabric.node(),
                8080,
                "is left alone",
                "it is a probe of the kubelet",
            ),
            (
                node.fabric.node(),
                8081,
                "is refused",
                "strict mode refuses plaintext",
            ),
            (&outside, 8080, "is refused", "strict mode refuses plaintext"),
        ] {
            let from = asker
                .addresses()
                .into_iter()
                .find(|own| own.is_ipv4() == ip.is_ipv4());
            let from = from.context("it has both families")?.to_string();
            let why = sidecar.why(&[
                &SocketAddr::new(ip, port).to_string(),
                "--inbound",
                "--from",
                &from,
            ])?;
            let said = why.ok()?;
            ensure!(said.contains(verdict) && said.contains(reason), "{said}");
        }
        expect::connection_refused(&outside, probed)?;
        expect::connection_refused(node.fabric.node(), SocketAddr::new(ip, 8081))?;
        app.kill();
        app.wait(wait::SOON)?;
        expect::connection_refused(node.fabric.node(), probed)?;
    }
    let passed = sidecar.metric(
        "outrigger_kernel_events_total",
        &[r#"event="inbound_passed_probe""#],
    )?;
    ensure!(passed >= 4.0, "{passed}");
    Ok(())
}

#[test]
fn without_the_api_server_pods_that_are_known_go_on_and_new_ones_wait() -> Result<()> {
    let node = Node::new("cluster-away")?;
    let pod = node.fabric.pod_of_kubelet("client", UID)?;
    let _sandbox = sandbox(&pod)?;
    node.server.put(object(&pod, UID, true));
    node.fabric.start_agent()?;
    node.until_log("a pod is installed")?;

    node.fabric.kill_agent();
    node.server.set_away(true);
    node.fabric.start_agent()?;
    node.until_log("a pod is installed")?;
    let new = node.fabric.pod_of_kubelet("new", OTHER)?;
    let _other = sandbox(&new)?;
    node.server.put(object(&new, OTHER, true));
    node.until_log("those that are known go on, new ones wait")?;
    ensure!(!node.pins(OTHER).exists());
    node.server.set_away(false);
    wait::until("the new one is installed", wait::SOON, || {
        node.pins(OTHER).exists()
    })
    .with_context(|| node.fabric.agent_log())?;
    node.server.delete(UID);
    ensure!(node.pins(UID).exists(), "its containers run");
    Ok(())
}

#[test]
fn a_pod_that_can_have_no_sidecar_is_refused_with_an_event_and_one_without_is_not_installed_on_request()
-> Result<()> {
    let node = Node::new("cluster-refused")?;
    let [host, plain] =
        [("host", UID), ("plain", OTHER)].map(|(name, uid)| node.fabric.pod_of_kubelet(name, uid));
    let (host, plain) = (host?, plain?);
    let _programs = [sandbox(&host)?, sandbox(&plain)?];
    let mut refused = object(&host, UID, true);
    refused["spec"]["hostNetwork"] = true.into();
    node.server.put(refused);
    node.server.put(object(&plain, OTHER, false));
    node.fabric.start_agent()?;
    wait::until("there is an event", wait::SOON, || {
        !node.server.events().is_empty()
    })
    .with_context(|| node.fabric.agent_log())?;
    let events = node.server.events();
    ensure!(events.len() == 1, "{events:?}");
    assert_eq!(events[0]["reason"], "HostNetworkNotMeshed");
    assert_eq!(events[0]["involvedObject"]["uid"], UID);
    node.until_log("a pod is refused")?;

    for (pod, words) in [
        (&host, "hostNetwork"),
        (&plain, "has no container outrigger-proxy"),
    ] {
        let output = std::process::Command::new(harness::mesh::binaries::path("outrigger")?)
            .args(["install", "--socket"])
            .arg(node.fabric.agent_socket())
            .arg("--cgroup")
            .arg(pod.cgroup())
            .output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && stderr.contains(words), "{stderr}");
    }
    ensure!(!node.pins(UID).exists() && !node.pins(OTHER).exists());

    let checked = std::process::Command::new(harness::mesh::binaries::path("outrigger")?)
        .args(["check", "--agent"])
        .arg(node.fabric.agent_socket().with_file_name("agent-admin.sock"))
        .output()?;
    let stdout = String::from_utf8_lossy(&checked.stdout);
    let line = stdout
        .lines()
        .find(|line| line.contains("hostNetwork"))
        .unwrap_or_default();
    ensure!(
        line.starts_with("degraded") && line.contains("/host "),
        "{stdout}"
    );
    Ok(())
}

#[test]
fn where_the_node_can_serve_no_pod_each_with_a_sidecar_is_told_and_the_agent_ends() -> Result<()> {
    let node = Node::new("cluster-unfit")?;
    let [meshed, plain] =
        [("meshed", UID), ("plain", OTHER)].map(|(name, uid)| node.fabric.pod_of_kubelet(name, uid));
    node.server.put(object(&meshed?, UID, true));
    node.server.put(object(&plain?, OTHER, false));
    let mut command = node.fabric.node().command("setpriv");
    command
        .args(["--bounding-set=-bpf,-sys_admin", "--inh-caps=-bpf,-sys_admin"])
        .arg(harness::mesh::binaries::path("outrigger")?)
        .args([
            "agent",
            "--node",
            "n1",
            "--api-server",
            &node.server.url(),
            "--pins",
        ])
        .arg(node.fabric.bpffs().join("agent"))
        .arg("--socket")
        .arg(node.fabric.agent_socket());
    let mut agent = node.fabric.node().spawn(command)?;
    let status = agent.wait(wait::SOON)?;
    ensure!(!status.success(), "{}", agent.log());
    let events = node.server.events();
    ensure!(events.len() == 1, "{events:?}\n{}", agent.log());
    assert_eq!(events[0]["reason"], "NodeNotMeshed");
    assert_eq!(events[0]["involvedObject"]["uid"], UID);
    Ok(())
}
