//! Pods that get no sidecar, and why: one table with two readers, `of` for JSON and `policies.rs` for the API server, in whose language
//! each rule is written beside it.

use serde_json::Value;

use super::container;
use super::container::USER;
use super::pod::{Namespace, containers, is_asked_for, list};
use super::profile::{ATTACH_AGENT, ATTACH_SELF, Profile};
use crate::kubernetes::{ANNOTATION_ATTACH, ANNOTATION_MODE, CONTAINER};

/// Why a pod gets no sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A name, as in `host-network`.
    pub rule: &'static str,
    pub reason: &'static str,
    /// Nobody is surprised that such a pod runs without: the guards let it.
    pub is_exempt: bool,
}

pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) reason: &'static str,
    pub(super) is_exempt: bool,
    /// True of a pod that is refused, in CEL.
    pub(super) cel: fn(&Profile) -> String,
    holds: fn(&Value, &Namespace, &Profile) -> bool,
}

/// Runtimes whose sockets are a guest kernel's, by a part of the class's name.
const RUNTIMES: [&str; 4] = ["kata", "gvisor", "runsc", "firecracker"];

/// Containers of other meshes.
const OTHERS: [&str; 9] = [
    "istio-proxy",
    "istio-init",
    "istio-validation",
    "linkerd-proxy",
    "linkerd-init",
    "linkerd-network-validator",
    "kuma-sidecar",
    "kuma-init",
    "consul-dataplane",
];

/// Of what a sidecar takes in plaintext.
const MODES: [&str; 2] = ["strict", "permissive"];

/// Of who attaches the programs.
const ATTACH: [&str; 2] = [ATTACH_AGENT, ATTACH_SELF];

const MIRROR: &str = "kubernetes.io/config.mirror";
const AMBIENT: &str = "istio.io/dataplane-mode";
const SYSTEM: &str = "kube-system";

/// All containers of the object, in CEL.
pub(super) const CONTAINERS: &str = "(object.spec.containers + object.spec.?initContainers.orValue([]))";

pub(super) const RULES: [Rule; 11] = [
    Rule {
        name: "system-namespace",
        reason: "pods of kube-system and of Outrigger itself have to run before the mesh does",
        is_exempt: true,
        cel: |profile| {
            format!(
                "request.namespace in {}",
                words(&[SYSTEM, &profile.system_namespace])
            )
        },
        holds: |_, namespace, profile| namespace.name == SYSTEM || namespace.name == profile.system_namespace,
    },
    Rule {
        name: "static",
        reason: "it is the mirror of a static pod, which runs already as its node was told",
        is_exempt: true,
        cel: |_| format!("object.metadata.?annotations[?'{MIRROR}'].hasValue()"),
        holds: |pod, _, _| !pod["metadata"]["annotations"][MIRROR].is_null(),
    },
    Rule {
        name: "windows",
        reason: "it is for Windows",
        is_exempt: true,
        cel: |_| {
            "object.spec.?os.?name.orValue('') == 'windows' || \
             object.spec.?nodeSelector[?'kubernetes.io/os'].orValue('') == 'windows'"
                .to_owned()
        },
        holds: |pod, _, _| {
            let spec = &pod["spec"];
            spec["os"]["name"] == "windows" || spec["nodeSelector"]["kubernetes.io/os"] == "windows"
        },
    },
    Rule {
        name: "host-network",
        reason: "hostNetwork: its connections are its node's, which the sidecar of one pod cannot tell apart",
        is_exempt: false,
        cel: |_| "object.spec.?hostNetwork.orValue(false)".to_owned(),
        holds: |pod, _, _| pod["spec"]["hostNetwork"] == true,
    },
    Rule {
        name: "runtime",
        reason: "runtimeClassName: its sockets are a guest kernel's, where the node sees none of them",
        is_exempt: false,
        cel: |_| {
            format!(
                "{}.exists(word, object.spec.?runtimeClassName.orValue('').lowerAscii().contains(word))",
                words(&RUNTIMES)
            )
        },
        holds: |pod, _, _| {
            let class = pod["spec"]["runtimeClassName"].as_str().unwrap_or_default();
            let class = class.to_ascii_lowercase();
            RUNTIMES.iter().any(|word| class.contains(word))
        },
    },
    Rule {
        name: "other-mesh",
        reason: "it has the sidecar of another mesh",
        is_exempt: false,
        cel: |_| {
            format!(
                "{CONTAINERS}.exists(c, c.name in {}) || object.metadata.?labels[?'{AMBIENT}'].orValue('') == 'ambient'",
                words(&OTHERS)
            )
        },
        holds: |pod, _, _| {
            let is_other = |c: &Value| c["name"].as_str().is_some_and(|name| OTHERS.contains(&name));
            containers(pod).any(is_other) || pod["metadata"]["labels"][AMBIENT] == "ambient"
        },
    },
    Rule {
        name: "mode",
        reason: "its annotation outrigger.example/mode is neither strict nor permissive",
        is_exempt: false,
        cel: |_| {
            format!(
                "!(object.metadata.?annotations[?'{ANNOTATION_MODE}'].orValue('strict') in {})",
                words(&MODES)
            )
        },
        holds: |pod, _, _| {
            let mode = &pod["metadata"]["annotations"][ANNOTATION_MODE];
            !mode.is_null() && !mode.as_str().is_some_and(|mode| MODES.contains(&mode))
        },
    },
    Rule {
        name: "attach",
        reason: "its annotation outrigger.example/attach is neither agent nor self",
        is_exempt: false,
        cel: |_| {
            format!(
                "!(object.metadata.?annotations[?'{ANNOTATION_ATTACH}'].orValue('{ATTACH_AGENT}') in {})",
                words(&ATTACH)
            )
        },
        holds: |pod, _, _| {
            let attach = &pod["metadata"]["annotations"][ANNOTATION_ATTACH];
            !attach.is_null() && !attach.as_str().is_some_and(|attach| ATTACH.contains(&attach))
        },
    },
    Rule {
        name: "reserved-user",
        reason: "a container of it runs as user 52008, who is the sidecar's",
        is_exempt: false,
        cel: |_| has_reserved_user(CONTAINERS),
        holds: |pod, _, _| {
            let of_pod = &pod["spec"]["securityContext"]["runAsUser"];
            containers(pod).any(|container| {
                let own = &container["securityContext"]["runAsUser"];
                let user = if own.is_null() { of_pod } else { own };
                user.as_u64() == Some(USER.into())
            })
        },
    },
    Rule {
        name: "name-taken",
        reason: "a container of its own is named outrigger-proxy, or a volume as one of the sidecar's",
        is_exempt: false,
        cel: |_| {
            format!(
                "object.spec.containers.exists(c, c.name == '{CONTAINER}') || \
                 (!{} && object.spec.?volumes.orValue([]).exists(v, v.name in {}))",
                is_injected(),
                words(&container::VOLUMES)
            )
        },
        holds: |pod, _, _| {
            let spec = &pod["spec"];
            let is_ours = |v: &Value| {
                v["name"]
                    .as_str()
                    .is_some_and(|name| container::VOLUMES.contains(&name))
            };
            list(spec, "containers").iter().any(|c| c["name"] == CONTAINER)
                || (!container::is_in(pod) && list(spec, "volumes").iter().any(is_ours))
        },
    },
    Rule {
        name: "no-containers",
        reason: "it has no container",
        is_exempt: true,
        cel: |_| "size(object.spec.containers) == 0".to_owned(),
        holds: |pod, _, _| list(&pod["spec"], "containers").is_empty(),
    },
];

/// Of the labels, which selectors ask about in the API server.
const NOT_ASKED_FOR: Refusal = Refusal {
    rule: "not-asked-for",
    reason: "neither its label outrigger.example/inject nor that of its namespace says enabled, or its own says disabled",
    is_exempt: true,
};

pub(super) fn of(pod: &Value, namespace: &Namespace, profile: &Profile) -> Vec<Refusal> {
    if !is_asked_for(pod, namespace) {
        return vec![NOT_ASKED_FOR];
    }
    let those = RULES.iter().filter(|rule| (rule.holds)(pod, namespace, profile));
    those.map(Rule::refusal).collect()
}

impl Rule {
    fn refusal(&self) -> Refusal {
        Refusal {
            rule: self.name,
            reason: self.reason,
            is_exempt: self.is_exempt,
        }
    }
}

/// Whether the sidecar is there, in CEL.
pub(super) fn is_injected() -> String {
    format!("object.spec.?initContainers.orValue([]).exists(c, c.name == '{CONTAINER}')")
}

/// Whether one of these containers that is not the sidecar runs as its user, in CEL.
pub(super) fn has_reserved_user(containers: &str) -> String {
    format!(
        "{containers}.exists(c, c.name != '{CONTAINER}' && \
         c.?securityContext.?runAsUser.orValue(object.spec.?securityContext.?runAsUser.orValue(-1)) == {USER})"
    )
}

/// A list of words in CEL. None of ours has a quote.
fn words(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    format!("[{}]", quoted.join(", "))
}
