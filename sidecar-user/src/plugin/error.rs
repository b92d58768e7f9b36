//! Why a proxy could not be asked, or its answer not be shown. Each message says what to do.

use std::io;
use std::time::Duration;

use crate::kubernetes::{self, LABEL_INJECT, ROOTS, SYSTEM_NAMESPACE};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{reason}")]
    Usage { reason: String },
    #[error("the runtime cannot be started: {source}")]
    Runtime { source: io::Error },
    #[error(
        "{}; name a cluster by --kubeconfig or --context, or one endpoint by --unix or --address",
        source.told()
    )]
    Kubeconfig { source: kubernetes::Error },
    #[error(
        "the API server {server} cannot be reached ({}); is the cluster up, and is this the right --context?",
        source.told()
    )]
    ApiServerAway {
        server: String,
        source: kubernetes::Error,
    },
    #[error(
        "the API server {server} has not answered within {} s; is the cluster up, and is this the right --context?",
        patience.as_secs()
    )]
    ApiServerSilent { server: String, patience: Duration },
    #[error(
        "the API server {server} does not know you ({}); sign in again",
        source.told()
    )]
    SignIn {
        server: String,
        source: kubernetes::Error,
    },
    #[error(
        "you may not do what this takes: {}; an administrator grants it, for agents by the value plugin.subjects of the chart",
        source.told()
    )]
    NoRight { source: kubernetes::Error },
    #[error("{}", source.told())]
    ApiServer { source: kubernetes::Error },
    #[error("{body}")]
    Rights { body: String },
    #[error(
        "there is no pod {name} in the namespace {namespace}; kubectl get pods --namespace {namespace} lists those that there are"
    )]
    NoPod { name: String, namespace: String },
    #[error("there are no pods {of} {place}; kubectl get pods --show-labels lists those that there are")]
    NoPods { of: String, place: String },
    #[error("no pods are found by {maker} of the namespace {namespace}: {why}")]
    NothingMade {
        maker: String,
        namespace: String,
        why: &'static str,
    },
    #[error(
        "there is no Service {name} in the namespace {namespace}; kubectl get services --namespace {namespace} lists those that there are"
    )]
    NoService { name: String, namespace: String },
    #[error("the pod {pod} has no sidecar, so nothing is known of its connections: {why}")]
    NotMeshed { pod: String, why: String },
    #[error(
        "of {pods} pods none has a sidecar; kubectl label namespace NAMESPACE {LABEL_INJECT}=enabled gives new pods of a namespace one"
    )]
    NoneMeshed { pods: usize },
    #[error("{name} stands for several pods on several nodes; name one of them")]
    ManyPods { name: String },
    #[error(
        "no agent runs on the node {node}: new pods there do not start, and nobody remembers connections; kubectl --namespace \
         {SYSTEM_NAMESPACE} get daemonset,pods --output wide shows why, and kubectl outrigger check what is wrong"
    )]
    NoAgent { node: String },
    #[error(
        "no agent is in this cluster (namespace {SYSTEM_NAMESPACE}): is Outrigger installed there? kubectl outrigger check --pre says whether it can be"
    )]
    NoAgents,
    #[error(
        "the agent of the node {node} does not listen for people: is it of this version, with the value agent.api of the chart, and ready? It \
         may have just started. The kubelet says: {said}. kubectl --namespace {SYSTEM_NAMESPACE} logs {pod}"
    )]
    AgentAway { node: String, pod: String, said: String },
    #[error(
        "the agent of the node {node} has no certificate yet to prove itself by: is control running? kubectl --namespace {SYSTEM_NAMESPACE} \
         get pods, and logs {pod}"
    )]
    AgentUncertified { node: String, pod: String },
    #[error(
        "what answers on the node {node} has not proved to be its agent ({source}), so it was shown nothing: kubectl outrigger check"
    )]
    AgentUnproven { node: String, source: io::Error },
    #[error(
        "the ConfigMap {ROOTS} of the namespace {SYSTEM_NAMESPACE} has no roots to know agents by: is control running?"
    )]
    NoRoots,
    #[error(
        "the roots in the ConfigMap {ROOTS} of the namespace {SYSTEM_NAMESPACE} cannot be used: {reason}"
    )]
    BadRoots { reason: String },
    #[error("{} failed", if *failed == 1 { "1 check".into() } else { format!("{failed} checks") })]
    ChecksFailed { failed: usize },
    #[error(
        "{target} answered what is no state of a node ({reason}): is it a node's agent, of this version?"
    )]
    NotNode { target: String, reason: String },
    #[error(
        "there is no agent on a node {node}; kubectl outrigger intercept status lists the nodes that have one"
    )]
    NoNode { node: String },
    #[error("{failed} of {all} agents have not answered, so what is shown is not all")]
    Partly { failed: usize, all: usize },
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
    #[error("{target} answered what is no {what} ({reason}): is it the admin endpoint of this version?")]
    Unlike {
        target: String,
        what: &'static str,
        reason: String,
    },
    #[error("{target} ended the stream: {reason}; start the command again")]
    Ended { target: String, reason: String },
    #[error("the terminal cannot be used ({source}); --once prints the table without it")]
    Terminal {
        #[source]
        source: io::Error,
    },
    #[error("nobody whom this asked has answered")]
    NobodyAnswers,
    #[error("which image do sidecars run? Give --image IMAGE, or --profile FILE with `image: …`")]
    NoImage,
    #[error("{reason}")]
    File { reason: String },
    #[error(
        "nothing is printed, because a pod gets no sidecar; label one that is to run without it \
         {LABEL_INJECT}: disabled\n{reasons}"
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
