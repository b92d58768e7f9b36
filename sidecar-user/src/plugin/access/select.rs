//! What a person calls pods, and which those are.

use super::session::Session;
use crate::kubernetes::{self, LABEL_INJECT, Made, Maker, SeenPod};
use crate::plugin::error::Error;
use crate::plugin::unmeshed;

/// Pods that are asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted<'a> {
    /// Of a namespace, or of all.
    Namespace(Option<&'a str>),
    Labels(Option<&'a str>, &'a str),
    Pod(&'a str, &'a str),
    MadeBy(Maker, &'a str, &'a str),
}

impl<'a> Wanted<'a> {
    pub(super) fn new(
        namespace: Option<&'a str>,
        pod: Option<&'a str>,
        labels: Option<&'a str>,
    ) -> Result<Self, Error> {
        let Some(pod) = pod else {
            return Ok(match labels {
                Some(labels) => Self::Labels(namespace, labels),
                None => Self::Namespace(namespace),
            });
        };
        let here = || {
            namespace.ok_or_else(|| Error::Usage {
                reason: format!(
                    "{pod} is of one namespace: name it by --namespace instead of --all-namespaces"
                ),
            })
        };
        Ok(match pod.split_once('/') {
            None => Self::Pod(here()?, pod),
            Some((kind, name)) => match kind_of(kind) {
                Some(None) => Self::Pod(here()?, name),
                Some(Some(maker)) => Self::MadeBy(maker, here()?, name),
                None => Self::Pod(kind, name),
            },
        })
    }

    /// Those that there are; each can be asked about where it is one alone.
    pub(super) fn find(&self, session: &Session) -> Result<Vec<SeenPod>, Error> {
        let client = session.client();
        match *self {
            Self::Namespace(namespace) => session.ask(kubernetes::seen_pods(client, namespace, None)),
            Self::Labels(namespace, labels) => {
                let pods = session.ask(kubernetes::seen_pods(client, namespace, Some(labels)))?;
                some(pods, || format!("with the labels {labels}"), namespace)
            }
            Self::Pod(namespace, name) => {
                let pod = session.ask(kubernetes::seen_pod(client, namespace, name))?;
                let pod = pod.ok_or_else(|| Error::NoPod {
                    name: name.to_owned(),
                    namespace: namespace.to_owned(),
                })?;
                if !pod.is_meshed {
                    return Err(not_meshed(session, &pod));
                }
                Ok(vec![pod])
            }
            Self::MadeBy(maker, namespace, name) => {
                let labels = session.ask(kubernetes::labels_of(client, maker, namespace, name))?;
                let labels = match labels {
                    Made::Labels(labels) => labels,
                    other => {
                        return Err(Error::NothingMade {
                            maker: format!("{maker:?} {name}"),
                            namespace: namespace.to_owned(),
                            why: match other {
                                Made::Nothing => "there is none of this name",
                                _ => "it chooses no pods by labels; name a pod",
                            },
                        });
                    }
                };
                let pods = session.ask(kubernetes::seen_pods(client, namespace.into(), Some(&labels)))?;
                some(pods, || format!("of {maker:?} {name}"), Some(namespace))
            }
        }
    }
}

fn some(pods: Vec<SeenPod>, of: impl Fn() -> String, namespace: Option<&str>) -> Result<Vec<SeenPod>, Error> {
    match pods.is_empty() {
        false => Ok(pods),
        true => Err(Error::NoPods {
            of: of(),
            place: match namespace {
                Some(namespace) => format!("in the namespace {namespace}"),
                None => "in any namespace".to_owned(),
            },
        }),
    }
}

/// A word before a name. Inner `None`: a pod's own.
fn kind_of(word: &str) -> Option<Option<Maker>> {
    Some(match word {
        "pod" | "pods" | "po" => None,
        "svc" | "service" | "services" => Some(Maker::Service),
        "deploy" | "deployment" | "deployments" => Some(Maker::Deployment),
        "sts" | "statefulset" | "statefulsets" => Some(Maker::StatefulSet),
        "ds" | "daemonset" | "daemonsets" => Some(Maker::DaemonSet),
        "rs" | "replicaset" | "replicasets" => Some(Maker::ReplicaSet),
        "job" | "jobs" => Some(Maker::Job),
        _ => return None,
    })
}

/// Why a pod has no sidecar, as far as this person may know it.
fn not_meshed(session: &Session, pod: &SeenPod) -> Error {
    let namespace = &pod.namespace;
    let label = session.ask(kubernetes::namespace_label(
        session.client(),
        namespace,
        LABEL_INJECT,
    ));
    let why = unmeshed::reason(pod, label.as_ref().ok().map(Option::as_deref));
    Error::NotMeshed {
        pod: format!("{namespace}/{}", pod.name),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(namespace: Option<&'a str>, pod: &'a str) -> Wanted<'a> {
        Wanted::new(namespace, Some(pod), None).unwrap()
    }

    #[test]
    fn pods_are_named_as_kubectl_names_them() {
        let shop = Some("shop");
        assert_eq!(of(shop, "web-0"), Wanted::Pod("shop", "web-0"));
        assert_eq!(of(shop, "pod/web-0"), Wanted::Pod("shop", "web-0"));
        assert_eq!(of(shop, "bank/web-0"), Wanted::Pod("bank", "web-0"));
        assert_eq!(of(None, "bank/web-0"), Wanted::Pod("bank", "web-0"));
        assert_eq!(of(shop, "svc/web"), Wanted::MadeBy(Maker::Service, "shop", "web"));
        assert_eq!(
            of(shop, "deployment/web"),
            Wanted::MadeBy(Maker::Deployment, "shop", "web")
        );
        assert_eq!(
            Wanted::new(None, None, Some("a=b")).unwrap(),
            Wanted::Labels(None, "a=b")
        );
        assert_eq!(Wanted::new(shop, None, None).unwrap(), Wanted::Namespace(shop));
        let error = Wanted::new(None, Some("web-0"), None).unwrap_err().to_string();
        assert!(error.contains("--namespace"), "{error}");
    }
}
