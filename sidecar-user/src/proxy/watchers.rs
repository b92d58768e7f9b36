//! Keeps readiness and meters up to date with what the rooms report. Sinks only: nothing here acts on it.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde_json::json;
use tokio::sync::watch;

use super::config::Config;
use super::kernel::Kernel;
use super::stop::Lifetime;
use crate::discovery::{Feed, Source, Status};
use crate::identity::{self, Svid};
use crate::model::authorization::PolicyName;
use crate::model::snapshot::Standing;
use crate::model::{Own, Snapshot};
use crate::observe::{Caller, Condition, Observer};
use crate::policy::Mode;
use crate::route::Unknown;

/// What must be true before the proxy serves.
pub(super) struct Conditions {
    pub(super) listeners: Condition,
    pub(super) interception: Condition,
    pub(super) registry: Condition,
    pub(super) identity: Condition,
}

/// For everybody who asks the status port.
const NO_CERTIFICATE: &str = "no valid certificate; the log and the admin socket's /readyz say why";

/// For everybody who asks the status port.
const NOT_TOLD: &str =
    "whoever tells of the mesh has not told of this workload yet; the admin socket's /readyz says what";

impl Conditions {
    pub(super) fn new(observer: &Observer) -> Self {
        let condition = |name, reason| observer.readiness().condition(name, reason);
        Self {
            listeners: condition("listeners", "ports are not bound yet"),
            interception: condition("interception", "programs are not attached yet"),
            registry: condition("registry", "not read yet"),
            identity: condition("identity", NO_CERTIFICATE),
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
            meters
                .registry_reload_errors
                .inc_by(status.failures.saturating_sub(failures));
            failures = status.failures;
        }
        // What is wrong later on does not undo this: the last good one stays in force.
        match feed.status.borrow().clone() {
            Status {
                generation: 0, error, ..
            } => condition.unmet_because(NOT_TOLD, error.unwrap_or_default()),
            _ => condition.met(),
        }
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

/// Counts by what has changed since the last look, whichever of the two it was that woke this up: both may have.
pub(super) async fn certificate(
    observer: Observer,
    mut svid: watch::Receiver<Option<Arc<Svid>>>,
    mut status: watch::Receiver<identity::Status>,
    condition: Condition,
) {
    let meters = observer.meters();
    let (mut serial, mut failures) = (String::new(), 0);
    loop {
        let current = svid.borrow_and_update().clone();
        let now = status.borrow_and_update().clone();
        // They start again from 0 with each success.
        let failed = now.failures.checked_sub(failures).unwrap_or(now.failures);
        meters.identity_renewal_errors.inc_by(failed.into());
        failures = now.failures;
        meters.identity_expiry.set(current.as_deref().map_or(0, expiry));
        match (&current, now.last_error) {
            (Some(svid), _) => {
                if serial != svid.serial() {
                    meters.identity_renewals.inc();
                    svid.serial().clone_into(&mut serial);
                }
                condition.met();
            }
            // Its words name files and the authority.
            (None, Some(error)) => condition.unmet_because(NO_CERTIFICATE, error),
            (None, None) => condition.unmet(NO_CERTIFICATE),
        }
        let ended = tokio::select! {
            renewed = svid.changed() => renewed.is_err(),
            told = status.changed() => told.is_err(),
        };
        if ended {
            return;
        }
    }
}

fn expiry(svid: &Svid) -> i64 {
    let since_1970 = svid.not_after().duration_since(UNIX_EPOCH).unwrap_or_default();
    since_1970.as_secs() as i64
}

/// The kernel side's counters, read at each scrape. The attachment itself lives on in its pins.
pub(super) fn kernel_counters(observer: &Observer, kernel: Kernel) {
    observer.kernel_counters(move || kernel.session().counters());
}

/// The configuration in force, for the admin endpoint. Whoever is not the owner sees no name of a file and not the
/// authority: nothing that helps to get at a secret. The admin socket's name is no secret, and its mode guards it.
pub(super) fn shown_config(config: &Config, caller: Caller) -> serde_json::Value {
    let is_owner = caller == Caller::Owner;
    let mut shown = json!({
        "workload": {
            "name": config.name,
            "identity": config.identity.id,
            "addresses": config.addresses,
        },
        "mode": match config.mode { Mode::Permissive => "permissive", Mode::Strict => "strict" },
        "outbound": match config.unknown { Unknown::PassThrough => "passthrough", Unknown::Refuse => "registry-only" },
        "identity": shown_source(&config.identity.source, is_owner),
        "interception": config.datapath.as_ref().map_or_else(|| json!("none"), |d| json!({
            "allowWholeHost": d.allow_whole_host,
        })),
        "listen": {
            "hbone": config.intercept.hbone_port,
            "status": config.observe.status_port,
            "admin": config.observe.admin,
            "adminSocket": config.observe.admin_socket.as_ref().map(|socket| &socket.path),
        },
        "workers": config.workers,
        "drain": {
            "minimum": humantime::format_duration(config.stop.minimum).to_string(),
            "deadline": humantime::format_duration(config.stop.deadline).to_string(),
        },
        "lifetime": match config.stop.lifetime { Lifetime::Signal => "signal", Lifetime::Application => "application" },
        "halfClosed": humantime::format_duration(config.half_closed).to_string(),
    });
    if is_owner {
        shown["registry"] = match &config.discovery {
            Source::File(config) => json!(config.file),
            Source::Agent => json!("agent"),
            Source::Control => json!("control"),
        };
        if let Some(d) = &config.datapath {
            shown["interception"]["cgroup"] = json!(d.cgroup);
            shown["interception"]["netns"] = json!(d.netns);
            shown["interception"]["pins"] = json!(d.pins);
            shown["interception"]["policy"] = json!(config.interception_policy);
        }
    }
    shown
}

fn shown_source(source: &identity::Source, is_owner: bool) -> serde_json::Value {
    match source {
        identity::Source::Authority(ask) => {
            let mut shown = json!({
                "ttl": humantime::format_duration(ask.ttl).to_string(),
                "refresh": humantime::format_duration(ask.refresh).to_string(),
            });
            if is_owner {
                shown["authority"] = json!(ask.authority);
                shown["serverName"] = json!(ask.server_name);
                shown["roots"] = json!(ask.roots);
                shown["token"] = json!(ask.token);
            }
            shown
        }
        identity::Source::Files(files) if is_owner => json!({ "bundle": files.bundle, "roots": files.roots }),
        identity::Source::Files(_) => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::model::SpiffeId;

    fn svid() -> Arc<Svid> {
        use rcgen::{
            BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
        };
        let root_key = KeyPair::generate().unwrap();
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let root_pem = root.self_signed(&root_key).unwrap().pem();
        let id = SpiffeId::new("td.test", "demo", "web").unwrap();
        let key = identity::Key::generate().unwrap();
        let request = key.request(&id).unwrap();
        let mut request = CertificateSigningRequestParams::from_pem(&request).unwrap();
        request.params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        request.params.extended_key_usages = vec![
            rcgen::ExtendedKeyUsagePurpose::ServerAuth,
            rcgen::ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let leaf = request.signed_by(&Issuer::new(root, root_key)).unwrap().pem();
        Arc::new(Svid::from_answer(&id, &key, &[leaf, root_pem], SystemTime::now()).unwrap())
    }

    fn status(failures: u32) -> identity::Status {
        identity::Status {
            failures,
            last_error: (failures > 0).then(|| "cannot read /run/token".into()),
            next_attempt: None,
            obtained: None,
        }
    }

    /// Lets the watcher look; it waits again when nothing is left to be done.
    async fn settle() {
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn certificates_and_failures_are_counted_truly_and_none_has_no_expiry() {
        let observer = Observer::new();
        let meters = observer.meters();
        let (svid_out, svid_in) = watch::channel(None);
        let (status_out, status_in) = watch::channel(status(0));
        let condition = Conditions::new(&observer).identity;
        tokio::spawn(certificate(observer.clone(), svid_in, status_in, condition));
        settle().await;
        assert_eq!(meters.identity_expiry.get(), 0);
        let mut last = svid();
        // Both at once, as a renewal publishes them: either may wake the watcher.
        for _ in 0..20 {
            last = svid();
            status_out.send_replace(status(0));
            svid_out.send_replace(Some(last.clone()));
            settle().await;
        }
        assert_eq!(meters.identity_renewals.get(), 20);
        assert_eq!(meters.identity_expiry.get(), expiry(&last));
        for failures in 1..=20 {
            status_out.send_replace(status(failures));
            // Something else that happens to the certificate in the same moment.
            svid_out.send_replace(Some(last.clone()));
            settle().await;
        }
        assert_eq!(meters.identity_renewal_errors.get(), 20);
        assert_eq!(meters.identity_renewals.get(), 20, "none was new");
        svid_out.send_replace(None);
        settle().await;
        assert_eq!(meters.identity_expiry.get(), 0);
    }
}
