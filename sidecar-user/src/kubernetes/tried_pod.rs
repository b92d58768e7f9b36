//! A pod that is made and not kept (`dryRun=All`): what the API server's admission would make of it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, Pod, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext,
};
use kube::Api;
use kube::api::{ObjectMeta, PostParams};

use super::{CONTAINER, Client, Error, LABEL_INJECT};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It would have its sidecar.
    Injected,
    NotInjected,
    /// It would not be made, and why.
    Refused(String),
}

/// One that asks for its sidecar itself, where it `asks`; otherwise its namespace has to. Of the standard `restricted`, so that no policy
/// for pods is in the way.
pub async fn try_pod(client: &Client, namespace: &str, asks: bool) -> Result<Tried, Error> {
    let api: Api<Pod> = Api::namespaced(client.inner(), namespace);
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match api.create(&params, &pod(asks)).await {
        Ok(made) if has_sidecar(&made) => Ok(Tried::Injected),
        Ok(_) => Ok(Tried::NotInjected),
        Err(kube::Error::Api(status)) if is_admission(status.code, &status.message) => {
            Ok(Tried::Refused(status.message.clone()))
        }
        Err(source) => Err(Error::asked("make a pod, without keeping it", source)),
    }
}

/// Whether the pod is refused, and not the caller: both may be a 403, and RBAC names the user.
fn is_admission(code: u16, message: &str) -> bool {
    matches!(code, 400 | 403 | 422 | 500) && !message.contains("cannot create resource")
}

fn has_sidecar(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let containers = spec.and_then(|spec| spec.init_containers.as_ref());
    containers
        .into_iter()
        .flatten()
        .any(|container| container.name == CONTAINER)
}

fn pod(asks: bool) -> Pod {
    let labels = asks.then(|| BTreeMap::from([(LABEL_INJECT.to_owned(), "enabled".to_owned())]));
    Pod {
        metadata: ObjectMeta {
            generate_name: Some("outrigger-check-".into()),
            labels,
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            automount_service_account_token: Some(false),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(65_532),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            containers: vec![Container {
                name: "check".into(),
                image: Some("check".into()),
                security_context: Some(SecurityContext {
                    allow_privilege_escalation: Some(false),
                    capabilities: Some(Capabilities {
                        drop: Some(vec!["ALL".into()]),
                        add: None,
                    }),
                    ..SecurityContext::default()
                }),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_asks_by_its_label_and_has_its_sidecar_by_its_container() {
        let asking = pod(true);
        assert_eq!(asking.metadata.labels.as_ref().unwrap()[LABEL_INJECT], "enabled");
        assert!(pod(false).metadata.labels.is_none());
        assert!(!has_sidecar(&asking));
        let mut injected = asking;
        injected.spec.as_mut().unwrap().init_containers = Some(vec![Container {
            name: CONTAINER.into(),
            ..Container::default()
        }]);
        assert!(has_sidecar(&injected));
    }

    #[test]
    fn a_caller_who_may_not_make_pods_is_not_a_pod_that_is_refused() {
        assert!(!is_admission(
            403,
            "pods is forbidden: User \"ann\" cannot create resource \"pods\" in API group \"\" in the namespace \"shop\""
        ));
        assert!(is_admission(
            422,
            "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'outrigger-guard' denied request"
        ));
        assert!(!is_admission(404, "namespaces \"shop\" not found"));
    }
}
