//! Why a proxy could not be asked, or its answer not be shown. Each message says what to do.

use std::io;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "whom to ask? Give --address HOST:PORT or --unix PATH of a proxy's admin endpoint \
         (in a cluster: kubectl port-forward POD 15000, then --address 127.0.0.1:15000)"
    )]
    NoTarget,
    #[error(
        "pod {pod} cannot be asked by name yet: run kubectl port-forward {pod} 15000, \
         then give --address 127.0.0.1:15000"
    )]
    Pod { pod: String },
    #[error("{target} does not answer ({source}): is a proxy running there, and is this its admin endpoint?")]
    Unreachable {
        target: String,
        #[source]
        source: io::Error,
    },
    #[error("{target} answered {status}: {body}")]
    Refused {
        target: String,
        status: u16,
        body: String,
    },
    #[error(
        "{target} does not answer ({cause}): is the proxy running in this network namespace? \
         Name its admin endpoint by --address HOST:PORT or --unix PATH"
    )]
    NoProxy { target: String, cause: io::Error },
    #[error(
        "{target} does not answer ({cause}): is the proxy running, and is this its listen.adminSocket? \
         Name it by --unix PATH"
    )]
    NoSocket { target: String, cause: io::Error },
    #[error(
        "the proxy has not ended within {}: it is {phase}; wait longer, or send it another SIGTERM to cut what is open",
        humantime::format_duration(*.limit)
    )]
    NotDrained { limit: Duration, phase: String },
    #[error("{body}")]
    Unanswerable { body: String },
    #[error("{target} answered what is no explanation ({reason}): is it the admin endpoint of this version?")]
    NotWhy { target: String, reason: String },
    #[error("{target} answered what is no flow list ({reason}): is it the admin endpoint of this version?")]
    NotFlows { target: String, reason: String },
    #[error("{target} answered what is no list of pods ({reason}): is it the socket of a node's agent?")]
    NotPods { target: String, reason: String },
    #[error("{target} ended the stream: {reason}; start the command again")]
    Ended { target: String, reason: String },
    #[error("which image do sidecars run? Give --image IMAGE, or --profile FILE with `image: …`")]
    NoImage,
    #[error("{reason}")]
    File { reason: String },
    #[error(
        "nothing is printed, because a pod gets no sidecar; label one that is to run without it \
         outrigger.example/inject: disabled\n{reasons}"
    )]
    NotInjected { reasons: String },
    #[error("cannot write the output: {source}")]
    Output {
        #[source]
        source: io::Error,
    },
}

pub(super) fn unwritten(source: io::Error) -> Error {
    Error::Output { source }
}
