//! `outrigger status` tells the truth: what is attached where, and each way in which it is not any more.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use harness::mesh::Options;
use harness::{Mesh, Output, Sidecar, wait};
use serde_json::Value;

use crate::lone::Lone;

const PINS: &str = "--pins";
const CGROUP: &str = "--cgroup";
const SOCKET: &str = "--admin-socket";

fn args<'a>(pairs: &[(&'a str, &'a Path)]) -> Vec<&'a OsStr> {
    let words = |(name, path): &(&'a str, &'a Path)| [OsStr::new(*name), path.as_os_str()];
    pairs.iter().flat_map(words).collect()
}

/// The answer for programs, which has to fail when there is a problem in it.
fn asked(sidecar: &Sidecar, pairs: &[(&str, &Path)]) -> Result<Value> {
    let mut args = args(pairs);
    args.extend(["-o", "json"].map(OsStr::new));
    let output = sidecar.status(&args)?;
    let report: Value = serde_json::from_str(&output.stdout).with_context(|| format!("{output:?}"))?;
    let fails = !problems(&report).is_empty();
    assert_eq!(output.code(), Some(i32::from(fails)), "{output:?}");
    Ok(report)
}

fn problems(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().cloned().unwrap_or_default();
    let problem = |finding: &Value| Some(finding["what"].as_str()?.to_owned());
    findings
        .iter()
        .filter(|finding| finding["isProblem"] == true)
        .filter_map(problem)
        .collect()
}

fn states(report: &Value) -> Vec<String> {
    let hooks = report["hooks"].as_array().cloned().unwrap_or_default();
    let state = |hook: &Value| hook["state"].as_str().unwrap_or_default().to_owned();
    hooks.iter().map(state).collect()
}

fn is_said(output: &Output, what: &str) -> bool {
    output.stdout.contains(what) && output.stdout.contains("remedy: ")
}

#[test]
fn what_is_attached_is_said_with_its_target_its_age_and_its_proxy() -> Result<()> {
    let mesh = Mesh::start("status")?;
    let (pod, sidecar) = (&mesh.client.pod, &mesh.client.sidecar);
    let (pins, socket) = (sidecar.pins(), sidecar.admin_socket());
    // From the proxy alone, as on a host with one.
    let report = asked(sidecar, &[(SOCKET, &socket)])?;
    assert_eq!(problems(&report), [] as [&str; 0], "{report:#}");
    assert_eq!(report["pins"], pins.display().to_string());
    assert_eq!(states(&report), ["attached"; 9]);
    for hook in report["hooks"].as_array().context("hooks")? {
        let netns = fs::metadata(pod.netns().path())?;
        let target = match hook["program"] == "or_sk_lookup" {
            true => format!("net:[{}]", std::os::unix::fs::MetadataExt::ino(&netns)),
            false => pod.cgroup().display().to_string(),
        };
        assert_eq!(hook["target"], target);
        for moment in ["since", "loaded"] {
            let moment = hook[moment].as_str().with_context(|| hook.to_string())?;
            assert!(moment.starts_with("20") && moment.ends_with('Z'), "{moment}");
        }
        assert_eq!(hook["loadedByUid"], 0);
        assert!(hook["programId"].as_u64().is_some_and(|id| id > 0));
    }
    let proxy = &report["proxy"];
    assert_eq!(proxy["pid"].as_u64(), sidecar.pid().map(u64::from));
    assert_eq!(
        (&proxy["ready"], &proxy["workload"]),
        (&true.into(), &"client".into())
    );
    assert!(report["abi"].as_u64().is_some(), "{report:#}");

    let text = sidecar.status(&args(&[("--config", &sidecar.config())]))?.ok()?;
    assert!(text.contains(", ready") && text.contains("or_connect4"), "{text}");
    assert!(!text.contains("problem"), "{text}");
    Ok(())
}

#[test]
fn a_dead_proxy_and_detached_hooks_are_said() -> Result<()> {
    let mut mesh = Mesh::start("status-dead")?;
    let sidecar = &mut mesh.client.sidecar;
    let (pins, socket) = (sidecar.pins(), sidecar.admin_socket());
    sidecar.kill();
    let report = asked(sidecar, &[(PINS, &pins), (SOCKET, &socket)])?;
    assert_eq!(states(&report), ["attached"; 9], "they outlive it");
    let [said] = &problems(&report)[..] else {
        panic!("{report:#}");
    };
    assert!(said.starts_with("no proxy answers at"), "{said}");
    // Whoever asks for the hooks alone has what it asks for.
    let report = asked(sidecar, &[(PINS, &pins)])?;
    assert_eq!(problems(&report), [] as [&str; 0]);

    sidecar.detach()?;
    let output = sidecar.status(&args(&[(PINS, &pins)]))?;
    assert_eq!(output.code(), Some(1), "{output:?}");
    assert!(is_said(&output, "nothing is pinned"), "{output:?}");
    // A proxy that nobody can ask names no pins.
    let output = sidecar.status(&args(&[(SOCKET, &socket)]))?;
    assert_eq!(output.code(), Some(1), "{output:?}");
    assert!(output.stderr.contains("--pins"), "{output:?}");
    Ok(())
}

#[test]
fn a_cgroup_that_is_removed_and_one_made_anew_in_its_place_are_said() -> Result<()> {
    // The cgroup is one that nobody runs in, so that it can go.
    let mut lone = Lone::new("status-cgroup", &Options::new("server").cgroup_below("container"))?;
    let cgroup = lone.pod.cgroup().join("container");
    let pins = lone.sidecar.pins();
    lone.sidecar.kill();
    let ask = |lone: &Lone| asked(&lone.sidecar, &[(PINS, &pins), (CGROUP, &cgroup)]);
    assert_eq!(problems(&ask(&lone)?), [] as [&str; 0]);

    fs::remove_dir(&cgroup)?;
    let said = problems(&ask(&lone)?);
    assert!(
        said.iter().any(|what| what.contains("container is not there")),
        "{said:?}"
    );
    // The kernel cuts the links of a dead cgroup in its own time.
    wait::until("the hooks are detached", wait::SOON, || {
        let detached = |report: Value| states(&report).iter().filter(|s| *s == "detached").count() == 8;
        ask(&lone).is_ok_and(detached)
    })?;
    fs::create_dir(&cgroup)?;
    let said = problems(&ask(&lone)?);
    let [said] = &said[..] else { panic!("{said:?}") };
    assert!(
        said.starts_with("detached: ") && said.contains("the cgroup is gone"),
        "{said}"
    );
    Ok(())
}

#[test]
fn hooks_of_another_cgroup_than_the_one_that_is_asked_for_are_said() -> Result<()> {
    let mesh = Mesh::start("status-other")?;
    let sidecar = &mesh.client.sidecar;
    let report = asked(
        sidecar,
        &[(PINS, &sidecar.pins()), (CGROUP, mesh.outside.cgroup())],
    )?;
    let said = problems(&report).join("\n");
    assert!(said.contains("is another one"), "{said}");
    Ok(())
}

#[test]
fn pins_that_are_on_no_bpffs_are_said_with_the_remedy() -> Result<()> {
    let mesh = Mesh::start("status-bpffs")?;
    let sidecar = &mesh.client.sidecar;
    // What is left of a directory whose bpffs has been unmounted.
    let output = sidecar.status(&args(&[(PINS, sidecar.dir())]))?;
    assert_eq!(output.code(), Some(1), "{output:?}");
    assert!(is_said(&output, "is not on a bpffs"), "{output:?}");
    assert!(output.stdout.contains("mount -t bpf bpf"), "{output:?}");
    Ok(())
}

#[test]
fn an_address_that_comes_later_and_one_that_goes_are_said() -> Result<()> {
    let mesh = Mesh::start("status-address")?;
    let (pod, sidecar) = (&mesh.client.pod, &mesh.client.sidecar);
    let socket = sidecar.admin_socket();
    pod.netns().ip_batch("address add 10.99.7.7/32 dev eth0")?;
    let report = asked(sidecar, &[(SOCKET, &socket)])?;
    assert_eq!(problems(&report), [] as [&str; 0], "it may be meant");
    let note = report["findings"][0]["what"].as_str().unwrap_or_default();
    assert!(note.contains("10.99.7.7"), "{report:#}");
    pod.netns()
        .ip_batch(&format!("address del {}/16 dev eth0", pod.ipv4()))?;
    let said = problems(&asked(sidecar, &[(SOCKET, &socket)])?).join("\n");
    assert!(
        said.contains(&pod.ipv4().to_string()) && said.contains("no interface has it"),
        "{said}"
    );
    Ok(())
}
