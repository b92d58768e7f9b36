//! The flags that say whom to ask, as kubectl has them.

use std::path::PathBuf;
use std::sync::OnceLock;

use clap::Args;

use super::select::Wanted;
use super::session::Session;
use super::sources::{Source, Sources};
use crate::plugin::client::Target;
use crate::plugin::error::Error;

#[derive(Debug, Default, Args)]
pub(in crate::plugin) struct AccessArgs {
    /// Namespace of the pods [default: that of the kubeconfig's context]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Pods of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Context of the kubeconfig
    #[arg(long, value_name = "NAME", conflicts_with_all = ["address", "unix"])]
    context: Option<String>,
    /// Kubeconfig [default: as kubectl finds it]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["address", "unix"])]
    kubeconfig: Option<PathBuf>,
    /// One admin endpoint instead of a cluster: of a proxy, e.g. 127.0.0.1:15000
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "unix")]
    address: Option<String>,
    /// One admin socket instead of a cluster: of a proxy, e.g. /run/outrigger/admin.sock, or of a node's agent, which knows all its pods
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// Opened once: a kubeconfig may name a program that gets a token, and asks a person for it.
    #[arg(skip)]
    opened: OnceLock<Session>,
}

/// Which pods.
#[derive(Debug, Default, Args)]
pub(in crate::plugin) struct SelectorArgs {
    /// Only of this pod, or of the pods of svc/NAME, deploy/NAME, sts/NAME, ds/NAME, rs/NAME or job/NAME; of another namespace as NAMESPACE/POD
    #[arg(value_name = "POD")]
    pub(in crate::plugin) pod: Option<String>,
    /// Only of pods with these labels, such as app=web
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with_all = ["pod", "address", "unix"])]
    pub(in crate::plugin) selector: Option<String>,
}

impl AccessArgs {
    /// The endpoint that is named; `None` where a cluster is meant.
    pub(in crate::plugin) fn endpoint(&self) -> Option<Target> {
        match (&self.address, &self.unix) {
            (Some(address), _) => Some(Target::Tcp(address.clone())),
            (_, Some(path)) => Some(Target::Unix(path.clone())),
            _ => None,
        }
    }

    /// The cluster that is meant.
    pub(in crate::plugin) fn session(&self) -> Result<Session, Error> {
        if let Some(session) = self.opened.get() {
            return Ok(session.clone());
        }
        let session = self.anew()?;
        Ok(self.opened.get_or_init(|| session).clone())
    }

    /// The same, with whatever kubeconfig, roots and tokens are by now.
    pub(in crate::plugin) fn anew(&self) -> Result<Session, Error> {
        Session::open(self.kubeconfig.as_deref(), self.context.as_deref())
    }

    /// `None`: all.
    pub(in crate::plugin) fn namespace<'s>(&'s self, session: &'s Session) -> Option<&'s str> {
        match (&self.namespace, self.all_namespaces) {
            (_, true) => None,
            (Some(namespace), _) => Some(namespace),
            (None, false) => Some(session.namespace()),
        }
    }

    /// Whom to ask about these pods.
    pub(in crate::plugin) fn sources(&self, of: &SelectorArgs) -> Result<Sources, Error> {
        if let Some(target) = self.endpoint() {
            let mut scope = Vec::new();
            if let Some(pod) = &of.pod {
                scope.push(("pod", self.in_namespace(pod)));
            } else if let Some(namespace) = &self.namespace {
                scope.push(("namespace", namespace.clone()));
            }
            return Ok(Sources::one(Source { target, scope }));
        }
        let session = self.session()?;
        let wanted = Wanted::new(
            self.namespace(&session),
            of.pod.as_deref(),
            of.selector.as_deref(),
        )?;
        Sources::of_cluster(&session, &wanted)
    }

    /// Whom to ask about one pod.
    pub(in crate::plugin) fn source_of(&self, pod: &str) -> Result<Source, Error> {
        let of = SelectorArgs {
            pod: Some(pod.to_owned()),
            selector: None,
        };
        let mut sources = self.sources(&of)?.all;
        match sources.len() {
            1 => Ok(sources.remove(0)),
            _ => Err(Error::ManyPods { name: pod.to_owned() }),
        }
    }

    fn in_namespace(&self, pod: &str) -> String {
        match &self.namespace {
            Some(namespace) if !pod.contains('/') => format!("{namespace}/{pod}"),
            _ => pod.to_owned(),
        }
    }
}
