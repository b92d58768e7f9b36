//! The `loadBalancer` of a service: which endpoints are near enough, and healthy enough. And its `sessionAffinity`: whether
//! a client stays with one.

use std::time::Duration;

use super::reader::Reader;
use crate::document::Field;
use crate::model::balancing::Scope;
use crate::model::{Affinity, BalanceMode, Balancing, HealthPolicy};

const SCOPES: [(&str, Scope); 6] = [
    ("Region", Scope::Region),
    ("Zone", Scope::Zone),
    ("Subzone", Scope::Subzone),
    ("Node", Scope::Node),
    ("Cluster", Scope::Cluster),
    ("Network", Scope::Network),
];
const MODES: [(&str, BalanceMode); 4] = [
    ("Standard", BalanceMode::Any),
    ("Strict", BalanceMode::Strict),
    ("Failover", BalanceMode::Failover),
    ("Passthrough", BalanceMode::Passthrough),
];
const HEALTH: [(&str, HealthPolicy); 2] = [
    ("OnlyHealthy", HealthPolicy::OnlyHealthy),
    ("AllowAll", HealthPolicy::AllowAll),
];

pub(super) fn read(reader: &Reader, field: &Field<'_>) -> Balancing {
    let Some(object) = field.object(&["routingPreferences", "mode", "healthPolicy"]) else {
        return Balancing::default();
    };
    let mode = object.get("mode").and_then(|field| field.one_of(&MODES));
    let health = object.get("healthPolicy").and_then(|field| field.one_of(&HEALTH));
    let balancing = Balancing {
        scopes: object.list_of("routingPreferences", "a list of scopes", |item| {
            let scope = item.one_of(&SCOPES)?;
            if matches!(scope, Scope::Cluster | Scope::Network) {
                reader.warn(
                    &item,
                    "there is one cluster and one network, so every endpoint matches this",
                    "remove it, or name a scope within them",
                );
            }
            Some(scope)
        }),
        mode: mode.unwrap_or_default(),
        health: health.unwrap_or_default(),
    };
    let decides =
        balancing.is_ranked() || matches!(balancing.mode, BalanceMode::Any | BalanceMode::Passthrough);
    if let Some(mode) = object.get("mode").filter(|_| !decides) {
        reader.warn(
            &mode,
            "without `routingPreferences` every endpoint is as near as any other",
            "name scopes such as [Zone], or write `Standard`",
        );
    }
    balancing
}

/// What Kubernetes takes for a session, and what it allows.
const SESSION: u64 = 3 * 60 * 60;
const LONGEST_SESSION: u64 = 24 * 60 * 60;

pub(super) fn read_affinity(field: &Field<'_>) -> Option<Affinity> {
    const SECONDS: &str = "write whole seconds, from 1 to 86400";
    let object = field.object(&["timeoutSeconds"])?;
    let Some(timeout) = object.get("timeoutSeconds") else {
        let timeout = Duration::from_secs(SESSION);
        return Some(Affinity { timeout });
    };
    let seconds = timeout.parse::<u64>("time", SECONDS)?;
    if !(1..=LONGEST_SESSION).contains(&seconds) {
        timeout.problem(format!("`{seconds}` is no time that a session lasts"), SECONDS);
        return None;
    }
    Some(Affinity {
        timeout: Duration::from_secs(seconds),
    })
}
