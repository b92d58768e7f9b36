//! Who asks? By the token that a request carries, as one of two judges has it: the list of bootstrap tokens, or whoever reviews
//! tokens of a cluster (`control/callers`), which this room knows as a function only.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tracing::error;
use zeroize::Zeroizing;

use super::token::{Holder, Worth};
use super::{Refused, Tokens};
use crate::model::{AGENT_TOKEN, Caller, CallerKind};

/// For one review. A request has ten seconds in all.
const REVIEW_TIME: Duration = Duration::from_secs(8);

/// What a request carries.
pub struct Credentials {
    pub token: Zeroizing<String>,
    pub agent_token: Option<Zeroizing<String>>,
    /// Where it comes from.
    pub peer: Option<IpAddr>,
}

/// Who asks, and through whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proved {
    pub caller: Caller,
    /// Whose connection it is, where one asks for another.
    pub through: Option<Caller>,
}

/// Why nobody is known to ask, for the answer and for the count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    pub why: Refused,
    pub message: String,
}

pub type Review = Arc<
    dyn Fn(Credentials, SystemTime) -> Pin<Box<dyn Future<Output = Result<Proved, Doubt>> + Send>>
        + Send
        + Sync,
>;

pub enum Judge {
    Listed(Tokens),
    Reviewed(Review),
}

impl Judge {
    pub(super) async fn judge(&self, credentials: Credentials, now: SystemTime) -> Result<Proved, Doubt> {
        match self {
            Self::Listed(tokens) => listed(tokens, &credentials.token, now),
            Self::Reviewed(review) => match timeout(REVIEW_TIME, review(credentials, now)).await {
                Ok(judged) => judged,
                Err(_) => Err(Doubt::unavailable("the token could not be reviewed in time")),
            },
        }
    }
}

impl Proved {
    /// Whose connection it is, for the places that each may have.
    pub(super) fn place(&self) -> Arc<str> {
        let owner = self.through.as_ref().unwrap_or(&self.caller);
        match owner.kind {
            // Agents of all nodes have the same identity.
            CallerKind::Agent => owner.to_string().into(),
            // So have all replicas of a workload, each of which may keep a connection.
            CallerKind::Workload if owner.node.is_some() => owner.name.clone(),
            CallerKind::Workload => owner.identity.as_str().into(),
        }
    }
}

impl Doubt {
    pub(super) fn status(self) -> Status {
        match self.why {
            Refused::Unavailable => Status::unavailable(self.message),
            why if why.is_anyones() => Status::unauthenticated(self.message),
            _ => Status::permission_denied(self.message),
        }
    }

    pub fn new(why: Refused, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { why, message }
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Refused::Unavailable, message)
    }
}

impl Credentials {
    pub(super) fn read(metadata: &MetadataMap, peer: Option<IpAddr>) -> Result<Self, Doubt> {
        let refuse = |message: &str| Err(Doubt::new(Refused::NoToken, message));
        let Some(header) = metadata.get("authorization") else {
            return refuse("no authorization: send `Bearer` and a token");
        };
        let Some(token) = bearer(header.as_bytes()) else {
            return refuse("authorization: it is not `Bearer` and a token");
        };
        let agent_token = match metadata.get(AGENT_TOKEN) {
            None => None,
            Some(header) => match bearer(header.as_bytes()) {
                Some(token) => Some(token),
                None => return refuse("outrigger-agent-token: it is not `Bearer` and a token"),
            },
        };
        Ok(Self {
            token,
            agent_token,
            peer,
        })
    }
}

fn bearer(header: &[u8]) -> Option<Zeroizing<String>> {
    let (scheme, token) = std::str::from_utf8(header).ok()?.split_once(' ')?;
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    is_bearer.then(|| Zeroizing::new(token.trim().to_owned()))
}

fn listed(tokens: &Tokens, token: &str, now: SystemTime) -> Result<Proved, Doubt> {
    let refuse = |why, message: &str| Err(Doubt::new(why, message));
    match tokens.worth(token, now) {
        Ok(Worth::Good(Holder { identity, label })) => Ok(Proved {
            caller: Caller {
                identity,
                name: label,
                kind: CallerKind::Workload,
                node: None,
                addresses: Arc::default(),
            },
            through: None,
        }),
        Ok(Worth::Expired) => refuse(
            Refused::ExpiredToken,
            "the token has expired; make one: outrigger token create",
        ),
        Ok(Worth::Unknown) => refuse(
            Refused::UnknownToken,
            "the token is unknown or revoked; make one: outrigger token create",
        ),
        Err(error) => {
            error!(%error, "tokens cannot be checked");
            Err(Doubt::unavailable(
                "tokens cannot be checked; see the log of the authority",
            ))
        }
    }
}
