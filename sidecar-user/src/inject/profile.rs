//! What a sidecar is made of where it is injected: the values that an installation chooses.

use sha2::{Digest, Sha256};

use crate::document::{Field, Problems, Sink, load};
use crate::kubernetes::SYSTEM_NAMESPACE;

use super::quantity;

/// Written in one file, which all doors read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub image: String,
    /// `None`: as the API server chooses by the image's tag.
    pub pull_policy: Option<String>,
    /// What becomes of plaintext from outside the mesh.
    pub mode: String,
    /// Who attaches the programs to a pod that does not say it itself: the agent of its node, or its own sidecar.
    pub attach: String,
    /// Where nodes have what a sidecar takes that attaches by itself.
    pub host_paths: HostPaths,
    pub trust_domain: String,
    /// Where Outrigger itself is installed: pods there get no sidecar.
    pub system_namespace: String,
    /// The longest time until a sidecar asks for a certificate again, as its setting `identity.refresh`.
    pub refresh: String,
    pub resources: Resources,
    /// By what a sidecar gets its certificates: by the token of its pod, or from files that the kubelet keeps for it.
    pub identity: String,
}

/// Directories of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPaths {
    pub cgroup: String,
    pub bpf: String,
}

impl Default for HostPaths {
    fn default() -> Self {
        Self {
            cgroup: "/sys/fs/cgroup".to_owned(),
            bpf: "/sys/fs/bpf".to_owned(),
        }
    }
}

/// What each sidecar asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    pub cpu: String,
    pub memory: String,
    pub memory_limit: String,
    /// CPU of a sidecar whose pod is Guaranteed, where requests are limits. Its memory is the limit.
    pub guaranteed_cpu: String,
}

impl Default for Resources {
    fn default() -> Self {
        let own = str::to_owned;
        Self {
            // An idle sidecar takes less than 1 % of a core and 15 MiB.
            cpu: own("20m"),
            memory: own("32Mi"),
            // A quarter of it is for buffers, which is as much as they take at most.
            memory_limit: own("256Mi"),
            guaranteed_cpu: own("200m"),
        }
    }
}

pub(super) const TOKEN: &str = "token";
pub(super) const POD_CERTIFICATES: &str = "pod-certificates";
const IDENTITIES: [(&str, &str); 2] = [(TOKEN, TOKEN), (POD_CERTIFICATES, POD_CERTIFICATES)];

/// Enough to tell the profiles of one cluster apart.
const DIGEST_DIGITS: usize = 16;

const MODES: [(&str, &str); 2] = [("permissive", "permissive"), ("strict", "strict")];
pub(super) const ATTACH_AGENT: &str = "agent";
pub(super) const ATTACH_SELF: &str = "self";
const ATTACH: [(&str, &str); 2] = [(ATTACH_AGENT, ATTACH_AGENT), (ATTACH_SELF, ATTACH_SELF)];
const PULL_POLICIES: [(&str, &str); 3] = [
    ("Always", "Always"),
    ("IfNotPresent", "IfNotPresent"),
    ("Never", "Never"),
];

impl Profile {
    pub fn new(image: &str) -> Self {
        Self {
            image: image.to_owned(),
            pull_policy: None,
            mode: "permissive".to_owned(),
            attach: ATTACH_AGENT.to_owned(),
            host_paths: HostPaths::default(),
            trust_domain: "cluster.local".to_owned(),
            system_namespace: SYSTEM_NAMESPACE.to_owned(),
            refresh: "1h".to_owned(),
            resources: Resources::default(),
            identity: TOKEN.to_owned(),
        }
    }

    /// From YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let node = load(text)?;
        let sink = Sink::default();
        let profile = read(&Field::root(&node, &sink));
        match (Problems::new(sink.into_inner()), profile) {
            (None, Some(profile)) => Ok(profile),
            (Some(problems), _) => Err(problems),
            (None, None) => unreachable!("what is not read has left a problem"),
        }
    }

    pub(super) fn attaches_itself(&self) -> bool {
        self.attach == ATTACH_SELF
    }

    /// Of version and profile together: whether a pod's sidecar is as it would be made now. The Helm chart computes the same from its values.
    pub(super) fn digest(&self) -> String {
        let resources = &self.resources;
        let words = [
            env!("CARGO_PKG_VERSION"),
            &self.image,
            self.pull_policy.as_deref().unwrap_or_default(),
            &self.mode,
            &self.attach,
            &self.host_paths.cgroup,
            &self.host_paths.bpf,
            &self.trust_domain,
            &self.system_namespace,
            &self.refresh,
            &resources.cpu,
            &resources.memory,
            &resources.memory_limit,
            &resources.guaranteed_cpu,
            &self.identity,
        ];
        let mut digest = format!("{:x}", Sha256::digest(words.join("|")));
        digest.truncate(DIGEST_DIGITS);
        digest
    }
}

fn read(root: &Field<'_>) -> Option<Profile> {
    let object = root.object(&[
        "image",
        "imagePullPolicy",
        "mode",
        "attach",
        "hostPaths",
        "trustDomain",
        "systemNamespace",
        "refresh",
        "resources",
        "identity",
    ])?;
    let image = object.require(
        "image",
        "name the image of Outrigger, such as registry.example/outrigger:1.0",
    );
    let mut profile = Profile::new(image?.text()?);
    let text = |name, into: &mut String| {
        if let Some(text) = object.get(name).and_then(|field| plain(&field)) {
            *into = text;
        }
    };
    text("trustDomain", &mut profile.trust_domain);
    text("systemNamespace", &mut profile.system_namespace);
    if let Some(mode) = object.get("mode").and_then(|field| field.one_of(&MODES)) {
        profile.mode = mode.to_owned();
    }
    if let Some(attach) = object.get("attach").and_then(|field| field.one_of(&ATTACH)) {
        profile.attach = attach.to_owned();
    }
    if let Some(paths) = object.get("hostPaths") {
        read_host_paths(&paths, &mut profile.host_paths);
    }
    let policy = object
        .get("imagePullPolicy")
        .and_then(|field| field.one_of(&PULL_POLICIES));
    profile.pull_policy = policy.map(str::to_owned);
    if let Some(identity) = object.get("identity").and_then(|field| field.one_of(&IDENTITIES)) {
        profile.identity = identity.to_owned();
    }
    if let Some(refresh) = object.get("refresh")
        && let Some(text) = refresh.text()
    {
        match humantime::parse_duration(text) {
            Ok(_) => profile.refresh = text.to_owned(),
            Err(_) => refresh.problem(format!("`{text}` is no duration"), "write one such as 30m"),
        }
    }
    if let Some(resources) = object.get("resources") {
        read_resources(&resources, &mut profile.resources);
    }
    Some(profile)
}

fn read_host_paths(field: &Field<'_>, paths: &mut HostPaths) -> Option<()> {
    let object = field.object(&["cgroup", "bpf"])?;
    for (name, into) in [("cgroup", &mut paths.cgroup), ("bpf", &mut paths.bpf)] {
        let Some(field) = object.get(name) else { continue };
        let text = field.text()?;
        match text.starts_with('/') && !text.contains(|c: char| c.is_whitespace() || c == '\'' || c == '"') {
            true => *into = text.to_owned(),
            false => field.problem(
                format!("`{text}` is no directory"),
                "write one such as /sys/fs/cgroup",
            ),
        }
    }
    Some(())
}

fn read_resources(field: &Field<'_>, resources: &mut Resources) -> Option<()> {
    let object = field.object(&["cpu", "memory", "memoryLimit", "guaranteedCpu"])?;
    for (name, into) in [
        ("cpu", &mut resources.cpu),
        ("memory", &mut resources.memory),
        ("memoryLimit", &mut resources.memory_limit),
        ("guaranteedCpu", &mut resources.guaranteed_cpu),
    ] {
        let Some(field) = object.get(name) else { continue };
        let text = field.text()?;
        match quantity::parse(text) {
            Some(_) => *into = text.to_owned(),
            None => field.problem(
                format!("`{text}` is no quantity"),
                "write one such as 20m or 256Mi",
            ),
        }
    }
    Some(())
}

/// What stands in expressions and names: no quote, no space.
fn plain(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    let is_plain = !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
    if !is_plain {
        field.problem(
            format!("`{}` is no name", text.escape_debug()),
            "write letters, digits, `-` and `.`",
        );
    }
    is_plain.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_needs_an_image_and_nothing_else() {
        assert_eq!(Profile::parse("image: x:1\n").unwrap(), Profile::new("x:1"));
        let text = "image: x:1\nmode: strict\nresources:\n  guaranteedCpu: 1\nimagePullPolicy: Never\n";
        let profile = Profile::parse(text).unwrap();
        assert_eq!(
            (&*profile.mode, &*profile.resources.guaranteed_cpu),
            ("strict", "1")
        );
        assert_eq!(profile.pull_policy.as_deref(), Some("Never"));
    }

    #[test]
    fn what_is_wrong_is_said_at_once_and_where() {
        let text = "image: x:1\nmode: strickt\nresources: {cpu: lots}\ntrustDomain: \"a'b\"\nimagee: y\nrefresh: often\n";
        let problems = Profile::parse(text).unwrap_err();
        let lines: Vec<usize> = problems.iter().map(|problem| problem.at.unwrap().line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6], "{problems:?}");
        assert!(Profile::parse("mode: strict\n").is_err());
    }

    #[test]
    fn the_digest_is_of_the_version_and_every_value_in_the_order_of_the_chart() {
        let mut profile = Profile::new("x:1");
        profile.pull_policy = Some("Never".to_owned());
        let words = format!(
            "{}|x:1|Never|permissive|agent|/sys/fs/cgroup|/sys/fs/bpf|cluster.local|outrigger-system|1h|20m|32Mi|256Mi|200m|token",
            env!("CARGO_PKG_VERSION")
        );
        assert!(format!("{:x}", Sha256::digest(words)).starts_with(&profile.digest()));
        assert_ne!(Profile::new("x:1").digest(), Profile::new("x:2").digest());
    }
}
