//! Why a pod has no sidecar. Pure; says what gives it one.

use crate::kubernetes::{LABEL_INJECT, SeenPod};

/// `label`: what the one of the pod's namespace says; outer `None`: nobody knows.
pub(super) fn reason(pod: &SeenPod, label: Option<Option<&str>>) -> String {
    let namespace = &pod.namespace;
    match (pod.inject.as_deref(), label) {
        _ if pod.is_host_network => {
            "it is in the network of its node (hostNetwork), where no sidecar can be".to_owned()
        }
        (Some("disabled"), _) => {
            format!("its label {LABEL_INJECT}: disabled keeps it out; take that away and start it again")
        }
        (Some("enabled"), _) | (_, Some(Some("enabled"))) => {
            "it was made before it was to have one, or by what leaves the injection out: start it again (kubectl rollout restart); \
             kubectl outrigger check says whether injection works"
                .to_owned()
        }
        (_, Some(_)) => format!(
            "the namespace {namespace} has no label {LABEL_INJECT}=enabled: kubectl label namespace {namespace} \
             {LABEL_INJECT}=enabled, and start the pod again"
        ),
        (_, None) => format!(
            "the label {LABEL_INJECT}=enabled on the namespace {namespace}, or on the pod, gives new pods one"
        ),
    }
}

/// Whether it is to have one: it or its namespace says so, and it has not ended.
pub(super) fn is_wanted(pod: &SeenPod, label: Option<&str>) -> bool {
    let has_ended = pod.is_ending || matches!(&*pod.phase, "Succeeded" | "Failed");
    let asks = match pod.inject.as_deref() {
        Some(own) => own == "enabled",
        None => label == Some("enabled"),
    };
    asks && !has_ended
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(inject: Option<&str>) -> SeenPod {
        SeenPod {
            namespace: "shop".into(),
            name: "web-0".into(),
            inject: inject.map(String::from),
            ..SeenPod::default()
        }
    }

    #[test]
    fn each_reason_has_its_words() {
        let host = SeenPod {
            is_host_network: true,
            ..pod(Some("enabled"))
        };
        assert!(reason(&host, None).contains("hostNetwork"));
        assert!(reason(&pod(Some("disabled")), Some(Some("enabled"))).contains("keeps it out"));
        assert!(reason(&pod(None), Some(Some("enabled"))).contains("rollout restart"));
        assert!(reason(&pod(Some("enabled")), Some(None)).contains("rollout restart"));
        for label in [None, Some("disabled")] {
            assert!(reason(&pod(None), Some(label)).contains("kubectl label namespace shop "));
        }
        assert!(reason(&pod(None), None).contains("or on the pod"));
    }

    #[test]
    fn a_pods_own_label_wins_and_one_that_has_ended_wants_nothing() {
        assert!(is_wanted(&pod(None), Some("enabled")));
        assert!(is_wanted(&pod(Some("enabled")), None));
        assert!(!is_wanted(&pod(Some("disabled")), Some("enabled")));
        assert!(!is_wanted(&pod(None), None));
        let ended = SeenPod {
            phase: "Succeeded".into(),
            ..pod(Some("enabled"))
        };
        assert!(!is_wanted(&ended, None));
    }
}
