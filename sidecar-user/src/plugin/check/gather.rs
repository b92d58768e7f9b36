//! Asks the API server, and has the agents asked. Judges nothing, and goes on where something cannot be looked at.

use std::time::SystemTime;

use serde_json::Value;

use super::ask::{self, known};
use super::facts::{
    ApiServer, Before, Injection, Installed, Known, Needed, Pods, Policy, Roots, Webhook, Workload,
};
use super::judge;
use super::report::CheckReport;
use crate::kubernetes::{
    self, CONTROL, DEPLOYMENT, DOMAIN, GUARD, GUARD_BINDING, INJECTION_BINDING, INJECTION_POLICY,
    INJECTION_WEBHOOK, LABEL_INJECT, ObjectKind, OwnRight, ROOTS, ROOTS_KEY, SYSTEM_NAMESPACE, VIEWER,
};
use crate::pki;
use crate::plugin::access::Session;

/// Of the policy, of its bindings, and of the guard that refuses what it has left out.
const INJECT: &str = "outrigger-inject";
const BINDINGS: [&str; 2] = ["outrigger-inject-namespace", "outrigger-inject-pod"];
const GUARDED: &str = "outrigger-require";
const GUARD_BINDINGS: [&str; 2] = ["outrigger-require-namespace", "outrigger-require-pod"];

pub(super) fn report(session: &Session, namespace: Option<&str>, pre: bool) -> CheckReport {
    let server = known(session.ask(kubernetes::server(session.client())));
    let server = ApiServer {
        address: session.server().trim_end_matches('/').to_owned(),
        server,
        now: SystemTime::now(),
    };
    if server.server.is_err() {
        return judge::unreachable(&server);
    }
    match pre {
        true => judge::before(&server, &before(session)),
        false => judge::installed(&server, &installed(session, namespace)),
    }
}

fn before(session: &Session) -> Before {
    let client = session.client();
    let rights = chart_rights();
    let namespace = kubernetes::namespace_labels(client, Some(SYSTEM_NAMESPACE));
    Before {
        rights: known(session.ask(kubernetes::own_rights(client, &rights)))
            .map(|has| rights.into_iter().zip(has).collect()),
        nodes: known(session.ask(kubernetes::seen_nodes(client))),
        namespace: known(session.ask(namespace)).map(|mut found| found.remove(SYSTEM_NAMESPACE)),
    }
}

/// Each kind of object that the chart is made of, and the Secrets that helm keeps releases in.
fn chart_rights() -> Vec<OwnRight> {
    const RBAC: &str = "rbac.authorization.k8s.io";
    const ADMISSION: &str = "admissionregistration.k8s.io";
    let of_cluster = [
        ("", "namespaces"),
        (RBAC, "clusterroles"),
        (RBAC, "clusterrolebindings"),
        (ADMISSION, "mutatingadmissionpolicies"),
        (ADMISSION, "mutatingadmissionpolicybindings"),
        (ADMISSION, "validatingadmissionpolicies"),
        (ADMISSION, "validatingadmissionpolicybindings"),
        (ADMISSION, "mutatingwebhookconfigurations"),
    ];
    let of_namespace = [
        ("", "serviceaccounts"),
        ("", "configmaps"),
        ("", "secrets"),
        ("", "services"),
        (RBAC, "roles"),
        (RBAC, "rolebindings"),
        ("apps", "daemonsets"),
        ("apps", "deployments"),
        ("networking.k8s.io", "networkpolicies"),
        ("policy", "poddisruptionbudgets"),
    ];
    let of_cluster = of_cluster.map(|(group, resource)| OwnRight::new("create", group, resource));
    let of_namespace = of_namespace
        .map(|(group, resource)| OwnRight::new("create", group, resource).within(SYSTEM_NAMESPACE));
    of_cluster.into_iter().chain(of_namespace).collect()
}

fn installed(session: &Session, namespace: Option<&str>) -> Installed {
    let client = session.client();
    let needed = needed(namespace, session.has_no_token());
    let rights: Vec<OwnRight> = needed.iter().map(|needed| needed.right.clone()).collect();
    let rights = known(session.ask(kubernetes::own_rights(client, &rights)))
        .map(|has| needed.into_iter().zip(has).collect());
    let labels = known(session.ask(kubernetes::namespace_labels(client, namespace))).map(|all| {
        let label = all.into_iter();
        label
            .map(|(name, mut labels)| (name, labels.remove(LABEL_INJECT)))
            .collect()
    });
    let said = ask::agents(session, namespace);
    let pods = Pods {
        namespace: namespace.map(String::from),
        told: said.as_ref().map(|said| said.pods.clone()).unwrap_or_default(),
        untold: said.as_ref().map(|said| said.untold.clone()).unwrap_or_default(),
        seen: known(session.ask(kubernetes::seen_pods(client, namespace, None))),
        labels,
    };
    Installed {
        rights,
        control: control(session),
        roots: roots(session),
        injection: injection(session, namespace, &pods),
        nodes: known(session.ask(kubernetes::seen_nodes(client))),
        agents: said.map(|said| said.agents),
        pods,
    }
}

/// What the verbs take of somebody who asks about this namespace, or about all.
fn needed(namespace: Option<&str>, has_no_token: bool) -> Vec<Needed> {
    let connect = || "an administrator names you in plugin.subjects of the chart".to_owned();
    let here = |right: OwnRight| match namespace {
        Some(namespace) => right.within(namespace),
        None => right,
    };
    let grant = |role: &str| match namespace {
        Some(namespace) => {
            format!("kubectl create rolebinding NAME --namespace {namespace} --clusterrole {role} --user YOU")
        }
        None => format!("kubectl create clusterrolebinding NAME --clusterrole {role} --user YOU"),
    };
    let system = |verb, resource| OwnRight::new(verb, "", resource).within(SYSTEM_NAMESPACE);
    let must = |right, purpose, remedy| Needed {
        right,
        purpose,
        is_must: true,
        remedy,
    };
    let mut needed = vec![
        must(
            here(OwnRight::new("list", "", "pods")),
            "pods are found",
            grant("view"),
        ),
        must(system("list", "pods"), "their agents are found", connect()),
        must(
            system("create", "pods/portforward"),
            "agents are reached",
            connect(),
        ),
        must(
            system("get", "configmaps").named(ROOTS),
            "agents are known",
            connect(),
        ),
    ];
    needed.push(match has_no_token {
        true => must(
            system("create", "serviceaccounts/token").named(VIEWER),
            "agents know you, who have a certificate and no token",
            "use a kubeconfig with a token, or have an administrator give you that right".into(),
        ),
        false => must(
            here(OwnRight::new("get", DOMAIN, "flows")),
            "flows, why, edges, status",
            grant("view"),
        ),
    });
    if !has_no_token {
        let optional = [
            (
                here(OwnRight::new("create", DOMAIN, "drains")),
                "drain",
                grant("edit"),
            ),
            (
                OwnRight::new("get", DOMAIN, "nodes"),
                "intercept status, and what is said of agents here",
                "kubectl create clusterrolebinding NAME --clusterrole outrigger-nodes --user YOU".into(),
            ),
        ];
        needed.extend(optional.map(|(right, purpose, remedy)| Needed {
            right,
            purpose,
            is_must: false,
            remedy,
        }));
    }
    needed
}

pub(in crate::plugin) fn control(session: &Session) -> Known<Option<Workload>> {
    let found = kubernetes::find_object(session.client(), DEPLOYMENT, Some(SYSTEM_NAMESPACE), CONTROL);
    known(session.ask(found)).map(|found| found.as_ref().map(workload))
}

fn workload(object: &Value) -> Workload {
    let image = &object["spec"]["template"]["spec"]["containers"][0]["image"];
    let tag = image.as_str().and_then(|image| {
        let (_, tag) = image
            .split_once('@')
            .map_or(image, |(name, _)| name)
            .rsplit_once(':')?;
        Some(tag.to_owned())
    });
    // A tag that names no version is the builder's; the chart has one of its own.
    let is_version = |tag: &String| {
        // What is behind a port is no tag.
        !tag.contains('/')
            && tag
                .trim_start_matches('v')
                .starts_with(|c: char| c.is_ascii_digit())
    };
    let label = object["metadata"]["labels"]["app.kubernetes.io/version"].as_str();
    Workload {
        wanted: object["spec"]["replicas"].as_u64().unwrap_or(1),
        ready: object["status"]["readyReplicas"].as_u64().unwrap_or(0),
        version: tag.filter(is_version).or(label.map(String::from)),
    }
}

fn roots(session: &Session) -> Known<Option<Roots>> {
    let found = kubernetes::find_config_map(session.client(), SYSTEM_NAMESPACE, ROOTS);
    let found = known(session.ask(found))?;
    let Some(pem) = found.value(ROOTS_KEY) else {
        return Ok(None);
    };
    Ok(Some(match pki::ends(pem.as_bytes()) {
        Ok(ends) => Roots::Until(ends),
        Err(why) => Roots::Unreadable(why),
    }))
}

fn injection(session: &Session, namespace: Option<&str>, pods: &Pods) -> Injection {
    let label = namespace.and_then(|name| pods.labels.as_ref().ok()?.get(name)?.as_deref());
    let (tried_in, asks) = match (namespace, label) {
        (Some(namespace), Some("enabled")) => (namespace, false),
        _ => ("default", true),
    };
    Injection {
        policy: policy(session),
        webhook: object(session, INJECTION_WEBHOOK, INJECT).map(|found| found.as_ref().map(webhook)),
        missing_guards: missing(session, GUARD, &[GUARDED])
            .and_then(|guard| Ok([guard, missing(session, GUARD_BINDING, &GUARD_BINDINGS)?].concat())),
        tried_in: tried_in.to_owned(),
        asked_itself: asks,
        tried: known(session.ask(kubernetes::try_pod(session.client(), tried_in, asks))),
    }
}

fn policy(session: &Session) -> Known<Option<Policy>> {
    let Some(found) = object(session, INJECTION_POLICY, INJECT)? else {
        return Ok(None);
    };
    Ok(Some(Policy {
        failure_policy: found["spec"]["failurePolicy"]
            .as_str()
            .unwrap_or("Fail")
            .to_owned(),
        unbound: missing(session, INJECTION_BINDING, &BINDINGS)?,
    }))
}

fn webhook(object: &Value) -> Webhook {
    let first = &object["webhooks"][0];
    let bundle = first["clientConfig"]["caBundle"].as_str();
    Webhook {
        failure_policy: first["failurePolicy"].as_str().unwrap_or("Fail").to_owned(),
        has_roots: bundle.is_some_and(|bundle| !bundle.is_empty()),
    }
}

/// Of objects without a namespace, those that are not there.
fn missing(session: &Session, kind: ObjectKind, names: &[&str]) -> Known<Vec<String>> {
    let mut missing = Vec::new();
    for name in names {
        if object(session, kind, name)?.is_none() {
            missing.push((*name).to_owned());
        }
    }
    Ok(missing)
}

fn object(session: &Session, kind: ObjectKind, name: &str) -> Known<Option<Value>> {
    known(session.ask(kubernetes::find_object(session.client(), kind, None, name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_deployment_has_a_version_by_its_image_or_its_label() {
        let of = |image: &str| {
            let object = json!({
                "metadata": { "labels": { "app.kubernetes.io/version": "0.2.0" } },
                "spec": { "replicas": 2, "template": { "spec": { "containers": [{ "image": image }] } } },
                "status": { "readyReplicas": 1 },
            });
            workload(&object)
        };
        let control = of("registry.example:5000/outrigger:0.3.1");
        assert_eq!((control.wanted, control.ready), (2, 1));
        assert_eq!(control.version.as_deref(), Some("0.3.1"));
        for image in [
            "registry.example/outrigger:local",
            "registry.example:5000/outrigger",
            "outrigger@sha256:12",
        ] {
            assert_eq!(of(image).version.as_deref(), Some("0.2.0"), "{image}");
        }
        assert_eq!(workload(&json!({})).wanted, 1, "as the API server fills it in");
    }

    #[test]
    fn a_person_with_a_certificate_needs_a_token_and_one_with_a_token_the_rights() {
        let text = |namespace, has_no_token| {
            let needed = needed(namespace, has_no_token);
            let rights: Vec<String> = needed.iter().map(|needed| needed.right.to_string()).collect();
            rights.join("\n")
        };
        let by_token = text(Some("shop"), false);
        assert!(
            by_token.contains("get flows.outrigger.example in the namespace shop\n"),
            "{by_token}"
        );
        assert!(by_token.ends_with("get nodes.outrigger.example"), "{by_token}");
        assert!(text(None, false).contains("get flows.outrigger.example\n"));
        let by_certificate = text(Some("shop"), true);
        assert!(
            by_certificate
                .ends_with("create serviceaccounts/token outrigger-viewer in the namespace outrigger-system"),
            "{by_certificate}"
        );
        assert!(!by_certificate.contains("flows"));
    }

    #[test]
    fn a_webhook_without_a_bundle_is_trusted_by_nobody() {
        let of = |bundle: &str| {
            webhook(
                &json!({ "webhooks": [{ "failurePolicy": "Ignore", "clientConfig": { "caBundle": bundle } }] }),
            )
        };
        assert!(!of("").has_roots && of("TFM=").has_roots);
        assert_eq!(of("").failure_policy, "Ignore");
    }
}
