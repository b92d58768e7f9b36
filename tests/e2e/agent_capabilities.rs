//! What an agent needs each capability for that the chart grants it, measured: without one of them something fails, and whoever reads
//! the log is told which one is missing.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use harness::apps::{self, Dialogue, Keep};
use harness::chart::RENDERINGS;
use harness::mesh::{Mesh, Options, Plan};

/// What works.
#[derive(Debug, PartialEq, Eq)]
struct Works {
    /// A connection through the mesh.
    mesh: bool,
    /// connect() tells what became of it.
    truth: bool,
    /// Connections from before the sidecar are ended on request.
    existing: bool,
}

const ALL: Works = Works {
    mesh: true,
    truth: true,
    existing: true,
};
const NOTHING: Works = Works {
    mesh: false,
    truth: false,
    existing: false,
};

/// Without the first, the second is what works, and the log has the words.
const WITHOUT: [(&str, Works, &str); 4] = [
    (
        "net_admin",
        Works {
            existing: false,
            ..ALL
        },
        "grant CAP_NET_ADMIN",
    ),
    (
        "net_raw",
        Works { truth: false, ..ALL },
        "grant the agent CAP_NET_RAW",
    ),
    ("sys_admin", NOTHING, "grant CAP_SYS_ADMIN"),
    ("sys_ptrace", NOTHING, "grant CAP_SYS_PTRACE"),
];

/// Those that the chart gives the agent.
fn granted() -> Result<Vec<String>> {
    let text = fs::read_to_string(RENDERINGS[0].path())?;
    let agent = text
        .split("\n---")
        .find(|object| object.contains("kind: DaemonSet"));
    let added = agent
        .and_then(|agent| agent.split_once("add:\n"))
        .context("no capabilities")?;
    let lines = added.1.lines().map(str::trim);
    let list = lines.take_while(|line| line.starts_with(['-', '#']));
    let mut names: Vec<String> = list
        .filter_map(|line| line.strip_prefix("- "))
        .map(str::to_lowercase)
        .collect();
    names.sort();
    Ok(names)
}

/// With an agent that has these and no others. And what the agent and a sidecar say.
fn try_with(kind: &str, capabilities: Vec<String>) -> Result<(Works, String)> {
    let client = Options::new("client").by_agent().existing("destroy");
    let plan = Plan {
        client,
        capabilities: Some(capabilities),
        ..Plan::by_agent()
    };
    let mut mesh = match Mesh::of(kind, &plan) {
        Ok(mesh) => mesh,
        Err(error) => return Ok((NOTHING, format!("{error:#}"))),
    };
    mesh.serve(apps::nginx, 8080)?;
    let through = apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?;
    let closed: SocketAddr = (mesh.outside.ipv4(), 9).into();
    let lines = Dialogue::connect(&mesh.client.pod, closed, &["recv:1"])?.lines()?;
    let truth = lines == ["connect errno ECONNREFUSED"];

    // A connection that was there before the programs.
    mesh.fabric.kill_agent();
    mesh.client.sidecar.stop()?;
    mesh.client.sidecar.detach()?;
    mesh.programs.push(apps::echo(&mesh.outside, 9000)?);
    let (open, opened) = Keep::open(&mesh.client.pod, &[(mesh.outside.ipv4(), 9000).into()], 1)?;
    ensure!(opened.get("ok") == Some(&1), "{opened:?}");
    mesh.client.sidecar.restart()?;
    let works = Works {
        mesh: through.status.success(),
        truth,
        existing: open.close()? == 0,
    };
    let log = format!("{}{}", mesh.fabric.agent_log(), mesh.client.sidecar.log());
    Ok((works, log))
}

#[test]
fn with_the_capabilities_that_the_chart_grants_everything_works() -> Result<()> {
    let (works, log) = try_with("capabilities", granted()?)?;
    ensure!(works == ALL, "{works:?}\n{log}");
    Ok(())
}

#[test]
fn without_one_of_them_something_fails_and_the_log_names_it() -> Result<()> {
    let granted = granted()?;
    assert_eq!(
        granted,
        WITHOUT.map(|(name, ..)| name),
        "each has a reason here, sorted by name"
    );
    for (name, wanted, words) in WITHOUT {
        let others = granted.iter().filter(|other| *other != name).cloned().collect();
        let (works, log) = try_with("capability", others)?;
        ensure!(works == wanted, "without {name}: {works:?}\n{log}");
        ensure!(
            log.contains(words),
            "without {name} nobody says {words:?}:\n{log}"
        );
    }
    Ok(())
}

/// CAP_SYS_ADMIN includes it (capabilities(7)). Whoever has neither is told so by whatever loads programs.
#[test]
fn without_any_that_lets_it_load_programs_an_agent_says_which_it_lacks() -> Result<()> {
    let outrigger = harness::mesh::binaries::path("outrigger")?;
    for (kept, lacking) in [
        ("", "CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN"),
        (",+bpf,+net_admin", "CAP_PERFMON"),
    ] {
        let mut command = std::process::Command::new("setpriv");
        for set in ["--bounding-set", "--inh-caps"] {
            command.arg(format!("{set}=-all{kept}"));
        }
        command.arg(&outrigger).arg("check");
        let output = harness::Output::of(command, harness::wait::SOON)?;
        let said = output.stdout + &output.stderr;
        ensure!(said.contains(&format!("lacks {lacking};")), "{said}");
    }
    Ok(())
}
