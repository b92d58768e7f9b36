//! Debian's Prometheus in the network of a node: it scrapes pods by their addresses, as one in a pod does. Judges no answer.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Cluster, DIRECTORY, netns};
use crate::http;
use crate::netns::Netns;
use crate::process::Process;

const PROGRAM: &str = "/usr/bin/prometheus";
/// None of what Kubernetes has on a node.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 19_090);

/// A server that runs. It ends, and what it has stored goes, when this is dropped.
#[derive(Debug)]
pub struct Prometheus {
    netns: Netns,
    process: Process,
    directory: PathBuf,
}

impl Prometheus {
    /// Starts one by this configuration, beside which are these files.
    pub fn start(cluster: &Cluster, configuration: &str, files: &[(&str, &str)]) -> Result<Self> {
        let directory = Path::new(DIRECTORY).join(format!("prometheus-{}", std::process::id()));
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        for (name, text) in files.iter().chain(&[("prometheus.yaml", configuration)]) {
            fs::write(directory.join(name), text).with_context(|| format!("write {name}"))?;
        }
        let node = cluster.first();
        let mut command = node.network_command(Path::new(PROGRAM))?;
        command
            .arg(format!(
                "--config.file={}",
                directory.join("prometheus.yaml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.join("data").display()
            ))
            .arg(format!("--web.listen-address={ADDRESS}"));
        let mut started = Self {
            netns: Netns::open(&netns(&node.name))?,
            process: Process::spawn(command, &directory)?,
            directory,
        };
        let netns = started.netns.clone();
        started.process.until("it serves", |_| {
            http::get(&netns, ADDRESS, "/-/ready").is_ok_and(|(status, _)| status == 200)
        })?;
        Ok(started)
    }

    /// What its API answers, by path and query.
    pub fn get(&self, path: &str) -> Result<Value> {
        let (status, body) = http::get(&self.netns, ADDRESS, &format!("/api/v1/{path}"))?;
        ensure!(status == 200, "{path} is answered {status}: {body}");
        let answer: Value = serde_json::from_str(&body).with_context(|| format!("{path} is no JSON"))?;
        Ok(answer["data"].clone())
    }

    /// The series that an expression gives now.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let found = self
            .get(&format!("query?query={}", escaped(expression)))
            .with_context(|| expression.to_owned())?;
        Ok(found["result"].as_array().cloned().unwrap_or_default())
    }

    pub fn log(&self) -> String {
        self.process.log()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.process.kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// For a URL's query (RFC 3986, 2.1).
fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
