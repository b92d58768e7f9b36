//! Clients: run to their end, give what they printed.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use crate::pod::Pod;
use crate::process::Output;

/// curl for the URL, on a new connection, with nothing of the user's environment.
pub fn curl(pod: &Pod, url: &str) -> Result<Output> {
    pod.run(
        "curl",
        [
            "-q",
            "--noproxy",
            "*",
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "20",
            "-g",
            url,
        ],
    )
}

pub fn redis_cli(pod: &Pod, server: SocketAddr, command: &[&str]) -> Result<Output> {
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    pod.run("redis-cli", ["-h", &host, "-p", &port].iter().chain(command))
}

pub fn psql(pod: &Pod, server: SocketAddr, query: &str) -> Result<Output> {
    let url = format!("postgresql://postgres@{server}/postgres?connect_timeout=20&sslmode=disable");
    pod.run(
        "psql",
        [
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            &url,
            "--command",
            query,
        ],
    )
}

/// iperf3 for that many bytes over two streams; its report is JSON.
pub fn iperf3(pod: &Pod, server: SocketAddr, bytes: u64) -> Result<Output> {
    let mut command = pod.command("iperf3");
    command.args([
        "--client",
        &server.ip().to_string(),
        "--port",
        &server.port().to_string(),
    ]);
    command.args(["--parallel", "2", "--bytes", &bytes.to_string(), "--json"]);
    pod.run_within(command, Duration::from_secs(60))
}
