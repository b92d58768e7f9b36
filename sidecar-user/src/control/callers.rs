//! Whose is a token of a cluster, and may whoever shows it have what the pod may have? The API server says whose it is; the rules
//! are here.
//!
//! ```text
//!   token ─▶ for us, not expired ─▶ review ─▶ bound to a pod ─▶ the pod is there, on that node ─▶ holder
//!   holder of the pod's token and:  an agent's token of the same node  ─▶ the pod, through the agent
//!                                   or a peer at an address of the pod ─▶ the pod
//! ```
//!
//! So a node obtains certificates for pods that run on it, and for no others: a stolen token is of use where its pod runs.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Semaphore;

use crate::error_chain;
use crate::issuer::{Claims, Credentials, Doubt, Proved, Refused, Remembered, Review};
use crate::kubernetes::{self, Client, PodState, Reviewed, TOKEN_AUDIENCE, pod_state, review_token};
use crate::model::{Caller, CallerKind, SpiffeId};

/// Ours, and Istio's, so that its clients can be ours.
const AUDIENCES: [&str; 2] = [TOKEN_AUDIENCE, "istio-ca"];
/// Characters of what a token says of itself, in an answer.
const SHOWN: usize = 100;
/// Questions to the API server at a time; the others wait for their turn.
const AT_A_TIME: usize = 32;

/// Who is who in the cluster.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) trust_domain: String,
    /// Where Outrigger itself runs.
    pub(super) namespace: String,
    /// The service account of the agents there.
    pub(super) agent: String,
}

struct Callers {
    client: Client,
    names: Names,
    known: Remembered<Holder>,
    turns: Semaphore,
}

/// Whom a token was made for, and the pod as it was a moment ago.
#[derive(Clone, Debug)]
struct Holder {
    caller: Caller,
    node: Arc<str>,
}

/// By the API server that `client` asks.
pub(super) fn review(client: Client, names: Names) -> Review {
    let callers = Arc::new(Callers {
        client,
        names,
        known: Remembered::default(),
        turns: Semaphore::new(AT_A_TIME),
    });
    Arc::new(move |credentials, now| {
        let callers = callers.clone();
        Box::pin(async move { callers.prove(&credentials, now).await })
    })
}

impl Callers {
    async fn prove(&self, credentials: &Credentials, now: SystemTime) -> Result<Proved, Doubt> {
        let holder = self.holder(&credentials.token, now).await?;
        let agent = match &credentials.agent_token {
            Some(token) => Some(self.holder(token, now).await?),
            None => None,
        };
        let proved = decide(&holder, agent.as_ref(), credentials.peer);
        if proved.is_err() {
            // A pod gets its addresses, and may get a node, after its token was seen first.
            self.known.forget(&credentials.token);
        }
        proved
    }

    async fn holder(&self, token: &str, now: SystemTime) -> Result<Holder, Doubt> {
        let claims = check(token, now)?;
        if let Some(holder) = self.known.get(token, now) {
            return Ok(holder);
        }
        let _turn = self.turns.acquire().await;
        // Whoever had the turn before may have asked about the same one.
        if let Some(holder) = self.known.get(token, now) {
            return Ok(holder);
        }
        let reviewed = review_token(&self.client, token, &AUDIENCES).await;
        let reviewed = reviewed.map_err(|error| away(&error))?;
        let holder = self.accept(reviewed).await?;
        self.known.put(token, holder.clone(), claims.expires, now);
        Ok(holder)
    }

    async fn accept(&self, reviewed: Option<Reviewed>) -> Result<Holder, Doubt> {
        let refuse = |why, message: &str| Err(Doubt::new(why, message));
        let Some(reviewed) = reviewed else {
            return refuse(
                Refused::NotAuthentic,
                "the API server does not know the token, or its pod has gone",
            );
        };
        if !is_ours(&reviewed.audiences) {
            return refuse(
                Refused::OtherAudience,
                "the API server does not say that the token was made for audience outrigger",
            );
        }
        let (Some(account), Some(bound)) = (reviewed.account, reviewed.pod) else {
            return refuse(
                Refused::Unbound,
                "the token is bound to no pod: a projected token of a pod is needed",
            );
        };
        let pod = pod_state(&self.client, &account.namespace, &bound.name).await;
        let pod = pod.map_err(|error| away(&error))?;
        let Some(pod) = pod.filter(|pod| is_same(pod, &bound, &account.name)) else {
            return refuse(
                Refused::NoPod,
                "the pod that the token was made for is not there any more, or has ended",
            );
        };
        let identity = SpiffeId::new(&self.names.trust_domain, &account.namespace, &account.name);
        let identity = identity.map_err(|error| Doubt::new(Refused::ForeignDomain, error.to_string()))?;
        let is_agent = account.namespace == self.names.namespace && account.name == self.names.agent;
        let node: Arc<str> = bound.node.into();
        Ok(Holder {
            caller: Caller {
                identity,
                name: format!("{}/{}", account.namespace, bound.name).into(),
                kind: match is_agent {
                    true => CallerKind::Agent,
                    false => CallerKind::Workload,
                },
                node: Some(node.clone()),
                addresses: pod.addresses.into(),
            },
            node,
        })
    }
}

/// What can be said without asking anybody, so that junk costs the API server nothing.
fn check(token: &str, now: SystemTime) -> Result<Claims, Doubt> {
    let Some(claims) = Claims::of(token) else {
        return Err(Doubt::new(Refused::UnknownToken, "it is no token of a cluster"));
    };
    if claims.expires <= now {
        return Err(Doubt::new(Refused::ExpiredToken, "the token has expired"));
    }
    if !is_ours(&claims.audiences) {
        // Anyone can have written it.
        let made_for: String = claims.audiences.join(", ").chars().take(SHOWN).collect();
        let text = format!(
            "the token was made for `{}`: one for audience outrigger is needed",
            made_for.escape_default()
        );
        return Err(Doubt::new(Refused::OtherAudience, text));
    }
    Ok(claims)
}

fn is_ours(audiences: &[String]) -> bool {
    audiences
        .iter()
        .any(|audience| AUDIENCES.contains(&audience.as_str()))
}

/// A pod of the same name may have come in its place.
fn is_same(pod: &PodState, bound: &kubernetes::BoundPod, account: &str) -> bool {
    pod.uid == bound.uid && pod.node == bound.node && pod.account == account && !pod.is_finished
}

fn decide(holder: &Holder, agent: Option<&Holder>, peer: Option<IpAddr>) -> Result<Proved, Doubt> {
    let refuse = |why, message: String| Err(Doubt::new(why, message));
    let caller = holder.caller.clone();
    match agent {
        Some(agent) if agent.caller.kind != CallerKind::Agent => refuse(
            Refused::NoAgent,
            format!("{} asks for {}, and is no agent", agent.caller.name, caller.name),
        ),
        Some(agent) if agent.node != holder.node => refuse(
            Refused::OtherNode,
            format!(
                "{} runs on node {}, and {} asks for it",
                caller.name, holder.node, agent.caller
            ),
        ),
        Some(agent) => Ok(Proved {
            caller,
            through: Some(agent.caller.clone()),
        }),
        None if caller.kind == CallerKind::Agent
            || peer.is_some_and(|peer| caller.addresses.contains(&peer.to_canonical())) =>
        {
            Ok(Proved {
                caller,
                through: None,
            })
        }
        None => {
            let peer = peer.map_or("nowhere".into(), |peer| peer.to_canonical().to_string());
            let text = format!(
                "{} asks from {peer}, which is no address of it; ask from the pod, or through the agent of its node",
                caller.name
            );
            refuse(Refused::OtherNode, text)
        }
    }
}

fn away(error: &kubernetes::Error) -> Doubt {
    tracing::error!(error = error_chain(error), "tokens cannot be reviewed");
    Doubt::unavailable("tokens cannot be reviewed; see the log of the authority")
}

#[cfg(test)]
mod tests;
