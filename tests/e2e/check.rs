//! `outrigger check`: what this host lacks, and which of it is a failure.

use std::time::Duration;

use anyhow::Result;
use harness::mesh::binaries;
use harness::{Fabric, Output};

/// Without these capabilities, by their names without `cap_`.
fn check(kind: &str, without: &[&str]) -> Result<Output> {
    let fabric = Fabric::new(kind)?;
    let pod = fabric.pod("a")?;
    let mut command = pod.command("setpriv");
    let dropped: Vec<String> = without.iter().map(|name| format!("-{name}")).collect();
    command.arg(format!("--bounding-set={}", dropped.join(",")));
    command.arg(format!("--inh-caps={}", dropped.join(",")));
    command.arg(binaries::path("outrigger")?).arg("check");
    pod.run_within(command, Duration::from_secs(30))
}

fn line<'a>(output: &'a Output, finding: &str) -> &'a str {
    let named = |line: &&str| line.split_whitespace().nth(1) == Some(finding);
    output.stdout.lines().find(named).unwrap_or_default()
}

#[test]
fn what_only_connects_truth_needs_degrades_and_is_no_failure() -> Result<()> {
    let output = check("check-degraded", &["net_raw"])?;
    assert_eq!(output.code(), Some(0), "{output:?}");
    assert!(line(&output, "raw").starts_with("degraded"), "{output:?}");
    assert!(output.stdout.contains("remedy: grant CAP_NET_RAW"), "{output:?}");
    for finding in [
        "kernel",
        "capabilities",
        "cgroup2",
        "bpffs",
        "programs",
        "errno",
        "mptcp",
    ] {
        assert!(line(&output, finding).starts_with("ok"), "{finding}: {output:?}");
    }
    Ok(())
}

#[test]
fn every_program_that_the_kernel_refuses_is_named_and_the_verifier_heard_last() -> Result<()> {
    // CAP_SYS_ADMIN stands for CAP_PERFMON, too; without both the verifier lets pointers be used in fewer ways.
    let output = check("check-refused", &["perfmon", "sys_admin"])?;
    assert_eq!(output.code(), Some(1), "{output:?}");
    assert!(
        line(&output, "capabilities").contains("without CAP_PERFMON"),
        "{output:?}"
    );
    let programs = line(&output, "programs");
    assert!(programs.starts_with("missing"), "{output:?}");
    let (findings, report) = output.stdout.split_once("\n\n").unwrap_or_default();
    assert_eq!(
        line(&output, "raw").split_whitespace().next(),
        Some("ok"),
        "{findings}"
    );
    for program in ["or_connect4", "or_hold"] {
        assert!(programs.contains(program), "{programs}");
        assert!(
            report.contains(&format!("program {program} was not accepted")),
            "{report}"
        );
    }
    let last = report.lines().last().unwrap_or_default();
    assert!(last.starts_with("processed "), "the verifier's last line: {last}");
    let said = output.stderr.trim_end();
    assert!(
        said.ends_with("not fit for interception: capabilities, programs"),
        "{said}"
    );
    Ok(())
}
