//! What the plugin shows of the client's connections: flows, edges, a picture. Proves that it shows what there was.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::mesh::binaries;

use super::report::ROOM;
use super::stage::Stage;
use crate::workspace::{PLUGIN, announce};

pub(super) fn flows(stage: &Stage) -> Result<Vec<String>> {
    const SHOWN: usize = 6;
    let table = plugin(stage, &["flows", "--columns", &ROOM.to_string()])?;
    let lines: Vec<&str> = table.lines().collect();
    let (head, rows) = lines.split_first().context("an empty table")?;
    ensure!(!rows.is_empty(), "no flows in the table");
    let last = &rows[rows.len().saturating_sub(SHOWN)..];
    let title = format!(
        "kubectl outrigger flows, the last {} of {}:",
        last.len(),
        rows.len()
    );
    Ok(lines_of([&[title.as_str(), head], last].concat()))
}

pub(super) fn edges(stage: &Stage) -> Result<Vec<String>> {
    let table = plugin(stage, &["edges", "--columns", &ROOM.to_string()])?;
    let rows: Vec<&str> = table.lines().skip(1).collect();
    let outside = stage.mesh.outside.ipv4().to_string();
    ensure!(
        rows.iter()
            .any(|row| row.contains("plaintext") && row.contains(&outside)),
        "no edge in plaintext to the server outside:\n{table}"
    );
    ensure!(
        rows.iter()
            .any(|row| row.contains("TLS") && row.contains("server")),
        "no secured edge to the servers:\n{table}"
    );
    Ok(lines_of(
        [vec!["kubectl outrigger edges:"], table.lines().collect()].concat(),
    ))
}

pub(super) fn picture(stage: &Stage, file: &Path) -> Result<()> {
    let svg = plugin(stage, &["edges", "--output", "svg"])?;
    fs::write(file, svg).with_context(|| format!("write {}", file.display()))?;
    announce(&format!("the picture is in {}", file.display()));
    Ok(())
}

fn plugin(stage: &Stage, args: &[&str]) -> Result<String> {
    let output = Command::new(binaries::path(PLUGIN)?)
        .args(args)
        .arg("--unix")
        .arg(stage.mesh.client.sidecar.admin_socket())
        .output()?;
    ensure!(
        output.status.success(),
        "kubectl outrigger {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

fn lines_of(lines: Vec<&str>) -> Vec<String> {
    lines.into_iter().map(Into::into).collect()
}
