//! WHO AM I? The workload's key and certificate, where they come from and when they are renewed.
//!
//! It does not open mesh connections (`transport/` does, with the [`Svid`] it is given) and does not judge
//! peers. Read `keep.rs` first: it is the life of a certificate.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use tokio::net::UnixStream;

use crate::model::SpiffeId;

mod answer;
mod bad_answer;
mod bundle;
mod chain;
mod client;
mod contain;
mod files;
mod follow;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod keep;
mod schedule;
mod svid;
mod wait;

pub use bad_answer::BadAnswer;
pub use keep::keep;
pub use svid::{Key, Svid};

/// Done to each socket before it connects: flags it as the proxy's own, so that it is not redirected to the proxy.
pub type Mark = Arc<dyn Fn(BorrowedFd<'_>) -> io::Result<()> + Send + Sync>;

/// Opens a stream at which the agent of this node serves the certificate service.
pub type Open = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<UnixStream>> + Send>> + Send + Sync>;

/// How the authority is reached.
#[derive(Clone)]
pub enum Way {
    /// Over the network, by TLS.
    Network(Mark),
    /// Through the agent of this node, where [`Ask::authority`] is [`AGENT`].
    Agent(Open),
}

/// The word for the agent of this node, in the place of a URL.
pub const AGENT: &str = "agent";

#[derive(Clone, Debug)]
pub struct Config {
    pub id: SpiffeId,
    pub source: Source,
}

/// Where certificates come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// An authority that is asked for each.
    Authority(Ask),
    /// Files that somebody else renews in time, as a kubelet does.
    Files(Files),
}

#[derive(Clone, Debug)]
pub struct Ask {
    /// `https://host:port` of the Istio certificate service, or [`AGENT`].
    pub authority: String,
    /// The name its certificate must carry; the host of `authority` when absent.
    pub server_name: Option<String>,
    /// PEM bundle that its certificate must chain to. Empty where the agent is asked.
    pub roots: PathBuf,
    /// Bootstrap token file, read again on every call.
    pub token: PathBuf,
    /// The cluster that the token is of, for an authority that knows several.
    pub cluster: String,
    /// The life asked for.
    pub ttl: Duration,
    /// The longest time until the authority is asked again: so long may news of its roots take.
    pub refresh: Duration,
}

#[derive(Clone, Debug)]
pub struct Files {
    /// A key in PKCS#8 and the chain of its certificate, the leaf first, in PEM.
    pub bundle: PathBuf,
    /// The roots of the mesh in PEM.
    pub roots: PathBuf,
}

/// How renewal stands, for the admin endpoint. It holds no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Failures since the last success.
    pub failures: u32,
    /// Why the last attempt failed, with its causes; `None` after a success.
    pub last_error: Option<String>,
    /// When the next attempt is made at the latest; `None` before the first has ended.
    pub next_attempt: Option<SystemTime>,
    /// The last certificate that came, be it that it has expired since.
    pub obtained: Option<Obtained>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obtained {
    pub at: SystemTime,
    pub not_after: SystemTime,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("identity.authority: `{value}` {reason}; write https://host:port")]
    Authority { value: String, reason: &'static str },
    #[error("identity.clusterId: `{value}` is no name of a cluster; write letters, digits, `.`, `-` and `_`")]
    Cluster { value: String },
    #[error("identity.{field}: cannot read {}; {remedy}", path.display())]
    Read {
        field: &'static str,
        path: PathBuf,
        remedy: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("identity.{field}: {} {reason}; {remedy}", path.display())]
    Content {
        field: &'static str,
        path: PathBuf,
        reason: String,
        remedy: &'static str,
    },
    #[error("cannot make a key or a request")]
    Key {
        #[source]
        source: rcgen::Error,
    },
    #[error(
        "cannot reach the authority {authority}; see that it runs, and that its certificate names `{server_name}` and chains to {}", roots.display()
    )]
    Connect {
        authority: String,
        server_name: String,
        roots: PathBuf,
        #[source]
        source: tonic::transport::Error,
    },
    #[error(
        "the agent of this node cannot be asked for a certificate; see that `outrigger agent` runs on it, with `control.url` set"
    )]
    Agent {
        #[source]
        source: tonic::transport::Error,
    },
    #[error(
        "the authority {authority} did not {stage} within {limit:?}; see that it runs and is not overloaded"
    )]
    TimedOut {
        authority: String,
        stage: &'static str,
        limit: Duration,
    },
    #[error("the authority {authority} refused: {code:?}: {message}; {remedy}")]
    Refused {
        authority: String,
        code: tonic::Code,
        message: String,
        remedy: String,
    },
    #[error("the authority {authority} answered with a certificate that cannot be used")]
    Answer {
        authority: String,
        #[source]
        source: BadAnswer,
    },
    #[error("the certificate in {} cannot be used with the roots in {}", bundle.display(), roots.display())]
    Files {
        bundle: PathBuf,
        roots: PathBuf,
        #[source]
        source: BadAnswer,
    },
    #[error("a bug was met while a certificate was asked for; the log has it as `panicked at`")]
    Bug,
}

impl Status {
    /// The last certificate that came, now that an attempt has ended: with one that lives until `not_after`, or with none.
    fn after(&self, not_after: Option<SystemTime>, at: SystemTime) -> Option<Obtained> {
        let obtained = not_after.map(|not_after| Obtained { at, not_after });
        obtained.or(self.obtained)
    }
}

impl Config {
    /// Certificates are asked for through the agent of this node.
    pub fn is_agents(&self) -> bool {
        matches!(&self.source, Source::Authority(ask) if ask.is_agents())
    }
}

impl Ask {
    pub fn is_agents(&self) -> bool {
        self.authority == AGENT
    }
}

impl Error {
    /// It was found out without asking anyone, so looking again soon burdens nobody.
    fn is_local(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::Content { .. })
    }
}

/// Made once: each one is a set of lists.
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| rustls::crypto::aws_lc_rs::default_provider().into());
