//! What a node's agent remembers of its pods, as `kubectl outrigger --unix` shows it: one place for all of them, which outlives
//! sidecars, and which strangers do not reach.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::apps::{self, Keep};
use harness::mesh::{Mesh, Options, Plan, agent, binaries};
use harness::{Process, cgroup, http, wait};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::agent::ASK;

fn mesh(kind: &str) -> Result<Mesh> {
    Mesh::of(kind, &Plan::by_agent())
}

/// Of the agent of this fabric, by default beside its other socket.
fn socket(mesh: &Mesh) -> PathBuf {
    mesh.fabric.scratch().join("agent-admin.sock")
}

/// What the plugin prints.
fn plugin(mesh: &Mesh, words: &[&str]) -> Result<String> {
    let output = Command::new(binaries::path("kubectl-outrigger")?)
        .args(words)
        .arg("--unix")
        .arg(socket(mesh))
        .env_remove("COLUMNS")
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{words:?}: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}

fn document(mesh: &Mesh, words: &[&str]) -> Result<Value> {
    let text = plugin(mesh, &[words, &["-o", "json"]].concat())?;
    serde_json::from_str(&text).with_context(|| text.clone())
}

/// `GET` at the agent's own socket.
fn get(mesh: &Mesh, path: &str) -> Result<String> {
    let (status, body) = http::get_unix(&socket(mesh), path)?;
    ensure!(status == 200, "{path} is answered {status}: {body}");
    Ok(body)
}

fn closed(mesh: &Mesh, query: &str) -> Result<Vec<Value>> {
    let list: Value = serde_json::from_str(&get(mesh, &format!("/flows?state=closed&limit=10000&{query}"))?)?;
    Ok(list["closed"].as_array().context("a list")?.clone())
}

/// Waits until the agent remembers so many.
fn until_closed(mesh: &Mesh, query: &str, count: usize) -> Result<Vec<Value>> {
    let what = format!("{count} flows of {query:?} are remembered");
    wait::until_some(&what, wait::SOON, || {
        Ok(Some(closed(mesh, query)?).filter(|flows| flows.len() >= count))
    })
}

fn metric(mesh: &Mesh, series: &str) -> Result<u64> {
    let metrics = get(mesh, "/metrics")?;
    let line = metrics.lines().find_map(|line| line.strip_prefix(series));
    let value = line.with_context(|| format!("no {series} in\n{metrics}"))?;
    Ok(value.trim().parse::<f64>()? as u64)
}

#[test]
fn flows_of_all_pods_of_a_node_are_seen_in_one_place() -> Result<()> {
    let mut mesh = mesh("agent-sees")?;
    mesh.serve(apps::nginx, 8080)?;
    mesh.serve(apps::echo, 9000)?;
    for at in [mesh.vip4(80), mesh.vip6(80)] {
        apps::curl(&mesh.client.pod, &apps::url(at))?.ok()?;
    }
    let (kept, _) = Keep::open(&mesh.client.pod, &[mesh.vip4(9000)], 1)?;
    for pod in ["client", "server-1"] {
        until_closed(&mesh, &format!("pod={pod}&failed=false"), 2)?;
    }

    let table = plugin(&mesh, &["flows", "--columns", "80"])?;
    ensure!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    ensure!(table.starts_with("POD "), "{table}");
    let count = |text: &str, word: &str| text.lines().filter(|line| line.starts_with(word)).count();
    assert_eq!(
        (count(&table, "client "), count(&table, "server-1 ")),
        (3, 3),
        "{table}"
    );
    let open = plugin(&mesh, &["flows", "--open"])?;
    assert_eq!(
        (count(&open, "client "), count(&open, "server-1 ")),
        (1, 1),
        "{open}"
    );
    let one = plugin(&mesh, &["flows", "client", "--since", "10m"])?;
    assert_eq!(
        (count(&one, "client "), count(&one, "server-1 ")),
        (3, 0),
        "{one}"
    );

    let list = document(&mesh, &["flows"])?;
    assert_eq!(
        (&list["apiVersion"], &list["kind"]),
        (&"outrigger.example/v1alpha1".into(), &"FlowList".into())
    );
    assert_eq!(list["open"].as_array().map(Vec::len), Some(2), "{list}");
    let edges = document(&mesh, &["edges"])?;
    let secured = |edge: &Value| edge["source"]["name"] == "demo/client" && edge["secured"] == true;
    ensure!(
        edges["edges"]
            .as_array()
            .is_some_and(|edges| edges.iter().any(secured)),
        "{edges}"
    );
    let status = document(&mesh, &["status"])?;
    for (n, pod) in ["client", "server-1"].into_iter().enumerate() {
        let told = &status["pods"][n];
        assert_eq!(
            (&told["pod"], &told["sidecar"]),
            (&pod.into(), &"serving".into()),
            "{status}"
        );
        assert_eq!(
            (&told["openFlows"], &told["problems"]),
            (&1.into(), &Value::Array(Vec::new()))
        );
    }
    let at = mesh.vip4(80).to_string();
    let why = plugin(&mesh, &["why", &at, "--pod", "client"])?;
    ensure!(
        why.contains("goes through the mesh") && why.contains("no failed connection to there"),
        "{why}"
    );
    drop(kept);
    Ok(())
}

#[test]
fn a_watch_at_the_agent_tells_of_every_pod_also_of_one_whose_sidecar_comes_later() -> Result<()> {
    let mut mesh = mesh("agent-watched")?;
    mesh.serve(apps::nginx, 8080)?;
    mesh.client.sidecar.kill();
    let mut command = Command::new(binaries::path("kubectl-outrigger")?);
    command
        .args(["flows", "-w", "-o", "json", "--unix"])
        .arg(socket(&mesh));
    let mut watch = mesh.fabric.node().spawn(command)?;
    mesh.client.sidecar.restart()?;
    watch.until(
        "has told of a flow of both pods from its begin to its end",
        |watch| {
            // Asked again, as the watch may have begun after the first.
            let _ = apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)));
            let log = watch.log();
            let events = log
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let told: BTreeSet<String> = events
                .map(|event| format!("{} {}", event["flow"]["pod"], event["event"]))
                .collect();
            ["client", "server-1"].iter().all(|pod| {
                ["opened", "closed"]
                    .iter()
                    .all(|event| told.contains(&format!("\"{pod}\" \"{event}\"")))
            })
        },
    )
}

#[test]
fn a_failure_is_explained_step_by_step_after_its_sidecar_was_killed() -> Result<()> {
    let mut mesh = mesh("agent-explains")?;
    let at = mesh.vip4(9000);
    // Nobody listens behind the service.
    let (_none, results) = Keep::open(&mesh.client.pod, &[at], 1)?;
    ensure!(!results.contains_key("ok"), "{results:?}");
    // Each sidecar tells of its end of the connection in its own time.
    for pod in ["client", "server-1"] {
        until_closed(&mesh, &format!("pod={pod}&failed=true"), 1)?;
    }
    mesh.client.sidecar.kill();

    let at = at.to_string();
    wait::until("the sidecar is missed", wait::SOON, || {
        plugin(&mesh, &["why", &at, "--pod", "client"])
            .is_ok_and(|why| why.starts_with("client: no sidecar holds"))
    })?;
    let why = plugin(&mesh, &["why", &at, "--pod", "client"])?;
    let mut rest = &why[..];
    let server = mesh.server().pod.ipv4();
    for next in [
        "start its sidecar",
        &format!("to {at} failed at "),
        "connection_refused by upstream",
        "the kernel gave the application's connection to the proxy",
        "the registry says: it is the service",
        &format!("{server}:9000 was dialled through the mesh: connection_refused by upstream"),
        &format!("endpoint {server}:9000, hbone"),
    ] {
        let found = rest
            .find(next)
            .with_context(|| format!("no {next:?} in its place in\n{why}"))?;
        rest = &rest[found..];
    }
    let told = document(&mesh, &["why", &at, "--pod", "client"])?;
    assert_eq!(
        (&told["kind"], &told["now"]),
        (&"PodExplanation".into(), &Value::Null),
        "{told}"
    );
    // The other end tells of it by the address of the endpoint.
    for (at, pod) in [(&at, "client"), (&format!("{server}:9000"), "server-1")] {
        let past = document(&mesh, &["why", at, "--past"])?;
        let told = past["explanations"].as_array().context("a list")?;
        let of_pod = |past: &Value| past["summary"].as_str().is_some_and(|told| told.starts_with(pod));
        ensure!(told.iter().any(of_pod), "{pod}: {past}");
    }
    let status = plugin(&mesh, &["status", "--columns", "80"])?;
    ensure!(
        status
            .lines()
            .any(|line| line.starts_with("client ") && line.contains("waiting"))
            && status.contains("client: no sidecar holds this pod"),
        "{status}"
    );

    // The one that comes after it counts its flows from 1 again.
    mesh.client.sidecar.restart()?;
    wait::until("the sidecar is there", wait::SOON, || {
        plugin(&mesh, &["status"]).is_ok_and(|status| !status.contains("waiting"))
    })?;
    let again = plugin(&mesh, &["why", &at, "--pod", "client"])?;
    ensure!(
        again.contains("goes through the mesh") && again.contains(&format!("to {at} failed at ")),
        "{again}"
    );
    Ok(())
}

#[test]
fn flows_that_began_or_ended_while_there_was_no_agent_are_known_to_the_next_one_once() -> Result<()> {
    let mut mesh = mesh("agent-catches-up")?;
    mesh.serve(apps::nginx, 8080)?;
    mesh.serve(apps::echo, 9000)?;
    let (kept, opened) = Keep::open(&mesh.client.pod, &[mesh.vip4(9000)], 5)?;
    ensure!(opened.get("ok") == Some(&5), "{opened:?}");
    mesh.fabric.kill_agent();
    apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?.ok()?;
    mesh.fabric.start_agent()?;
    assert_eq!(kept.close()?, 5);
    for pod in ["client", "server-1"] {
        let flows = until_closed(&mesh, &format!("pod={pod}"), 6)?;
        let ids: BTreeSet<u64> = flows.iter().filter_map(|flow| flow["id"].as_u64()).collect();
        assert_eq!((flows.len(), ids.len()), (6, 6), "{pod}: {flows:?}");
    }
    let since: Value = serde_json::from_str(&get(&mesh, "/flows?after=1.1")?)?;
    assert_eq!(since["restarted"], true);
    let cursor = since["cursor"].as_str().context("a cursor")?;
    apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?.ok()?;
    wait::until(
        "who follows hears of both ends, and of nothing twice",
        wait::SOON,
        || {
            let answer = get(&mesh, &format!("/flows?after={cursor}")).unwrap_or_default();
            let since: Value = serde_json::from_str(&answer).unwrap_or_default();
            since["flows"].as_array().is_some_and(|flows| flows.len() == 2) && since["lost"] == 0
        },
    )
}

#[test]
fn strangers_are_refused_and_counted_and_do_not_reach_what_the_agent_remembers() -> Result<()> {
    const NOBODY: u32 = 65534;
    let mesh = mesh("agent-counts")?;
    let refused = r#"outrigger_agent_refusals_total{asker="stranger"}"#;
    assert_eq!(metric(&mesh, refused)?, 0);
    for _ in 0..2 {
        let answer = mesh.client.pod.run("python3", ["-c", ASK])?.ok()?;
        ensure!(answer.contains("refused"), "{answer}");
    }
    wait::until("both are counted", wait::SOON, || {
        metric(&mesh, refused).is_ok_and(|n| n == 2)
    })?;
    assert_eq!(metric(&mesh, r#"outrigger_agent_pods{sidecar="present"}"#)?, 2);
    assert_eq!(metric(&mesh, "outrigger_agent_grants_total")?, 2);
    let pods: Value = serde_json::from_str(&get(&mesh, "/pods")?)?;
    assert_eq!(
        (
            &pods["pods"][0]["refusedAskers"],
            &pods["pods"][1]["refusedAskers"]
        ),
        (&2.into(), &0.into()),
        "{pods}"
    );
    assert_eq!(get(&mesh, "/healthz")?, "ok\n");

    let mode = |path: &PathBuf| Ok::<_, anyhow::Error>(fs::metadata(path)?.permissions().mode() & 0o777);
    let sidecars = mesh.fabric.scratch().join("agent-pods");
    assert_eq!((mode(&socket(&mesh))?, mode(&sidecars)?), (0o600, 0o700));
    let sockets: Vec<PathBuf> = fs::read_dir(&sidecars)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    assert_eq!(sockets.len(), 2, "{sockets:?}");
    for socket in &sockets {
        assert_eq!(mode(socket)?, 0o600);
        // What it answers there it answers everybody. It is changed by one request alone, a drain.
        let (status, body) = http::get_unix(socket, "/summary")?;
        ensure!(status == 200 && body.contains("serving"), "{body}");
        for change in ["lame-duck", "loglevel"] {
            let url = format!("http://localhost/{change}");
            assert_eq!(at_socket(socket, 0, &["-X", "POST", &url])?, "403", "{change}");
        }
        assert_eq!(
            at_socket(socket, agent::SIDECAR_USER, &["http://localhost/flows"])?,
            "000"
        );
    }
    for user in [NOBODY, agent::SIDECAR_USER] {
        assert_eq!(
            at_socket(&socket(&mesh), user, &["http://localhost/flows"])?,
            "000"
        );
    }
    // Whatever becomes of the mode.
    fs::set_permissions(socket(&mesh), Permissions::from_mode(0o666))?;
    assert_eq!(
        at_socket(&socket(&mesh), NOBODY, &["http://localhost/flows"])?,
        "403"
    );
    ensure!(mesh.client.sidecar.is_ready(), "{}", mesh.client.sidecar.log());
    Ok(())
}

/// curl of a host user; the status it got.
fn at_socket(socket: &PathBuf, user: u32, words: &[&str]) -> Result<String> {
    let user = user.to_string();
    let output = Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .args(["curl", "-q", "-s", "--max-time", "20", "-o", "/dev/null"])
        .args(["-w", "%{http_code}", "--unix-socket"])
        .arg(socket)
        .args(words)
        .output()
        .context("run setpriv and curl")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// An agent for the pods of this mesh, in the place of the harness's own.
fn agent_with(mesh: &Mesh, words: &[&str]) -> Result<Process> {
    mesh.fabric.kill_agent();
    let scratch = mesh.fabric.scratch();
    let mut command = Command::new(binaries::path("outrigger")?);
    command
        .arg("agent")
        .arg("--pins")
        .arg(mesh.fabric.bpffs().join("agent"))
        .arg("--pods")
        .arg(cgroup::mount()?.join(mesh.fabric.name()).join("agent"))
        .args(["--sidecar", agent::SIDECAR])
        .arg("--socket")
        .arg(scratch.join("agent.sock"))
        .args(words);
    let mut process = mesh.fabric.node().spawn(command)?;
    process.until("serves the node", |process| {
        process.log().contains("the agent serves this node")
    })?;
    Ok(process)
}

#[test]
fn what_is_remembered_stays_within_its_bytes_and_what_goes_is_counted() -> Result<()> {
    const CONNECTIONS: usize = 500;
    let mut mesh = mesh("agent-forgets")?;
    mesh.serve(apps::echo, 9000)?;
    let _agent = agent_with(&mesh, &["--memory", "1MiB"])?;
    apps::one_by_one(&mesh.client.pod, mesh.vip4(9000), CONNECTIONS)?;
    let forgotten = r#"outrigger_agent_flows_forgotten_total{cause="room"}"#;
    wait::until("each flow was remembered for a time", wait::SOON, || {
        let kept = metric(&mesh, "outrigger_agent_memory_flows");
        let gone = metric(&mesh, forgotten);
        kept.and_then(|kept| Ok(kept + gone?))
            .is_ok_and(|all| all >= 2 * CONNECTIONS as u64)
    })?;
    let bytes = metric(&mesh, "outrigger_agent_memory_bytes")?;
    assert_eq!(metric(&mesh, "outrigger_agent_memory_limit_bytes")?, 1 << 20);
    ensure!(bytes > 1 << 19 && bytes <= 1 << 20, "{bytes}");
    ensure!(metric(&mesh, forgotten)? > 0);
    // The oldest have gone, of either pod.
    for pod in ["client", "server-1"] {
        let flows = closed(&mesh, &format!("pod={pod}"))?;
        let newest = flows.iter().filter_map(|flow| flow["id"].as_u64()).max();
        ensure!((50..CONNECTIONS).contains(&flows.len()), "{pod}: {}", flows.len());
        ensure!(newest >= Some(CONNECTIONS as u64), "{pod}: {newest:?}");
    }
    Ok(())
}

#[test]
fn connections_that_a_sidecar_cuts_at_its_end_are_remembered() -> Result<()> {
    let plan = Plan {
        client: Options::new("client").by_agent().drain("0s", "1ms"),
        ..Plan::by_agent()
    };
    let mut mesh = Mesh::of("agent-last-words", &plan)?;
    mesh.serve(apps::echo, 9000)?;
    let (_kept, opened) = Keep::open(&mesh.client.pod, &[mesh.vip4(9000)], 20)?;
    ensure!(opened.get("ok") == Some(&20), "{opened:?}");
    mesh.client.sidecar.signal(Signal::SIGTERM)?;
    mesh.client.sidecar.wait(wait::SOON)?;
    let flows = until_closed(&mesh, "pod=client&failed=true", 20)?;
    ensure!(
        flows.iter().all(|flow| flow["closeCause"] == "shutdown"),
        "{flows:?}"
    );
    Ok(())
}
