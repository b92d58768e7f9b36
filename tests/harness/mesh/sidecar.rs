//! `outrigger proxy` beside a pod's programs: in the pod's network namespace and cgroup, attached to both.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::http;
use crate::mesh::metrics::sum;
use crate::mesh::{Control, NAMESPACE, RegistryFile, TRUST_DOMAIN, agent, binaries, ports};
use crate::pod::Pod;
use crate::process::{Output, Process};
use crate::wait;

mod confined;
mod options;
mod resources;

pub use options::Options;

#[derive(Debug)]
pub struct Sidecar {
    pod: Pod,
    dir: PathBuf,
    intercepts: bool,
    without_capability: Option<String>,
    open_files: Option<u64>,
    manager: Option<(PathBuf, Duration)>,
    only_capabilities: Option<Vec<String>>,
    /// The agent of the node installs for it, and it has no privilege.
    by_agent: bool,
    /// The cgroup where it runs then.
    container: String,
    /// Another place for its log than a file of ours, and the level.
    log: Option<(PathBuf, String)>,
    process: Option<Process>,
}

impl Sidecar {
    /// Starts it and waits until it is ready.
    pub fn start(pod: &Pod, control: &Control, registry: &RegistryFile, options: &Options) -> Result<Self> {
        let mut sidecar = Self::configure(pod, control, registry, options)?;
        sidecar.restart()?;
        Ok(sidecar)
    }

    /// Starts it and waits only until its hooks are in place: for a sidecar that cannot become ready.
    pub fn start_unready(
        pod: &Pod,
        control: &Control,
        registry: &RegistryFile,
        options: &Options,
    ) -> Result<Self> {
        let mut sidecar = Self::configure(pod, control, registry, options)?;
        sidecar.launch()?;
        Ok(sidecar)
    }

    /// Only writes its files; [`Sidecar::restart`] starts it.
    pub fn configure(
        pod: &Pod,
        control: &Control,
        registry: &RegistryFile,
        options: &Options,
    ) -> Result<Self> {
        let dir = pod.scratch().join("sidecar");
        fs::create_dir_all(&dir)?;
        let intercepts = options.intercept;
        let sidecar = Self {
            pod: pod.clone(),
            dir,
            intercepts,
            without_capability: options.without_capability.clone(),
            open_files: options.open_files,
            manager: options.manager.clone(),
            only_capabilities: options.only_capabilities.clone(),
            by_agent: options.by_agent && intercepts,
            container: agent::SIDECAR.into(),
            log: None,
            process: None,
        };
        let token = match &options.token {
            Some(token) => token.clone(),
            None => control.token(&crate::mesh::identity(&options.service_account))?,
        };
        let mut roots = control.root();
        if let Some(user) = sidecar.user() {
            // The authority's directory is its own.
            roots = sidecar.dir.join("root-cert.pem");
            control.publish_root(&roots, user)?;
            sidecar.give(&[&sidecar.dir, &token])?;
        }
        let authority = match options.identity_by_agent {
            true => {
                pod.fabric().agent().reaches(pod.fabric(), control)?;
                "authority: agent".to_owned()
            }
            false => format!(
                "authority: \"{}\", serverName: control.outrigger, roots: {}",
                control.authority(),
                roots.display()
            ),
        };
        let mut config = format!(
            "workload: {{name: {}, namespace: {NAMESPACE}, serviceAccount: {}, trustDomain: {TRUST_DOMAIN}}}\n\
             mode: {}\n\
             outbound: {}\n\
             registry: {}\n\
             identity: {{{}, token: {}, ttl: {}}}\n\
             listen: {{adminSocket: {}}}\n\
             workers: {}\n\
             drain: {{minimum: {}, deadline: {}}}\n\
             lifetime: {}\n\
             log: {{level: info}}\n",
            pod.name(),
            options.service_account,
            if options.strict { "strict" } else { "permissive" },
            if options.registry_only {
                "registry-only"
            } else {
                "passthrough"
            },
            registry.path().display(),
            authority,
            token.display(),
            options.ttl,
            sidecar.admin_socket().display(),
            options.workers,
            options.drain.0,
            options.drain.1,
            options.lifetime,
        );
        if let Some(size) = &options.buffer_memory {
            config += &format!("bufferMemory: {size}\n");
        }
        if intercepts {
            let mut policy = String::new();
            if let Some(yaml) = &options.policy {
                sidecar.write_policy(yaml)?;
                policy = format!(", policy: {}", sidecar.policy().display());
            }
            if let Some(what) = &options.existing {
                policy += &format!(", existing: {what}");
            }
            let cgroup = match &options.cgroup_below {
                Some(name) => pod.cgroup().join(name),
                None => pod.cgroup().to_owned(),
            };
            crate::cgroup::create(&cgroup)?;
            let whose = match sidecar.by_agent {
                true => format!("agent: \"{}\"", agent::DOOR),
                false => format!("cgroup: {}, pins: {}", cgroup.display(), sidecar.pins().display()),
            };
            config += &format!("interception: {{{whose}{policy}}}\n");
        } else {
            config += "interception: none\n";
        }
        fs::write(sidecar.config(), config)?;
        Ok(sidecar)
    }

    /// Starts it, again if it has been stopped or killed, and waits until it is ready.
    pub fn restart(&mut self) -> Result<()> {
        self.launch()?;
        let (pod, status) = (self.pod.clone(), self.status_address());
        let process = self.process.as_mut().context("launched above")?;
        process.until("is ready", |_| is_ready(&pod, status))
    }

    fn launch(&mut self) -> Result<()> {
        self.process = None;
        let mut process = self.spawn()?;
        let (pod, status, intercepts) = (self.pod.clone(), self.status_address(), self.intercepts);
        let pins = self.pins();
        process.until("has attached its hooks and answers on its status port", |_| {
            let attached = || fs::read_dir(&pins).is_ok_and(|mut entries| entries.next().is_some());
            let alive = || http::get(pod.netns(), status, "/livez").is_ok_and(|(code, _)| code == 200);
            (!intercepts || attached()) && alive()
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Starts another proxy for the same pod beside the one that runs, and waits for nothing.
    pub fn spawn(&self) -> Result<Process> {
        self.spawn_with(true)
    }

    /// As [`Sidecar::spawn`], and leaves the agent as it is, which may not run.
    pub fn spawn_alone(&self) -> Result<Process> {
        self.spawn_with(false)
    }

    fn spawn_with(&self, with_agent: bool) -> Result<Process> {
        let outrigger = binaries::path("outrigger")?;
        // Each of them replaces itself by what comes after it.
        let mut words: Vec<OsString> = Vec::new();
        if let Some((to, _)) = &self.log {
            // Opened for reading as well: to open a fifo for writing alone waits for a reader.
            words.extend(["sh", "-c", "exec 2<>\"$0\"; exec \"$@\""].map(OsString::from));
            words.push(to.into());
        }
        if let Some(limit) = self.open_files {
            words.extend(["prlimit".into(), format!("--nofile={limit}:{limit}").into()]);
        }
        if let Some(name) = &self.without_capability {
            let without = [format!("--bounding-set=-{name}"), format!("--inh-caps=-{name}")];
            words.push("setpriv".into());
            words.extend(without.map(OsString::from));
        }
        if let Some(names) = &self.only_capabilities {
            words.extend(confined::words(names));
            fs::create_dir_all(self.pins())?;
            self.give(&[&self.pins()])?;
        }
        words.push(outrigger.into());
        let mut command = match self.by_agent {
            true => self.confined(&words)?,
            false => {
                let mut command = self.pod.command(&words[0]);
                command.args(&words[1..]);
                command
            }
        };
        command.arg("proxy").arg("--config").arg(self.config());
        if let Some((_, level)) = &self.log {
            command.env("OUTRIGGER_LOG", level);
        }
        if let Some((socket, watchdog)) = &self.manager {
            command.env("NOTIFY_SOCKET", socket);
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        if self.by_agent && with_agent {
            self.pod.fabric().agent().start(self.pod.fabric())?;
        }
        let process = self.pod.spawn(command)?;
        // Where there is an API server the agent finds it by itself.
        if self.by_agent && with_agent && self.pod.fabric().api_server().is_none() {
            agent::install(&self.pod)?;
        }
        Ok(process)
    }

    /// Lets a second proxy take the pod over, and gives back the first, which drains.
    pub fn take_over(&mut self) -> Result<Process> {
        let mut second = self.spawn()?;
        second
            .until("has taken the pod over", |process| {
                process.log().contains("has taken the pod over")
            })
            .with_context(|| format!("the first proxy says\n{}", self.log()))?;
        self.replace(second)
    }

    /// This one is the pod's proxy from now on. Gives back the one before.
    pub fn replace(&mut self, second: Process) -> Result<Process> {
        self.process.replace(second).context("the sidecar does not run")
    }

    /// From its next start on it runs in a container with that id.
    pub fn run_in_container(&mut self, id: &str) {
        self.container = id.to_owned();
    }

    /// Ends it at once, as the kernel would; what it has pinned stays.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// From its next start on it logs there, at this level.
    pub fn log_to(&mut self, path: PathBuf, level: &str) {
        self.log = Some((path, level.to_owned()));
    }

    /// Asks it to end.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process
            .as_ref()
            .context("the sidecar does not run")?
            .signal(signal)
    }

    /// Waits for its end, whoever has asked for it, and gives how it ended and all that it has logged.
    pub fn wait(&mut self, limit: Duration) -> Result<(ExitStatus, String)> {
        let mut process = self.process.take().context("the sidecar does not run")?;
        let status = process.wait(limit)?;
        Ok((status, process.log()))
    }

    /// Asks it to end, and waits for that.
    pub fn stop(&mut self) -> Result<()> {
        self.stop_and_read().map(drop)
    }

    /// As [`Sidecar::stop`], with all that it has logged.
    pub fn stop_and_read(&mut self) -> Result<String> {
        self.signal(Signal::SIGTERM)?;
        let (status, log) = self.wait(wait::SOON)?;
        ensure!(status.success(), "the sidecar ended with {status}\n{log}");
        Ok(log)
    }

    /// Takes the pinned hooks of a stopped sidecar away.
    pub fn detach(&self) -> Result<()> {
        self.run_detach(&[])
    }

    /// While the proxy runs, which takes the hooks away from it.
    pub fn detach_by_force(&self) -> Result<()> {
        self.run_detach(&["--force"])
    }

    fn run_detach(&self, options: &[&str]) -> Result<()> {
        detach(&self.pins(), options)
    }

    /// The certificate it shows on its tunnel port now (PEM).
    pub fn certificate(&self) -> Result<String> {
        let at = SocketAddr::from((self.pod.ipv4(), ports::HBONE)).to_string();
        // It ends with an error, because it has no certificate to show; by then it has printed the server's.
        let output = self
            .pod
            .run("openssl", ["s_client", "-connect", &at, "-alpn", "h2"])?;
        let begin = output
            .stdout
            .find("-----BEGIN")
            .context("no certificate was shown")?;
        let end = output
            .stdout
            .find("-----END")
            .context("half a certificate was shown")?;
        Ok(output.stdout[begin..end].into())
    }

    /// What `/readyz` answers.
    pub fn readiness(&self) -> Result<(u16, String)> {
        http::get(self.pod.netns(), self.status_address(), "/readyz")
    }

    pub fn is_ready(&self) -> bool {
        is_ready(&self.pod, self.status_address())
    }

    /// `/flows` of the admin socket.
    pub fn flows(&self) -> Result<Value> {
        let (status, body) = http::get_unix(&self.admin_socket(), "/flows")?;
        ensure!(status == 200, "/flows answered {status}: {body}");
        serde_json::from_str(&body).with_context(|| format!("/flows is no JSON: {body}"))
    }

    /// All flows, open and closed, oldest first.
    pub fn all_flows(&self) -> Result<Vec<Value>> {
        let flows = self.flows()?;
        let list = |name: &str| flows[name].as_array().cloned().unwrap_or_default();
        Ok([list("closed"), list("open")].concat())
    }

    /// Those that have ended otherwise than well.
    pub fn failed_flows(&self) -> Result<Vec<Value>> {
        let has_failed = |flow: &Value| flow["state"] == "closed" && flow["closeCause"] != "eof";
        Ok(self.all_flows()?.into_iter().filter(has_failed).collect())
    }

    /// Waits until it has logged that.
    pub fn until_log(&self, words: &str) -> Result<()> {
        wait::until(&format!("the proxy says {words:?}"), wait::SOON, || {
            self.log().contains(words)
        })
    }

    /// Waits until some flow satisfies the condition.
    pub fn until_flow(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut seen = Vec::new();
        wait::until_some(what, wait::SOON, || {
            seen = self.all_flows()?;
            Ok(seen.iter().find(|flow| wanted(flow)).cloned())
        })
        .with_context(|| {
            let last: Vec<String> = seen.iter().rev().take(3).map(ToString::to_string).collect();
            format!(
                "{}, of {} flows the last are\n{}",
                self.pod.name(),
                seen.len(),
                last.join("\n")
            )
        })
    }

    /// `/metrics`, in Prometheus' text format, by the admin socket: the status port's are up to a second old.
    pub fn metrics(&self) -> Result<String> {
        let (status, body) = http::get_unix(&self.admin_socket(), "/metrics")?;
        ensure!(status == 200, "/metrics answered {status}: {body}");
        Ok(body)
    }

    /// The sum of all series of a metric whose labels hold all the given `name="value"` texts.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let text = self.metrics()?;
        Ok(sum(&text, name, labels))
    }

    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }

    pub fn config(&self) -> PathBuf {
        self.dir.join("proxy.yaml")
    }

    /// The interception policy, of a sidecar that was given one.
    pub fn policy(&self) -> PathBuf {
        self.dir.join("policy.yaml")
    }

    /// Any text, right or wrong, in the place of the policy as a whole.
    pub fn write_policy(&self, yaml: &str) -> Result<()> {
        let new = self.dir.join("policy.new");
        fs::write(&new, yaml)?;
        fs::rename(&new, self.policy()).with_context(|| format!("replace {}", self.policy().display()))
    }

    /// Prepares `outrigger drain` at its admin socket, in the pod as whoever runs in the sidecar's container.
    pub fn drain(&self, args: &[&str]) -> Result<Command> {
        let outrigger = binaries::path("outrigger")?;
        let mut command = match self.by_agent {
            true => self.confined(&[outrigger.into()])?,
            false => self.pod.command(outrigger),
        };
        command
            .args(["drain", "--unix"])
            .arg(self.admin_socket())
            .args(args);
        Ok(command)
    }

    /// `outrigger why` with these arguments, in the pod.
    pub fn why(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.pod.command(binaries::path("outrigger")?);
        command.arg("why").args(args);
        self.pod.run_within(command, wait::SOON)
    }

    pub fn pins(&self) -> PathBuf {
        if self.by_agent {
            return agent::pins_of(&self.pod);
        }
        self.pod.fabric().bpffs().join(self.pod.name())
    }

    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn status_address(&self) -> SocketAddr {
        (self.pod.ipv4(), ports::STATUS).into()
    }
}

/// Removes what is pinned below a directory.
pub fn detach(pins: &Path, options: &[&str]) -> Result<()> {
    let mut command = Command::new(binaries::path("outrigger")?);
    command.args(["detach", "--pins"]).arg(pins).args(options);
    Output::of(command, wait::SOON)?.ok().map(drop)
}

fn is_ready(pod: &Pod, status: SocketAddr) -> bool {
    http::get(pod.netns(), status, "/readyz").is_ok_and(|(code, _)| code == 200)
}
