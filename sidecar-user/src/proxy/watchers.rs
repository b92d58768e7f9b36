//! Keeps readiness and meters up to date with what the rooms report. Sinks only: nothing here acts on it.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde_json::json;
use tokio::sync::watch;

use super::Config;
use crate::datapath::Datapath;
use crate::discovery::Feed;
use crate::identity::{self, Svid};
use crate::model::authorization::PolicyName;
use crate::model::snapshot::Standing;
use crate::model::{Own, Snapshot};
use crate::observe::{Condition, Observer};
use crate::policy::Mode;
use crate::route::Unknown;

/// What must be true before the proxy serves.
pub(super) struct Conditions {
    pub(super) listeners: Condition,
    pub(super) interception: Condition,
    pub(super) registry: Condition,
    pub(super) identity: Condition,
}

impl Conditions {
    pub(super) fn new(observer: &Observer) -> Self {
        let condition = |name, reason| observer.readiness().condition(name, reason);
        Self {
            listeners: condition("listeners", "ports are not bound yet"),
            interception: condition("interception", "programs are not attached yet"),
            registry: condition("registry", "not read yet"),
            identity: condition("identity", "no certificate yet"),
        }
    }
}

pub(super) async fn registry(observer: Observer, mut feed: Feed, own: Own, condition: Condition) {
    let mut failures = 0;
    let mut closed = None;
    loop {
        tell_standing(&observer, &feed.snapshots.borrow(), &own, &mut closed);
        {
            let status = feed.status.borrow_and_update();
            let meters = observer.meters();
            meters.registry_generation.set(status.generation as i64);
            meters.registry_reload_errors.inc_by(status.failures - failures);
            failures = status.failures;
        }
        // A bad file later on does not undo this: the last good one stays in force.
        condition.met();
        if feed.status.changed().await.is_err() {
            return;
        }
    }
}

/// Is this workload listed? Where it is not, and that closes it, `closed` has the policy that may be meant for it.
fn tell_standing(observer: &Observer, world: &Snapshot, own: &Own, closed: &mut Option<PolicyName>) {
    let Some(address) = own.addresses.first() else {
        return;
    };
    let (listed, now) = match world.standing(own, *address) {
        Standing::Listed(_) => (true, None),
        Standing::Unlisted { meant, .. } => (false, meant.cloned()),
    };
    observer.meters().workload_listed.set(i64::from(listed));
    match &now {
        Some(policy) if now != *closed => tracing::warn!(
            workload = %own.name, namespace = own.identity.namespace(), %policy,
            "the registry does not list this workload, and this policy may be meant for it: inbound connections are \
             refused until the registry lists it, by its name or one of its addresses"
        ),
        None if closed.is_some() => {
            tracing::info!("whether the policies are meant for this workload is clear again");
        }
        _ => {}
    }
    *closed = now;
}

pub(super) async fn certificate(
    observer: Observer,
    mut svid: watch::Receiver<Option<Arc<Svid>>>,
    mut status: watch::Receiver<identity::Status>,
    condition: Condition,
) {
    loop {
        let current = svid.borrow_and_update().clone();
        let error = status.borrow_and_update().last_error.clone();
        match (&current, &error) {
            (Some(svid), _) => {
                let expiry = svid.not_after().duration_since(UNIX_EPOCH).unwrap_or_default();
                observer.meters().identity_expiry.set(expiry.as_secs() as i64);
                condition.met();
            }
            (None, Some(error)) => condition.unmet(error.clone()),
            (None, None) => condition.unmet("no certificate yet"),
        }
        tokio::select! {
            renewed = svid.changed() => match renewed {
                Ok(()) if svid.borrow().is_some() => { observer.meters().identity_renewals.inc(); }
                Ok(()) => {}
                Err(_) => return,
            },
            told = status.changed() => match told {
                Ok(()) if status.borrow().last_error.is_some() => { observer.meters().identity_renewal_errors.inc(); }
                Ok(()) => {}
                Err(_) => return,
            },
        }
    }
}

/// The kernel side's counters, read at each scrape. The attachment itself lives on in its pins.
pub(super) fn kernel_counters(observer: &Observer, kernel: Datapath) {
    observer.kernel_counters(move || {
        kernel.counters().unwrap_or_else(|error| {
            tracing::warn!(%error, "kernel counters cannot be read");
            Vec::new()
        })
    });
}

/// The configuration in force, for the admin endpoint. Paths of secrets, no secrets.
pub(super) fn shown_config(config: &Config) -> serde_json::Value {
    json!({
        "workload": {
            "name": config.name,
            "identity": config.identity.id,
            "addresses": config.addresses,
        },
        "mode": match config.mode { Mode::Permissive => "permissive", Mode::Strict => "strict" },
        "outbound": match config.unknown { Unknown::PassThrough => "passthrough", Unknown::Refuse => "registry-only" },
        "registry": config.discovery.file,
        "identity": {
            "authority": config.identity.authority,
            "serverName": config.identity.server_name,
            "roots": config.identity.roots,
            "token": config.identity.token,
            "ttl": humantime::format_duration(config.identity.ttl).to_string(),
            "refresh": humantime::format_duration(config.identity.refresh).to_string(),
        },
        "interception": config.datapath.as_ref().map_or_else(|| json!("none"), |d| json!({
            "cgroup": d.cgroup,
            "pins": d.pins,
            "policy": config.interception_policy,
            "allowWholeHost": d.allow_whole_host,
        })),
        "listen": {
            "outbound": config.intercept.outbound_port,
            "inbound": config.intercept.inbound_port,
            "hbone": config.intercept.hbone_port,
            "status": config.observe.status_port,
            "admin": config.observe.admin,
            "adminSocket": config.observe.admin_socket,
        },
        "workers": config.workers,
        "drain": humantime::format_duration(config.drain).to_string(),
        "halfClosed": humantime::format_duration(config.half_closed).to_string(),
    })
}
