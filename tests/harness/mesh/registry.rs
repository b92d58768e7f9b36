//! The registry file: services, workloads and their identities, written as `outrigger proxy` reads it. Checks
//! nothing, so that a test can also write nonsense.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::mesh::{NAMESPACE, TRUST_DOMAIN};
use crate::pod::Pod;

#[derive(Clone, Debug, Default)]
pub struct Registry {
    pub workloads: Vec<Workload>,
    pub services: Vec<Service>,
    /// Each an entry of the file's `policies`, as YAML.
    pub policies: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Workload {
    pub name: String,
    pub service_account: String,
    pub addresses: Vec<IpAddr>,
    /// In the mesh: reached through the tunnel port of its sidecar.
    pub in_mesh: bool,
    pub healthy: bool,
    /// Host names of the services it stands behind.
    pub serves: Vec<String>,
    /// Names of the policies that it selects, in its own namespace.
    pub selects: Vec<String>,
    /// It shares its addresses with its node.
    pub host_network: bool,
    /// Where it runs; nowhere in particular when empty.
    pub zone: String,
}

#[derive(Clone, Debug)]
pub struct Service {
    pub hostname: String,
    pub vips: Vec<IpAddr>,
    /// Service port to the port of the application.
    pub ports: BTreeMap<u16, u16>,
    /// Further keys, as YAML.
    pub more: Vec<String>,
}

impl Registry {
    /// A pod in the mesh, under its own name.
    pub fn add_member(&mut self, pod: &Pod, service_account: &str, serves: &[&str]) -> &mut Workload {
        self.add(pod, service_account, serves, true)
    }

    /// A pod that the registry knows, but that has no sidecar.
    pub fn add_outsider(&mut self, pod: &Pod, serves: &[&str]) -> &mut Workload {
        self.add(pod, "outsider", serves, false)
    }

    fn add(&mut self, pod: &Pod, service_account: &str, serves: &[&str], in_mesh: bool) -> &mut Workload {
        self.workloads.push(Workload {
            name: pod.name().into(),
            service_account: service_account.into(),
            addresses: pod.addresses().into(),
            in_mesh,
            healthy: true,
            serves: serves.iter().map(|name| (*name).into()).collect(),
            selects: Vec::new(),
            host_network: false,
            zone: String::new(),
        });
        self.workloads.last_mut().expect("pushed above")
    }

    pub fn add_service(&mut self, hostname: &str, vips: &[IpAddr], ports: &[(u16, u16)]) {
        self.services.push(Service {
            hostname: hostname.into(),
            vips: vips.into(),
            ports: ports.iter().copied().collect(),
            more: Vec::new(),
        });
    }

    pub fn remove(&mut self, workload: &str) {
        self.workloads.retain(|w| w.name != workload);
    }

    pub fn workload(&mut self, name: &str) -> Option<&mut Workload> {
        self.workloads.iter_mut().find(|w| w.name == name)
    }
}

/// YAML, an object a line.
impl Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "workloads:{}",
            if self.workloads.is_empty() { " []" } else { "" }
        )?;
        for w in &self.workloads {
            let Workload {
                name,
                service_account,
                ..
            } = w;
            let ports: BTreeMap<&str, &BTreeMap<u16, u16>> = self
                .services
                .iter()
                .map(|s| (s.hostname.as_str(), &s.ports))
                .collect();
            let serves = w.serves.iter().map(|hostname| {
                let ports = ports.get(hostname.as_str()).copied().cloned().unwrap_or_default();
                format!("\"{NAMESPACE}/{hostname}\": {}", map(&ports))
            });
            writeln!(
                f,
                "- {{uid: c1//Pod/{NAMESPACE}/{name}, name: {name}, namespace: {NAMESPACE}, \
                 serviceAccount: {service_account}, trustDomain: {TRUST_DOMAIN}, protocol: {}, status: {},\n   \
                 workloadIps: [{}], networkMode: {}, locality: {{zone: \"{}\"}}, \
                 authorizationPolicies: [{}],\n   services: {{{}}}}}",
                if w.in_mesh { "HBONE" } else { "TCP" },
                if w.healthy { "Healthy" } else { "Unhealthy" },
                list(&w.addresses, ""),
                if w.host_network { "HostNetwork" } else { "Standard" },
                w.zone,
                w.selects
                    .iter()
                    .map(|name| format!("{NAMESPACE}/{name}"))
                    .collect::<Vec<_>>()
                    .join(", "),
                serves.collect::<Vec<_>>().join(", "),
            )?;
        }
        writeln!(
            f,
            "services:{}",
            if self.services.is_empty() { " []" } else { "" }
        )?;
        for s in &self.services {
            let name = s.hostname.split('.').next().unwrap_or_default();
            writeln!(
                f,
                "- {{name: {name}, namespace: {NAMESPACE}, hostname: {}, vips: [{}], ports: {}{}}}",
                s.hostname,
                list(&s.vips, "/"),
                map(&s.ports),
                s.more.iter().map(|key| format!(", {key}")).collect::<String>(),
            )?;
        }
        if !self.policies.is_empty() {
            writeln!(f, "policies:")?;
        }
        for policy in &self.policies {
            writeln!(f, "- {policy}")?;
        }
        Ok(())
    }
}

fn list(addresses: &[IpAddr], prefix: &str) -> String {
    let quoted: Vec<String> = addresses.iter().map(|ip| format!("\"{prefix}{ip}\"")).collect();
    quoted.join(", ")
}

fn map(ports: &BTreeMap<u16, u16>) -> String {
    let mut text = String::from("{");
    for (n, (port, target)) in ports.iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        let _ = write!(text, "{comma}{port}: {target}");
    }
    text + "}"
}

/// A registry on disk, replaced as a whole, so that no reader sees half of it.
#[derive(Clone, Debug)]
pub struct RegistryFile {
    path: PathBuf,
    registry: Registry,
}

impl RegistryFile {
    pub fn create(path: PathBuf, registry: Registry) -> Result<Self> {
        let file = Self { path, registry };
        file.write_raw(&file.registry.to_string())?;
        Ok(file)
    }

    /// What was written last, unless it was [`RegistryFile::write_raw`].
    pub fn get(&mut self) -> &mut Registry {
        &mut self.registry
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn update(&mut self, change: impl FnOnce(&mut Registry)) -> Result<()> {
        change(&mut self.registry);
        self.write_raw(&self.registry.to_string())
    }

    /// Any text, right or wrong.
    pub fn write_raw(&self, text: &str) -> Result<()> {
        let new = self.path.with_extension("new");
        fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, &self.path).with_context(|| format!("replace {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_lists_the_ports_of_the_services_it_serves() {
        let mut registry = Registry::default();
        registry.add_service("web.demo.svc", &["10.96.0.10".parse().unwrap()], &[(80, 8080)]);
        registry.workloads.push(Workload {
            name: "a".into(),
            service_account: "web".into(),
            addresses: vec!["10.99.0.2".parse().unwrap(), "fd99::2".parse().unwrap()],
            in_mesh: true,
            healthy: true,
            serves: vec!["web.demo.svc".into()],
            selects: Vec::new(),
            host_network: false,
            zone: "a".into(),
        });
        let text = registry.to_string();
        assert!(
            text.contains(r#"services: {"demo/web.demo.svc": {80: 8080}}}"#),
            "{text}"
        );
        assert!(
            text.contains(
                r#"workloadIps: ["10.99.0.2", "fd99::2"], networkMode: Standard, locality: {zone: "a"}"#
            ),
            "{text}"
        );
        assert!(
            text.contains(r#"hostname: web.demo.svc, vips: ["/10.96.0.10"], ports: {80: 8080}}"#),
            "{text}"
        );
    }
}
