//! Pods that ask for a sidecar on a node where they can have none, and why: for a person to read. Pure.

use crate::kubernetes::{Pod, Told};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    HostNetwork,
    /// The kubelet starts it without the API server.
    Static,
    /// Its sockets are not this kernel's.
    Runtime(String),
    /// For this reason no pod of the node can be served.
    Node(String),
}

/// In names of runtime classes: their containers have a kernel of their own.
const FOREIGN_KERNELS: [&str; 5] = ["kata", "gvisor", "runsc", "firecracker", "hyperv"];

impl Refusal {
    /// Of a pod with a container for its sidecar. `None`: it can be served.
    pub(super) fn of(pod: &Pod) -> Option<Self> {
        let has_foreign_kernel = |class: &&String| {
            let class = class.to_ascii_lowercase();
            FOREIGN_KERNELS.iter().any(|known| class.contains(known))
        };
        if pod.is_host_network {
            return Some(Self::HostNetwork);
        }
        if pod.static_hash.is_some() {
            return Some(Self::Static);
        }
        let class = pod.runtime_class.as_ref().filter(has_foreign_kernel);
        class.map(|class| Self::Runtime(class.clone()))
    }

    pub(super) fn told(&self, pod: &Pod) -> Told {
        Told::of(pod, self.reason(), self.to_string())
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::HostNetwork => "HostNetworkNotMeshed",
            Self::Static => "StaticPodNotMeshed",
            Self::Runtime(_) => "RuntimeNotMeshed",
            Self::Node(_) => "NodeNotMeshed",
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::HostNetwork => f.write_str(
                "the pod has the network of its node (hostNetwork: true), whose connections are not the pod's alone; run it \
                 without hostNetwork, or without a sidecar",
            ),
            Self::Static => f.write_str(
                "the kubelet starts this static pod without the API server, and it has no service account; run it as a \
                 DaemonSet, or without a sidecar",
            ),
            Self::Runtime(class) => write!(
                f,
                "runtimeClassName: the containers of `{class}` have a kernel of their own, whose connections this node's does \
                 not see; run the pod with runc or crun, or without a sidecar"
            ),
            Self::Node(why) => write!(f, "no pod of this node can be served: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_served_is_refused_with_a_reason_and_everything_else_is_not() {
        let with = |change: fn(&mut Pod)| {
            let mut pod = Pod {
                is_meshed: true,
                ..Pod::default()
            };
            change(&mut pod);
            Refusal::of(&pod)
        };
        assert_eq!(with(|_| {}), None);
        assert_eq!(with(|pod| pod.is_host_network = true), Some(Refusal::HostNetwork));
        assert_eq!(
            with(|pod| pod.static_hash = Some("h".into())),
            Some(Refusal::Static)
        );
        for class in ["kata-qemu", "gVisor", "runsc-kvm"] {
            let pod = Pod {
                runtime_class: Some(class.into()),
                ..Pod::default()
            };
            assert_eq!(Refusal::of(&pod), Some(Refusal::Runtime(class.into())));
        }
        assert_eq!(with(|pod| pod.runtime_class = Some("nvidia".into())), None);
    }
}
