//! SINKS: metrics, the record of flows, the admin and status endpoints.
//!
//! Only roles call this. It decides nothing about traffic, opens no listener but the admin's unix socket, and
//! never makes the data path wait: what a reader is too slow for is dropped, and said so.
//!
//! One flow's way through: [`ShardObserver::open`] → [`OpenFlow::update`]… → [`OpenFlow::close`]. The walk owns the
//! [`OpenFlow`]; losing it records the flow as shut down by us, so each flow is recorded exactly once.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

mod admin;
mod ageing;
mod decided;
mod doors;
mod endpoints;
mod exposition;
mod figures;
mod filter;
mod following;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod http;
mod identity;
mod label_table;
mod labels;
mod leg_report;
mod listing;
mod meters;
mod node;
mod node_api;
mod node_status;
mod observer;
mod of_pod;
mod open_flows;
mod past;
mod pods;
mod policies;
mod process;
mod readiness;
mod renderer;
mod report;
mod ring;
mod series;
mod series_table;
mod shard;
mod sight;
mod socket;
mod standing;
mod status;
#[cfg(test)]
mod tests;
mod tls_listener;
mod watch;
mod why;

pub use admin::{Admin, Explain, Listeners, LogLevel, SetLevel, serve_admin};
pub use decided::DecisionReport;
pub use endpoints::{
    DialFailureReport, EndpointList, EndpointReport, EndpointsQuestion, RegistryReport, ServiceReport, Sought,
};
pub use figures::Figure;
pub use filter::{FlowFilter, Query as FlowQuery, State as FlowState, cause_names, misfit};
pub use http::{Caller, PIECE, Pieces};
pub use identity::{CertificateReport, IdentityReport, SourceReport, Validity};
pub use leg_report::{LegReport, LegReports};
pub use listing::ListText;
pub use meters::{By, Meters};
pub use node::{AnswerTo, Asked, NodeAdmin, Reply, serve_node};
pub use node_api::{AnswerCaller, Bearer, NodeApi, serve_node_api};
pub use node_status::{InterceptedPod, MapFill, NodeStatus, OtherProgram, PodCounts};
pub use observer::{FlowHandle, Limits, Observer, OpenFlow, ShardObserver};
pub use of_pod::OfPod;
pub use pods::{PodExplanation, PodList, PodStatus, Problem, Summary};
pub use policies::{PoliciesQuestion, PolicyReport, PolicySource, PolicyStanding, PolicyVerdict};
pub use readiness::{Condition, Readiness};
pub use report::{FlowList, FlowReport, FlowsSince, TlsReport, WatchEvent};
pub use sight::{AnswerPolicies, Sight};
pub use socket::{AdminSocket, Shared as SharedSocket};
pub use status::serve_status;
pub use why::{Protocol, Question, RuleReport, WhyReport};

#[derive(Clone, Debug)]
pub struct Config {
    /// Loopback address of the admin endpoint, which answers questions there.
    pub admin: Option<SocketAddr>,
    /// The unix socket of the same endpoint, where changes are taken too.
    pub admin_socket: Option<SocketPath>,
    /// Port of `/metrics` and the probes, on every address.
    pub status_port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPath {
    pub path: PathBuf,
    /// Somebody wrote it down, so the proxy does not start without it. Otherwise it does, where the directory cannot be
    /// made or another proxy of this host has the socket.
    pub is_required: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on the admin socket {}: {reason}", path.display())]
    AdminSocket {
        path: PathBuf,
        reason: &'static str,
        #[source]
        source: Option<io::Error>,
    },
    #[error("cannot use the {endpoint} listener in the runtime")]
    Listener {
        endpoint: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the admin endpoint may listen on loopback only, not on {address}: it shows every flow")]
    NotLoopback { address: SocketAddr },
}

/// Locks even after a panic in another holder: every value here is a plain record that stays valid.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
