//! ROLE: the control process. Today it is the embedded CA.
//!
//! It assembles `issuer/`, shows its figures (`figures.rs`) and watches for the signals that end it. In a cluster `secret.rs` keeps the
//! authority, `callers.rs` decides who may have the certificate of which pod, and `catalog.rs` keeps what discovery serves.

mod callers;
mod catalog;
mod figures;
mod inject;
pub(crate) mod kept;
mod pod_certificates;
mod roots;
pub(crate) mod secret;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tracing::info;

use self::roots::{Elsewhere, Roots};
use crate::discovery::catalog::Names;
use crate::issuer::{self, Service};
use crate::kubernetes;
use crate::lifecycle::{self, Shutdown};
use crate::observe::{self, Observer};
use crate::webhook;
use crate::xds::{Discovery, Guests};

/// Connections that wait to be accepted. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: u32 = 4096;

#[derive(Clone, Debug)]
pub struct Config {
    pub issuer: issuer::Config,
    /// Where metrics and probes are answered.
    pub status: Option<SocketAddr>,
    /// Whether the requests of this cluster's kubelets for certificates of pods are answered, where the API server has them.
    pub pod_certificates: bool,
    pub webhook: Option<webhook::Config>,
    /// The cluster that this process runs in, by whose API server tokens are reviewed. `None`: there is none.
    pub cluster: Option<Cluster>,
}

#[derive(Clone, Debug)]
pub struct Cluster {
    /// Where this process runs, its Secret, and the agents.
    pub namespace: String,
    /// The agents' service account.
    pub agent_account: String,
    /// What it is called in discovery, as the first part of each workload's uid.
    pub id: String,
    /// What the DNS names of its Services end in.
    pub domain: String,
    /// Istio's policies in this namespace are for the whole mesh.
    pub root_namespace: String,
}

impl Cluster {
    fn names(&self, trust_domain: &str) -> Names {
        Names {
            cluster: self.id.clone(),
            trust_domain: trust_domain.to_owned(),
            domain: self.domain.clone(),
            root_namespace: self.root_namespace.clone(),
        }
    }
}

/// Serves until SIGTERM or SIGINT, then lets calls under way end.
pub fn run(config: Config) -> anyhow::Result<()> {
    lifecycle::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime of the control process")?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    // Before anything is announced: whoever waits for the line below may send a signal at once.
    let mut shutdown = Shutdown::catch()?;
    let observer = Observer::plain();
    let listening = observer
        .readiness()
        .condition("certificates", "its port is not bound yet");

    let Config {
        issuer: config,
        status,
        pod_certificates,
        webhook,
        cluster,
    } = config;
    let cluster = cluster
        .map(|cluster| anyhow::Ok((cluster, kubernetes::Client::in_cluster()?)))
        .transpose()?;
    let catalog = cluster
        .as_ref()
        .map(|(cluster, client)| catalog::start(client, cluster.names(&config.trust_domain), &observer));
    let injecting = match &webhook {
        Some(webhook) => {
            let listener = listen(webhook.listen)
                .with_context(|| format!("webhook: cannot listen on {}", webhook.listen))?;
            Some(inject::open(webhook, listener, &observer)?)
        }
        None => None,
    };
    let injecting = async {
        match injecting {
            Some(injecting) => injecting.await,
            None => std::future::pending().await,
        }
    };
    let mut injecting = std::pin::pin!(injecting);
    // Probes are answered while the API server is waited for, and say what is missing.
    let status = status.map(listen_status).transpose()?;
    observer.figures(lifecycle::figures);
    let probes = async {
        match status {
            Some(listener) => observe::serve_status(listener, observer.clone()).await,
            None => std::future::pending().await,
        }
    };
    let mut probes = std::pin::pin!(probes);
    let (published, elsewhere) = watch::channel(match pod_certificates {
        true => Elsewhere::Unknown,
        false => Elsewhere::Nowhere,
    });
    let (roots, following) = tokio::select! {
        opened = open(&config, cluster, elsewhere) => opened?,
        ended = &mut probes => return Ok(ended?),
        ended = &mut injecting => return Ok(ended?),
        signal = shutdown.requested() => {
            info!(signal, "the certificate service stops");
            return Ok(());
        }
    };
    let service = roots.service().clone();
    let listener =
        listen(config.listen).with_context(|| format!("listen: cannot listen on {}", config.listen))?;
    let client = pod_certificates
        .then(kubernetes::Client::in_cluster)
        .transpose()?;
    let signing = client.map(|client| (client, Arc::<pod_certificates::Stats>::default()));
    figures::show(
        &observer,
        service.clone(),
        signing.as_ref().map(|(_, stats)| stats.clone()),
    );
    let signing = sign(signing, roots, published);
    let discovery = catalog.map(|store| Discovery::new(store, Guests::Nodes));
    if let Some(discovery) = &discovery {
        figures::show_discovery(&observer, discovery.clone());
    }
    let discovery = discovery.map(Discovery::routes).unwrap_or_default();
    listening.met();
    let ca = service.store().current();
    info!(
        address = %listener.local_addr().unwrap_or(config.listen),
        trust_domain = ca.trust_domain(),
        root = %config.state_dir.join("root-cert.pem").display(),
        root_ends = %humantime::format_rfc3339_seconds(ca.ends()),
        "the certificate service listens"
    );
    let readiness = observer.readiness().clone();
    tokio::spawn(lifecycle::notify::follow(readiness.clone()));
    let stop = async move {
        let signal = shutdown.requested().await;
        info!(signal, "the certificate service stops");
        lifecycle::notify::stopping(issuer::DRAIN);
        readiness.drain();
    };
    tokio::select! {
        served = issuer::serve(&config, service, discovery, listener, stop) => served?,
        ended = probes => ended?,
        () = following => {}
        ended = &mut injecting => ended?,
        never = signing => match never {},
    }
    Ok(())
}

async fn sign(
    signing: Option<(kubernetes::Client, Arc<pod_certificates::Stats>)>,
    roots: Arc<Roots>,
    published: watch::Sender<Elsewhere>,
) -> Infallible {
    match signing {
        Some((client, stats)) => pod_certificates::run(client, roots, stats, published).await,
        None => std::future::pending().await,
    }
}

type Following = Pin<Box<dyn Future<Output = ()>>>;

/// The service behind whom workloads are to trust, and what has to be polled for as long as it serves.
async fn open(
    config: &issuer::Config,
    cluster: Option<(Cluster, kubernetes::Client)>,
    elsewhere: watch::Receiver<Elsewhere>,
) -> anyhow::Result<(Arc<Roots>, Following)> {
    let descriptors = lifecycle::file_limit();
    let Some((cluster, client)) = cluster else {
        let service = Service::open(config, descriptors)?;
        return Ok((Roots::new(service, None), Box::pin(std::future::pending())));
    };
    let kept = kept::Kept {
        client: client.clone(),
        namespace: cluster.namespace.clone(),
    };
    let store = kept.open(config).await?;
    let names = callers::Names {
        trust_domain: config.trust_domain.clone(),
        namespace: cluster.namespace,
        agent: cluster.agent_account,
    };
    let service = Service::reviewed(store, callers::review(client, names), descriptors);
    let roots = Roots::new(service, Some(kept.clone()));
    let following = kept.follow(roots.clone(), elsewhere);
    Ok((roots, Box::pin(following)))
}

/// The library's own choice, 128, overflows where a node's pods all start at once; who meets that waits for a second.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn listen_status(address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    std::net::TcpListener::bind(address)
        .with_context(|| format!("status: cannot listen on {address}; write another address, or none"))
}
