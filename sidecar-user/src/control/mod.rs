//! ROLE: the control process. Today it is the embedded CA.
//!
//! It assembles `issuer/`, shows its figures (`figures.rs`) and watches for the signals that end it; it decides nothing.

mod figures;
mod pod_certificates;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::{TcpListener, TcpSocket};
use tracing::info;

use crate::issuer::{self, Service};
use crate::kubernetes;
use crate::lifecycle::{self, Shutdown};
use crate::observe::{self, Observer};

/// Connections that wait to be accepted. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: u32 = 4096;

#[derive(Clone, Debug)]
pub struct Config {
    pub issuer: issuer::Config,
    /// Where metrics and probes are answered.
    pub status: Option<SocketAddr>,
    /// Whether the requests of this cluster's kubelets for certificates of pods are answered, where the API server has them.
    pub pod_certificates: bool,
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
    } = config;
    let service = Service::open(&config, lifecycle::file_limit())?;
    let listener =
        listen(config.listen).with_context(|| format!("listen: cannot listen on {}", config.listen))?;
    let status = status.map(listen_status).transpose()?;
    observer.figures(lifecycle::figures);
    let signing = Arc::new(pod_certificates::Stats::default());
    let client = pod_certificates
        .then(kubernetes::Client::in_cluster)
        .transpose()?;
    figures::show(
        &observer,
        service.clone(),
        client.is_some().then(|| signing.clone()),
    );
    let pod_certificates = sign(client, service.clone(), signing);
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
    let probes = async {
        match status {
            Some(listener) => observe::serve_status(listener, observer).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        served = issuer::serve(&config, service, Default::default(), listener, stop) => served?,
        ended = probes => ended?,
        never = pod_certificates => match never {},
    }
    Ok(())
}

async fn sign(
    client: Option<kubernetes::Client>,
    service: Arc<Service>,
    stats: Arc<pod_certificates::Stats>,
) -> Infallible {
    match client {
        Some(client) => pod_certificates::run(client, service, stats).await,
        None => std::future::pending().await,
    }
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
