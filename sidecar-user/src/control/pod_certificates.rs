//! Signs what kubelets ask for in the API server's own way, where it has one: PodCertificateRequests to our signer, and the roots in
//! a ClusterTrustBundle beside them. Whether it has one is looked at again and again, because a cluster is upgraded under us.
//!
//! Decides nothing: what is signed is `issuer/`, what is next is `queue.rs`. Any number of replicas may do this at the same time:
//! the API server takes one answer to each request.

mod queue;
mod stats;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use self::queue::{Outcome, Queue};
pub(super) use self::stats::Stats;
use super::roots::{Elsewhere, Roots};
use crate::error_chain;
use crate::issuer::{PodCertificate, PodKey, PodRefusal, PodRequest};
use crate::kubernetes::{
    CertificateKinds, Change, Client, PodCertificateRequest, Published, RequestedKey, SIGNER, Served,
    Settled, TRUST_BUNDLE, Verdict, certificate_kinds, find_trust_bundle, pod_certificate_requests,
    publish_trust_bundle, settle,
};

/// Answers under way. A node that restarts asks for 110 certificates at once, and each costs the API server a write.
const WIDTH: usize = 16;
/// Of one call.
const CALL_TIME: Duration = Duration::from_secs(10);
/// Of an answer, in characters; what the API server says may quote all that it was sent.
const LONGEST_MESSAGE: usize = 1000;
/// How often it is looked at whether the API server has other versions than before.
const LOOK: Duration = Duration::from_secs(300);
/// The same where it could not be asked.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How often the roots are compared with those that were published, and how often those with what the API server has.
const ROOTS_LOOK: Duration = Duration::from_secs(5);
const BUNDLE_LOOK: Duration = Duration::from_secs(60);

/// What an answer needs.
#[derive(Clone)]
struct Signer {
    client: Client,
    roots: Arc<Roots>,
    stats: Arc<Stats>,
}

/// Never ends. Tells which roots it has published.
pub(super) async fn run(
    client: Client,
    roots: Arc<Roots>,
    stats: Arc<Stats>,
    published: watch::Sender<Elsewhere>,
) -> Infallible {
    let signer = Signer { client, roots, stats };
    let mut known: Option<CertificateKinds> = None;
    loop {
        let kinds = match look(&signer.client).await {
            Ok(kinds) => kinds,
            Err(error) => {
                warn!(
                    error,
                    "the API server cannot be asked whether it has pod certificates"
                );
                sleep(LOOK_AGAIN).await;
                continue;
            }
        };
        if known.as_ref() != Some(&kinds) {
            tell(&kinds);
        }
        signer.stats.offered(kinds.pod_certificate_requests.is_some());
        known = Some(kinds.clone());
        if kinds.trust_bundles.is_none() {
            published.send_replace(Elsewhere::Nowhere);
        }
        tokio::select! {
            never = signer.sign(kinds.pod_certificate_requests.as_ref()) => match never {},
            never = signer.publish(kinds.trust_bundles.as_ref(), &published) => match never {},
            () = other(&signer.client, &kinds) => {}
        }
    }
}

fn tell(kinds: &CertificateKinds) {
    let version = |served: &Option<Served>| served.as_ref().map_or("none", Served::version).to_owned();
    info!(
        signer = SIGNER,
        pod_certificate_requests = version(&kinds.pod_certificate_requests),
        trust_bundles = version(&kinds.trust_bundles),
        "what this API server has of pod certificates"
    );
}

/// Completes when the API server has other versions.
async fn other(client: &Client, known: &CertificateKinds) {
    loop {
        sleep(LOOK).await;
        if look(client).await.is_ok_and(|kinds| kinds != *known) {
            return;
        }
    }
}

async fn look(client: &Client) -> Result<CertificateKinds, String> {
    let looked = timeout(CALL_TIME, certificate_kinds(client)).await;
    looked.unwrap_or_else(|_| Err(late()))
}

fn late() -> String {
    format!("no answer within {CALL_TIME:?}")
}

impl Signer {
    async fn sign(&self, served: Option<&Served>) -> Infallible {
        let Some(served) = served else {
            return std::future::pending().await;
        };
        loop {
            self.sign_listed(served).await;
        }
    }

    /// Ends when everything is to be listed again.
    async fn sign_listed(&self, served: &Served) {
        let mut changes = std::pin::pin!(pod_certificate_requests(&self.client, served, SIGNER));
        let (mut queue, mut answers) = (Queue::default(), JoinSet::new());
        while !queue.is_to_be_listed_again() {
            while answers.len() < WIDTH
                && let Some(request) = queue.next(Instant::now())
            {
                let (signer, served) = (self.clone(), served.clone());
                answers.spawn(async move {
                    let outcome = signer.answer(&served, &request).await;
                    (request.uid, outcome)
                });
            }
            self.stats.waiting(queue.len());
            // Where all places are taken, one that becomes free is what is waited for.
            let wake = queue.wake().filter(|_| answers.len() < WIDTH);
            let delayed = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                change = changes.next() => match change {
                    Some(Change::Trouble(error)) => {
                        warn!(error, "the requests for pod certificates cannot be followed; those that wait go on waiting");
                    }
                    Some(change) => queue.apply(change),
                    None => return,
                },
                Some(answered) = answers.join_next() => match answered {
                    Ok((uid, outcome)) => queue.ended(&uid, outcome, Instant::now()),
                    // A bug, which the process's hook for panics has told of. Its request is listed again.
                    Err(_) => return sleep(LOOK_AGAIN).await,
                },
                () = delayed => {}
            }
        }
    }

    async fn answer(&self, served: &Served, request: &PodCertificateRequest) -> Outcome {
        let now = SystemTime::now();
        let asked = PodRequest {
            namespace: &request.namespace,
            service_account: &request.service_account,
            key: match &request.key {
                RequestedKey::Request(der) => PodKey::Request(der),
                RequestedKey::Key(der) => PodKey::Key(der),
            },
            longest: request.longest,
            annotations: &request.annotations,
        };
        let chance = fastrand::f64();
        match self.roots.service().store().issue_for_pod(&asked, now, chance) {
            Ok(signed) => self.issue(served, request, signed, now).await,
            Err(PodRefusal::Denied { reason, message }) => {
                let verdict = Verdict::Denied { reason, message };
                self.refuse(served, request, verdict, now).await
            }
            Err(PodRefusal::Failed { reason, message }) => {
                let verdict = Verdict::Failed { reason, message };
                self.refuse(served, request, verdict, now).await
            }
            Err(error @ PodRefusal::NotNow(_)) => {
                error!(
                    error = error_chain(&error),
                    "pod certificates cannot be signed; their requests wait"
                );
                self.stats.trouble();
                Outcome::Failed
            }
        }
    }

    async fn issue(
        &self,
        served: &Served,
        request: &PodCertificateRequest,
        signed: PodCertificate,
        now: SystemTime,
    ) -> Outcome {
        let PodCertificate {
            identity,
            issued,
            not_before,
            refresh_at,
        } = signed;
        let verdict = Verdict::Issued {
            chain: issued.pem,
            not_before,
            not_after: issued.not_after,
            refresh_at,
        };
        match self.write(served, request, &verdict, now).await {
            Settled::Taken => {
                self.stats.issued();
                // A record, which no limit on the lines of a place cuts short.
                info!(
                    target: "outrigger::audit",
                    %identity,
                    serial = issued.serial,
                    not_after = %humantime::format_rfc3339_seconds(issued.not_after),
                    pod = %format_args!("{}/{}", request.namespace, request.pod),
                    node = request.node,
                    request = request.name,
                    "certificate issued"
                );
                Outcome::Settled
            }
            // What was signed is nobody's.
            Settled::Rejected(message) => {
                let verdict = Verdict::Failed {
                    reason: "Rejected",
                    message: message.chars().take(LONGEST_MESSAGE).collect(),
                };
                self.refuse(served, request, verdict, now).await
            }
            other => self.missed(request, other),
        }
    }

    async fn refuse(
        &self,
        served: &Served,
        request: &PodCertificateRequest,
        verdict: Verdict,
        now: SystemTime,
    ) -> Outcome {
        let (is_denied, reason, message) = match &verdict {
            Verdict::Issued { .. } => return Outcome::Settled,
            Verdict::Denied { reason, message } => (true, *reason, message.clone()),
            Verdict::Failed { reason, message } => (false, *reason, message.clone()),
        };
        match self.write(served, request, &verdict, now).await {
            Settled::Taken => {
                self.stats.refused(is_denied);
                warn!(
                    pod = %format_args!("{}/{}", request.namespace, request.pod),
                    service_account = request.service_account,
                    node = request.node,
                    reason,
                    fault = message,
                    "certificate refused"
                );
                Outcome::Settled
            }
            other => self.missed(request, other),
        }
    }

    fn missed(&self, request: &PodCertificateRequest, settled: Settled) -> Outcome {
        match settled {
            Settled::Taken => Outcome::Settled,
            Settled::Changed => {
                self.stats.conflict();
                Outcome::Changed
            }
            Settled::Rejected(error) | Settled::Trouble(error) => {
                self.stats.trouble();
                warn!(
                    request = %format_args!("{}/{}", request.namespace, request.name),
                    error,
                    "the API server does not take an answer; tried again"
                );
                Outcome::Failed
            }
        }
    }

    async fn write(
        &self,
        served: &Served,
        request: &PodCertificateRequest,
        verdict: &Verdict,
        now: SystemTime,
    ) -> Settled {
        let written = timeout(CALL_TIME, settle(&self.client, served, request, verdict, now)).await;
        written.unwrap_or_else(|_| Settled::Trouble(late()))
    }

    /// Keeps the roots where pods project them from.
    async fn publish(&self, served: Option<&Served>, published: &watch::Sender<Elsewhere>) -> Infallible {
        let Some(served) = served else {
            return std::future::pending().await;
        };
        let mut last: Option<(String, Instant)> = None;
        loop {
            let roots = self.roots.service().store().current().bundle().to_owned();
            let is_fresh = |(last, at): &(String, Instant)| *last == roots && at.elapsed() < BUNDLE_LOOK;
            if last.as_ref().is_some_and(is_fresh) {
                sleep(ROOTS_LOOK).await;
                continue;
            }
            let publishing = self.publish_once(served);
            match timeout(CALL_TIME, publishing)
                .await
                .unwrap_or_else(|_| Err(late()))
            {
                Ok(Some(roots)) => {
                    published.send_replace(Elsewhere::Holds(roots.clone()));
                    last = Some((roots, Instant::now()));
                }
                Ok(None) => sleep(ROOTS_LOOK).await,
                Err(error) => {
                    self.stats.bundle_trouble();
                    warn!(
                        name = TRUST_BUNDLE,
                        error, "the roots cannot be published for pods; tried again"
                    );
                    sleep(LOOK_AGAIN).await;
                }
            }
        }
    }

    /// What the bundle holds. `None`: another replica was faster, and the next look shows with what.
    async fn publish_once(&self, served: &Served) -> Result<Option<String>, String> {
        // The roots are read after it: whoever has written newer ones since then has changed it.
        let found = find_trust_bundle(&self.client, served, TRUST_BUNDLE).await?;
        let roots = self.roots.now().await?;
        let what = publish_trust_bundle(&self.client, served, TRUST_BUNDLE, found, SIGNER, &roots).await?;
        if let Some(what @ (Published::Made | Published::Changed)) = what {
            info!(name = TRUST_BUNDLE, ?what, "the roots are published for pods");
        }
        Ok(what.map(|_| roots))
    }
}

#[cfg(test)]
mod tests;
