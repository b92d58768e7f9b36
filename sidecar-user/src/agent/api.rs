//! Answers people who ask over the API server: `kubectl outrigger` comes by a port-forward to this agent, proves who it is by a token of
//! that API server, and may see what its rights there say. The door is loopback, and TLS by a certificate of this agent's own, so that
//! nobody else on the node can take the port and the tokens that are shown at it.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::callers::Callers;
use super::answers::Answers;
use crate::error_chain;
use crate::identity::{self, AGENT, Ask, Source, Svid, Way};
use crate::kubernetes::{self, Client};
use crate::model::{LocalPod, SpiffeId};
use crate::observe::{NodeApi, Observer, Reply, serve_node_api};
use crate::transport::tls;
use crate::uplink::Local;

mod callers;
mod rights;

#[derive(Clone, Debug)]
pub struct Config {
    /// On loopback.
    pub listen: SocketAddr,
    pub trust_domain: String,
    /// The longest time until a certificate is asked for again: so long news of another root may take.
    pub refresh: Duration,
    /// By which the agent proves itself to the control process.
    pub token: PathBuf,
}

/// Of a certificate that is asked for.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
const CLUSTER: &str = "Kubernetes";
/// The name under which the agent's own streams to the control process are counted.
const SELF: &str = "agent";

/// Begins to serve in one of the tasks.
pub(super) fn open(
    config: &Config,
    client: Client,
    local: &Local,
    answers: Answers,
    observer: &Observer,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(config.listen)
        .with_context(|| format!("api: cannot listen on {}; is it another agent's?", config.listen))?;
    let id = SpiffeId::new(
        &config.trust_domain,
        kubernetes::SYSTEM_NAMESPACE,
        kubernetes::AGENT,
    );
    let id = id.context("trustDomain: no identity can be made of it")?;
    let (svid, certificates) = watch::channel(None);
    tasks.spawn(prove(id, config, local, svid));
    let (tell, tls) = watch::channel(None);
    tasks.spawn(configure(certificates, tell));
    let callers = Arc::new(Callers::new(client));
    let api = NodeApi {
        observer: observer.clone(),
        tls,
        answer: Box::new(move |bearer, asked| {
            let (callers, answers) = (callers.clone(), answers.clone());
            Box::pin(async move {
                let needed = match rights::needed(&asked) {
                    Ok(needed) => needed,
                    Err(reason) => return Reply::Wrong(reason),
                };
                match callers.permit(&bearer, &needed).await {
                    Ok(()) => answers.answer(asked).await,
                    Err(refused) => refused,
                }
            })
        }),
    };
    tasks.spawn(async move {
        if let Err(error) = serve_node_api(listener, api).await {
            tracing::error!(
                error = error_chain(&error),
                "nobody can ask this agent over the API server"
            );
        }
    });
    Ok(())
}

/// Keeps a certificate, which the agent asks for as its sidecars do: through itself.
fn prove(
    id: SpiffeId,
    config: &Config,
    local: &Local,
    publish: watch::Sender<Option<Arc<Svid>>>,
) -> impl Future<Output = ()> + use<> {
    let share = local.share(LocalPod { uid: SELF.into() });
    let way = Way::Agent(Arc::new(move || {
        let share = share.clone();
        Box::pin(async move {
            let stream = share.open().map_err(std::io::Error::other)?;
            stream.set_nonblocking(true)?;
            tokio::net::UnixStream::from_std(stream)
        })
    }));
    let config = identity::Config {
        id,
        source: Source::Authority(Ask {
            authority: AGENT.to_owned(),
            server_name: None,
            roots: PathBuf::new(),
            token: config.token.clone(),
            cluster: CLUSTER.to_owned(),
            ttl: TTL,
            refresh: config.refresh,
        }),
    };
    async move {
        let (status, _) = watch::channel(identity::Status::default());
        let Err(error) = identity::keep(config, way, publish, status)
            .await
            .map(|never: Infallible| never);
        tracing::error!(
            error = error_chain(&error),
            "nobody can ask this agent over the API server"
        );
    }
}

/// A configuration of TLS for each certificate.
async fn configure(
    mut certificates: watch::Receiver<Option<Arc<Svid>>>,
    tell: watch::Sender<Option<Arc<rustls::ServerConfig>>>,
) {
    loop {
        let svid = certificates.borrow_and_update().clone();
        tell.send_replace(svid.map(|svid| tls::api_server(&svid)));
        if certificates.changed().await.is_err() {
            return;
        }
    }
}
