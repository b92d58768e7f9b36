//! Go's clients, with its Happy Eyeballs, and its server, which accepts MPTCP of its own accord since Go 1.24.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use super::names::{PORT, ask, source};
use super::world::World;
use super::{Accepted, same_but};

const ONE_PATH: &[Accepted] = &[Accepted {
    fact: "go-client, MPTCP, whether it is",
    reason: "the connection that the program holds ends at its own proxy, and falls back to TCP as it does before \
             every server without MPTCP",
}];

#[test]
fn go_sees_what_it_sees_bare() {
    let scenario = |world: &World| {
        let program = program()?;
        let mut server = world.server.command(&program);
        server.args(["server", &PORT.to_string()]);
        let _server = world.server.spawn(server)?.until_listening(PORT)?;
        ask(world, &program.to_string_lossy(), |client| {
            client.arg("client");
        })
    };
    same_but("f-go", scenario, ONE_PATH);
}

/// Builds it, once; needs nothing beyond Go itself.
fn program() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

fn build() -> Result<PathBuf> {
    let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("go-client");
    // Go's own resolver, which reads /etc/hosts as the C library does.
    let output = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(source("go"))
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-buildvcs=false")
        .output()
        .context("run `go`")?;
    ensure!(
        output.status.success(),
        "go build: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(program)
}
