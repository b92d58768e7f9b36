//! Interception over time: whether connections are seen to get to this proxy, and the policy, from its file into the kernel
//! and into the meters.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::config::Config;
use super::kernel::Kernel;
use super::privileges::Asking;
use super::proving::{self, Found, Nonces};
use crate::datapath::policy::{Error, PolicyFile, Status};
use crate::datapath::{Family, Foreign, Neighbours, Order, Ownership, Proof, Unseen};
use crate::error_chain;
use crate::observe::{Condition, Observer};
use crate::policy::Mode;

/// Between two looks while all is well: six connections over loopback, less than a millisecond of CPU. So long may a proxy go
/// on calling itself ready that is not; a kubelet asks every 10 s.
const INTERVAL: Duration = Duration::from_secs(5);
/// Between two looks while it is not. The process may be moved into the pod's cgroup yet, or another proxy attach.
const UNPROVEN: Duration = Duration::from_secs(1);

/// Looks go on until this is dropped.
#[derive(Default)]
pub(super) struct Proving(#[expect(dead_code, reason = "it is dropped, not used")] Option<Sender<()>>);

/// The condition is met while connections are seen to get to this proxy by way of the programs. Without programs it is met
/// where nobody relies on them. A thread of its own looks, because connect() blocks; nobody waits for its end.
pub(super) fn prove(
    kernel: Option<&Kernel>,
    around: Option<Asking>,
    mode: Mode,
    condition: Condition,
    nonces: Nonces,
    observer: &Observer,
) -> io::Result<Proving> {
    match kernel {
        Some(kernel) => {
            let mut prover = Prover {
                proof: kernel.session().proof(),
                nonces,
                condition,
                observer: observer.clone(),
                standing: Standing::New,
                around,
                neighbours: Neighbours::default(),
            };
            let (keep, kept) = channel::<()>();
            thread::Builder::new().name("prover".into()).spawn(move || {
                loop {
                    let Some(pause) = prover.look() else {
                        return;
                    };
                    if kept.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                }
            })?;
            return Ok(Proving(Some(keep)));
        }
        None if mode == Mode::Strict => {
            let reason = "nothing is intercepted (`interception: none`), so plaintext passes the proxy by; `mode: strict` \
                          forbids that";
            tracing::warn!("{reason}: this proxy does not become ready");
            condition.unmet(reason);
        }
        None => condition.met(),
    }
    Ok(Proving::default())
}

struct Prover {
    proof: Proof,
    nonces: Nonces,
    condition: Condition,
    observer: Observer,
    standing: Standing,
    /// `None`: it is the agent who may ask.
    around: Option<Asking>,
    neighbours: Neighbours,
}

/// What the last look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    New,
    Unproven,
    Proven,
}

const LOST: &str = "connections do not get to this proxy by way of the kernel programs; its log and the admin socket's \
                    /readyz say which";
const CHANGING: &str = "another proxy is taking this pod over";
const SUPERSEDED: &str = "another proxy has taken this pod over";

impl Prover {
    /// Answers when to look again; `None`: another proxy has the pod, and dials nonces of its own.
    fn look(&mut self) -> Option<Duration> {
        match self.proof.ownership() {
            Ownership::Ours => {}
            Ownership::Changing => {
                // The other one may end before it has the pod. Until then what was found last is all that is known.
                tracing::debug!("{CHANGING}: interception is not tried meanwhile");
                return Some(UNPROVEN);
            }
            Ownership::Lost => {
                tracing::info!("{SUPERSEDED}: this one is not ready any more");
                self.condition.unmet(SUPERSEDED);
                self.show_none();
                return None;
            }
        }
        self.look_around();
        let seen = match self.standing {
            // Nonces say as much, and not what is wrong.
            Standing::Proven => Ok(()),
            _ => self.proof.see(),
        };
        self.standing = match seen.and_then(|()| proving::look(&self.proof, &self.nonces)) {
            Ok(Some(found)) => self.judge(&found),
            Ok(None) => return Some(UNPROVEN),
            Err(_) if self.proof.ownership() != Ownership::Ours => return Some(UNPROVEN),
            Err(unseen) => self.unseen(&unseen),
        };
        Some(match self.standing {
            Standing::Proven => INTERVAL,
            Standing::New | Standing::Unproven => UNPROVEN,
        })
    }

    /// Who else is attached, told when it changes.
    fn look_around(&mut self) {
        let neighbours = match self.around.as_ref().and_then(Asking::ask) {
            None => return,
            Some(Ok(neighbours)) => neighbours,
            Some(Err(error)) => {
                // The cgroup is gone, which the nonces notice, or a right was given up.
                tracing::debug!(error = error_chain(&error), "nobody tells who else is attached");
                return;
            }
        };
        for order in [Order::Before, Order::After] {
            let count = neighbours.foreign.iter().filter(|one| one.order == order).count();
            let gauge = self.observer.meters().foreign_programs.of(order.name());
            gauge.set(count as i64);
        }
        for one in &neighbours.foreign {
            if !self.neighbours.foreign.contains(one) {
                tell(one);
            }
        }
        self.neighbours = neighbours;
    }

    fn judge(&self, found: &[Found]) -> Standing {
        for one in found {
            self.show(one.direction.name(), one.family, one.is_proven);
        }
        let lost: Vec<String> = found
            .iter()
            .filter(|one| !one.is_proven)
            .map(|one| format!("{} {}", one.direction.name(), one.family.name()))
            .collect();
        if lost.is_empty() {
            if self.standing == Standing::Unproven {
                tracing::info!("the kernel programs bring connections to this proxy now");
            }
            self.condition.met();
            return Standing::Proven;
        }
        let lost = lost.join(", ");
        if self.standing != Standing::Unproven {
            tracing::error!(
                %lost, not_attached = self.neighbours.missing.join(", "),
                "not ready: connections that this proxy dials itself do not get back to it by way of the kernel programs; \
                 restart it to attach them again, after looking who has taken them off (outrigger detach), has \
                 attached others before them (outrigger check), or has removed the cgroup"
            );
        }
        self.condition.unmet_because(LOST, lost);
        Standing::Unproven
    }

    fn unseen(&self, unseen: &Unseen) -> Standing {
        if let (Unseen::Io { source }, Standing::Proven) = (unseen, self.standing) {
            tracing::debug!(error = %source, "interception could not be tried; what was proven is still believed");
            return Standing::Proven;
        }
        if self.standing == Standing::New {
            tracing::error!(error = %unseen, "not ready, and every connection of the pod is refused");
        }
        self.show_none();
        self.condition.unmet(unseen.reason());
        Standing::Unproven
    }

    fn show_none(&self) {
        for family in Family::ALL {
            if self.proof.has(family) {
                self.show("outbound", family, false);
                self.show("inbound", family, false);
            }
        }
    }

    fn show(&self, direction: &'static str, family: Family, is_proven: bool) {
        let labels = [("direction", direction), ("family", family.name())];
        let gauges = &self.observer.meters().interception_proven;
        gauges.get_or_create(&labels).set(is_proven.into());
    }
}

fn tell(one: &Foreign) {
    let (program, hook, name) = (one.id, one.hook, one.name.as_str());
    match one.order {
        Order::Before => tracing::warn!(
            program,
            name,
            hook,
            "a program of another owner runs before this proxy's: what it refuses or changes is refused or changed \
             already when the proxy gets it; attach it to a cgroup above the pod's to have it run after"
        ),
        Order::After | Order::Alone => tracing::info!(
            program,
            name,
            hook,
            "a program of another owner runs after this proxy's, and sees redirected connections go to loopback"
        ),
    }
}

/// Reads the policy, which has to be good at start: the datapath is attached with it.
pub(super) fn open(config: &mut Config) -> Result<Option<PolicyFile>, Error> {
    let Some(path) = &config.interception_policy else {
        return Ok(None);
    };
    let file = PolicyFile::open(path)?;
    if let Some(datapath) = &mut config.datapath {
        datapath.policy = file.policy().clone();
    }
    Ok(Some(file))
}

/// Follows the file from now on, in the background, until the answer is dropped. A proxy that drains has to: the next
/// one may be writing the same maps.
#[must_use]
pub(super) fn follow(file: Option<PolicyFile>, kernel: Option<&Kernel>, observer: &Observer) -> JoinSet<()> {
    let mut following = JoinSet::new();
    if let (Some(file), Some(kernel)) = (file, kernel) {
        let (status, follow) = file.follow(kernel.session().policy());
        following.spawn(async {
            follow.await;
        });
        following.spawn(count(observer.clone(), status));
    }
    following
}

async fn count(observer: Observer, mut status: watch::Receiver<Status>) {
    let mut failures = 0;
    loop {
        {
            let status = status.borrow_and_update();
            let meters = observer.meters();
            meters.interception_generation.set(status.generation as i64);
            meters
                .interception_reload_errors
                .inc_by(status.failures - failures);
            failures = status.failures;
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}
