//! How a test wants its sidecar.

use std::path::PathBuf;
use std::time::Duration;

/// What a test may want otherwise than usual.
#[derive(Clone, Debug)]
pub struct Options {
    pub service_account: String,
    /// Refuse plaintext from outside the mesh.
    pub strict: bool,
    /// Refuse destinations that the registry does not know.
    pub registry_only: bool,
    /// Certificate lifetime, e.g. `10s`.
    pub ttl: String,
    /// 0: one per usable core.
    pub workers: usize,
    /// A token other than one for the service account; a missing file leaves the proxy without identity.
    pub token: Option<PathBuf>,
    /// Run it without this capability, by its name without `cap_`.
    pub without_capability: Option<String>,
    /// Run it with this limit of open files, which it cannot raise.
    pub open_files: Option<u64>,
    /// Attach the hooks. Without them the proxy only answers on its own ports.
    pub intercept: bool,
    /// Name this cgroup below the pod's as the one to attach to, and not the pod's own, where everybody runs.
    pub cgroup_below: Option<String>,
    /// The interception policy at start, as YAML.
    pub policy: Option<String>,
    /// The most memory for buffers, e.g. `8MiB`.
    pub buffer_memory: Option<String>,
    /// `destroy`: end the connections that there were before.
    pub existing: Option<String>,
    /// How long newcomers, and how long open connections are served once it is told to end. Without newcomers unless a
    /// test asks for them: nothing is gained by waiting for nobody.
    pub drain: (String, String),
    /// What ends it, `signal` or `application`.
    pub lifetime: String,
    /// Where a service manager listens, and the timeout of its watchdog.
    pub manager: Option<(PathBuf, Duration)>,
    /// Run it as another user with these capabilities only, by their names without `cap_`.
    pub only_capabilities: Option<Vec<String>>,
    /// Leave to the node's agent what takes privileges, and run without any.
    pub by_agent: bool,
    /// Ask the agent for certificates, and know nothing of the authority.
    pub identity_by_agent: bool,
}

impl Options {
    pub fn new(service_account: &str) -> Self {
        Self {
            service_account: service_account.into(),
            strict: false,
            registry_only: false,
            ttl: "24h".into(),
            workers: 0,
            token: None,
            without_capability: None,
            open_files: None,
            intercept: true,
            cgroup_below: None,
            policy: None,
            buffer_memory: None,
            existing: None,
            drain: ("0s".into(), "5s".into()),
            lifetime: "signal".into(),
            manager: None,
            only_capabilities: None,
            by_agent: crate::mesh::agent::is_default(),
            identity_by_agent: false,
        }
    }

    pub fn drain(mut self, minimum: &str, deadline: &str) -> Self {
        self.drain = (minimum.into(), deadline.into());
        self
    }

    /// End with the last program of the pod.
    pub fn with_application(mut self) -> Self {
        self.lifetime = "application".into();
        self
    }

    pub fn manager(mut self, socket: PathBuf, watchdog: Duration) -> Self {
        self.manager = Some((socket, watchdog));
        self
    }

    pub fn only_capabilities(mut self, names: Vec<String>) -> Self {
        self.only_capabilities = Some(names);
        self.privileged()
    }

    pub fn by_agent(mut self) -> Self {
        self.by_agent = true;
        self
    }

    pub fn identity_by_agent(mut self) -> Self {
        self.identity_by_agent = true;
        self.by_agent()
    }

    /// Let it install interception itself, also where the tests run with an agent: for what only such a sidecar does.
    pub fn privileged(mut self) -> Self {
        self.by_agent = false;
        self
    }

    pub fn buffer_memory(mut self, size: &str) -> Self {
        self.buffer_memory = Some(size.into());
        self
    }

    pub fn existing(mut self, what: &str) -> Self {
        self.existing = Some(what.into());
        self
    }

    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    pub fn registry_only(mut self) -> Self {
        self.registry_only = true;
        self
    }

    /// Attach nothing.
    pub fn intercept_nothing(mut self) -> Self {
        self.intercept = false;
        self
    }

    pub fn cgroup_below(mut self, name: &str) -> Self {
        self.cgroup_below = Some(name.into());
        self.privileged()
    }

    pub fn policy(mut self, yaml: &str) -> Self {
        self.policy = Some(yaml.into());
        self
    }

    pub fn ttl(mut self, ttl: &str) -> Self {
        self.ttl = ttl.into();
        self
    }

    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    pub fn without_capability(mut self, name: &str) -> Self {
        self.without_capability = Some(name.into());
        self.privileged()
    }

    pub fn open_files(mut self, limit: u64) -> Self {
        self.open_files = Some(limit);
        self
    }

    pub fn token(mut self, token: PathBuf) -> Self {
        self.token = Some(token);
        self
    }
}
