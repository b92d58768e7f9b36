//! Do new pods get their sidecars, and is one refused that would start without?

use super::super::facts::{Injection, Known, Policy, Webhook};
use super::super::report::{Category, Check, category, ok};
use crate::kubernetes::{LABEL_INJECT, Tried};

const REPAIR: &str = "helm upgrade puts back what the chart is made of";

pub(super) fn judge(injection: &Injection) -> Category {
    let Injection {
        missing_guards,
        tried_in,
        asked_itself,
        tried,
        ..
    } = injection;
    category(
        "injection",
        vec![
            way(&injection.policy, &injection.webhook),
            guards(missing_guards),
            trial(tried_in, *asked_itself, tried),
        ],
    )
}

fn way(policy: &Known<Option<Policy>>, webhook: &Known<Option<Webhook>>) -> Check {
    let check = ok("injection-way", "something injects sidecars");
    match (policy, webhook) {
        (Ok(Some(_)), Ok(Some(_))) => check.failed(
            "there is a policy and a webhook, and which one is first nobody knows",
            "delete the one that injection.by of the chart does not name",
        ),
        (Ok(Some(policy)), _) => by_policy(policy),
        (_, Ok(Some(webhook))) => by_webhook(webhook),
        (Err(unknown), _) | (_, Err(unknown)) => check.unknown(unknown),
        (Ok(None), Ok(None)) => check.failed(
            "there is neither the MutatingAdmissionPolicy nor the MutatingWebhookConfiguration outrigger-inject",
            format!("{REPAIR}; with injection.by=none pods get sidecars by kubectl outrigger inject only"),
        ),
    }
}

fn by_policy(
    Policy {
        failure_policy,
        unbound,
    }: &Policy,
) -> Check {
    let check = ok(
        "injection-way",
        "sidecars are injected by the API server's policy",
    );
    match (unbound.as_slice(), &**failure_policy) {
        ([], "Fail") => check,
        ([], other) => check.warning(
            format!("its failurePolicy is {other}: a pod that it fails for starts without its sidecar"),
            REPAIR,
        ),
        (unbound, _) => check.failed(
            format!(
                "the policy is not in force, because its binding is missing: {}",
                unbound.join(", ")
            ),
            REPAIR,
        ),
    }
}

fn by_webhook(
    Webhook {
        failure_policy,
        has_roots,
    }: &Webhook,
) -> Check {
    let check = ok("injection-way", "sidecars are injected by the webhook of control");
    match (has_roots, &**failure_policy) {
        (true, "Fail") => check,
        (false, _) => check.failed(
            "it has no caBundle, so the API server trusts nobody there",
            "control writes it when it runs: kubectl logs of its pods says why not",
        ),
        (true, other) => check.warning(
            format!("its failurePolicy is {other}: while control is away pods start without their sidecars"),
            REPAIR,
        ),
    }
}

fn guards(missing: &Known<Vec<String>>) -> Check {
    let check = ok(
        "injection-guards",
        "pods that would start without their sidecars are refused",
    );
    match missing {
        Err(unknown) => check.unknown(unknown),
        Ok(missing) if missing.is_empty() => check,
        Ok(missing) => check.warning(
            format!("of the guards is missing: {}", missing.join(", ")),
            REPAIR,
        ),
    }
}

fn trial(place: &str, asked_itself: bool, tried: &Known<Tried>) -> Check {
    let what = match asked_itself {
        true => {
            format!("a pod with the label {LABEL_INJECT}=enabled in the namespace {place} gets its sidecar")
        }
        false => format!(
            "a pod in the namespace {place}, which has the label {LABEL_INJECT}=enabled, gets its sidecar"
        ),
    };
    let check = ok("injection-tried", format!("{what} (tried, not kept)"));
    match tried {
        Err(unknown) => check.unknown(unknown),
        Ok(Tried::Injected) => check,
        Ok(Tried::NotInjected) => check.failed(
            "it would start without one, and its connections would not be secured",
            REPAIR,
        ),
        Ok(Tried::Refused(why)) => check.failed(
            format!("it is refused: {why}"),
            "what refuses it says what it takes; a guard of Outrigger says so where injection does not work",
        ),
    }
}
