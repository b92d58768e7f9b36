//! What the API server is told, so that it injects by itself: the tables of this room as admission policies, and the registration of
//! the webhook for servers that do not know them. Objects only; whoever asked for them applies them.

use serde_json::{Value, json};

use super::pod::{DISABLED, ENABLED};
use super::profile::Profile;
use super::refusals::{CONTAINERS, RULES, has_reserved_user, is_injected};
use super::{cel, changes};
use crate::kubernetes::{CONTAINER, LABEL_INJECT};

const POLICY: &str = "outrigger-inject";
const REQUIRED: &str = "outrigger-require";
const USER: &str = "outrigger-user";
const AGENT: &str = "outrigger-agent";
/// What the API server says of the node in whose pod a token was issued.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// The port of the webhook at the control process's Service.
const WEBHOOK_PORT: u16 = 15017;
/// For a webhook that answers within a millisecond. Long enough for a node that is busy.
const WEBHOOK_TIMEOUT_SECONDS: u32 = 5;

/// The mutating admission policy and its bindings, for Kubernetes from 1.36 on.
pub fn policies(profile: &Profile) -> Vec<Value> {
    let variables: Vec<Value> = cel::variables()
        .iter()
        .map(|(name, expression)| json!({ "name": name, "expression": expression }))
        .collect();
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": { "name": POLICY, "labels": labels() },
        "spec": {
            // A pod that cannot be judged does not start without its sidecar.
            "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded",
            "matchConstraints": { "resourceRules": [pods(&["pods"], &["CREATE"])] },
            "matchConditions": conditions(profile),
            "variables": variables,
            "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": cel::patches(&changes::of(profile)) } }],
        },
    });
    let binding = |(way, selectors): (&str, Value)| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": { "name": format!("{POLICY}-{way}"), "labels": labels() },
            "spec": { "policyName": POLICY, "matchResources": selectors },
        })
    };
    std::iter::once(policy).chain(ways().map(binding)).collect()
}

/// The webhook's registration, without the certificate that the control process writes into it.
pub fn webhook_configuration(profile: &Profile) -> Vec<Value> {
    let webhook = |(way, selectors): (&str, Value)| {
        let mut webhook = json!({
            "name": format!("{way}.inject.{}", crate::kubernetes::DOMAIN),
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded",
            "timeoutSeconds": WEBHOOK_TIMEOUT_SECONDS,
            "rules": [pods(&["pods"], &["CREATE"])],
            "matchConditions": conditions(profile),
            "clientConfig": { "service": {
                "name": crate::kubernetes::CONTROL, "namespace": profile.system_namespace, "path": "/inject", "port": WEBHOOK_PORT,
            } },
        });
        for (field, selector) in selectors.as_object().into_iter().flatten() {
            webhook[field] = selector.clone();
        }
        webhook
    };
    vec![json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": { "name": POLICY, "labels": labels() },
        "webhooks": ways().map(webhook),
    })]
}

/// The validating admission policies that hold whoever injects: no pod of an enabled namespace starts without its sidecar, nobody is
/// its user, and an agent writes of its own node only.
pub fn guards(profile: &Profile) -> Vec<Value> {
    let exempt: Vec<Value> = RULES
        .iter()
        .filter(|rule| rule.is_exempt)
        .map(|rule| condition(rule.name, &(rule.cel)(profile)))
        .collect();
    let required = json!({
        "matchConstraints": { "resourceRules": [pods(&["pods"], &["CREATE"])] },
        "matchConditions": exempt,
        "validations": [{ "expression": is_first(), "messageExpression": message(profile), "reason": "Forbidden" }],
    });
    let user = json!({
        "matchConstraints": {
            "resourceRules": [pods(&["pods"], &["CREATE"]), pods(&["pods/ephemeralcontainers"], &["UPDATE"])],
        },
        "matchConditions": [{ "name": "has-a-sidecar", "expression": is_injected() }],
        "validations": [{
            "expression": format!(
                "!{} && !{}",
                has_reserved_user(CONTAINERS),
                has_reserved_user("object.spec.?ephemeralContainers.orValue([])")
            ),
            "message": "user 52008 is the sidecar's: a container that runs as it could read the sidecar's key; set another runAsUser",
            "reason": "Forbidden",
        }],
    });
    let account = format!(
        "system:serviceaccount:{}:{}",
        profile.system_namespace,
        crate::kubernetes::AGENT
    );
    let node =
        format!("request.userInfo.?extra[?'{NODE_NAME}'].orValue(['']).exists(node, node != '' && node == ");
    let agent = json!({
        "matchConstraints": { "resourceRules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "resources": ["events"], "operations": ["CREATE", "UPDATE"],
        }] },
        "matchConditions": [{ "name": "an-agent", "expression": format!("request.userInfo.username == '{account}'") }],
        "validations": [{
            "expression": format!("{node}object.?source.?host.orValue(''))"),
            "message": "an agent of Outrigger speaks for its own node only: source.host has to be the node of its token",
            "reason": "Forbidden",
        }],
    });
    let bound = |name: &str, spec: Value, selectors: Vec<(String, Value)>| {
        let mut policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": { "name": name, "labels": labels() },
            "spec": spec,
        });
        policy["spec"]["failurePolicy"] = "Fail".into();
        let bindings = selectors.into_iter().map(|(binding, selectors)| {
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": { "name": binding, "labels": labels() },
                "spec": { "policyName": name, "validationActions": ["Deny"], "matchResources": selectors },
            })
        });
        let mut all = vec![policy.clone()];
        all.extend(bindings);
        all
    };
    let each = |name: &str| {
        ways()
            .map(|(way, selectors)| (format!("{name}-{way}"), selectors))
            .to_vec()
    };
    let everywhere = |name: &str| vec![(name.to_owned(), json!({}))];
    [
        bound(REQUIRED, required, each(REQUIRED)),
        bound(USER, user, everywhere(USER)),
        bound(AGENT, agent, everywhere(AGENT)),
    ]
    .concat()
}

/// The two ways to ask, of which no pod goes both: by the label of its namespace, and by its own.
fn ways() -> [(&'static str, Value); 2] {
    let not = |word: &str| json!({ "matchExpressions": [{ "key": LABEL_INJECT, "operator": "NotIn", "values": [word] }] });
    let enabled = json!({ "matchLabels": { LABEL_INJECT: ENABLED } });
    [
        (
            "namespace",
            json!({ "namespaceSelector": enabled, "objectSelector": not(DISABLED) }),
        ),
        (
            "pod",
            json!({ "namespaceSelector": not(ENABLED), "objectSelector": enabled }),
        ),
    ]
}

/// Under which a pod is injected: one for each refusal, so that the API server's own tools name it.
fn conditions(profile: &Profile) -> Vec<Value> {
    let refusals = RULES
        .iter()
        .map(|rule| condition(rule.name, &(rule.cel)(profile)));
    std::iter::once(condition("injected", &is_injected()))
        .chain(refusals)
        .collect()
}

/// Met where this is not so.
fn condition(name: &str, expression: &str) -> Value {
    json!({ "name": format!("not-{name}"), "expression": format!("!({expression})") })
}

fn is_first() -> String {
    format!(
        "object.spec.?initContainers[?0].?name.orValue('') == '{CONTAINER}' && \
         object.spec.?initContainers[?0].?restartPolicy.orValue('') == 'Always'"
    )
}

/// Why the pod is here without its sidecar at the first place, and what to do.
fn message(profile: &Profile) -> String {
    let remedy = format!("; to run it outside of the mesh, label it {LABEL_INJECT}: {DISABLED}");
    let quoted = |reason: &str| cel::text(&format!("{reason}{remedy}"));
    let reasons: Vec<String> = RULES
        .iter()
        .filter(|rule| !rule.is_exempt)
        .map(|rule| {
            format!(
                "({}) ? {} : ",
                (rule.cel)(profile),
                quoted(&format!("no sidecar is injected: {}", rule.reason))
            )
        })
        .collect();
    let behind = quoted(
        "its sidecar has to be the first of initContainers, and another webhook has put a container before it",
    );
    let missing = quoted("it has no sidecar: the policy or the webhook that injects it is missing");
    format!("{}{} ? {behind} : {missing}", reasons.concat(), is_injected())
}

fn pods(resources: &[&str], operations: &[&str]) -> Value {
    json!({ "apiGroups": [""], "apiVersions": ["v1"], "resources": resources, "operations": operations })
}

fn labels() -> Value {
    json!({ "app.kubernetes.io/name": "outrigger", "app.kubernetes.io/component": "injection" })
}
