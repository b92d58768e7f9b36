//! The server on the wire: `AggregatedDiscoveryService/DeltaAggregatedResources`, one task for each stream. What is sent is
//! `server/`'s business, who may ask its door's.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::Stream;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::demands::{Demands, Needs};
use super::message::{DeltaRequest, DeltaResponse, Node};
use super::{Audience, Limits, ServerStream, Shared, address_key};
use crate::grpc::{Answering, Answers};
use crate::model::{Caller, CallerKind};

const SERVICE: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
pub(super) const DELTA: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// A client that reconnects brings names and versions of all that it holds: 100,000 take 6 MiB.
const MAX_REQUEST: usize = 16 << 20;
/// Changes are sent together that happen within this time, and half of it more at most.
const BATCH: Duration = Duration::from_millis(60);
/// What the name of a node begins with that is a sidecar, in Istio's words.
const SIDECAR: &str = "sidecar~";
/// A client that takes nothing for so long has to begin again.
const STALLED: Duration = Duration::from_secs(30);

/// Who may ask here, and what a stream to them is like.
#[derive(Clone, Debug)]
pub enum Guests {
    /// Proxies of nodes, which ask for many pods.
    Nodes,
    /// Sidecars, whose names this process has to ask for itself.
    Sidecars(Arc<Demands>),
}

impl Guests {
    fn limits(&self) -> Limits {
        match self {
            Self::Nodes => Limits { names: 1 << 17 },
            Self::Sidecars(_) => Limits { names: 1 << 14 },
        }
    }

    /// A sidecar says itself which pod it stands beside: a false word would show it policies of others, or none. Where its token has
    /// proved that, its word does not count.
    fn audience(&self, node: Option<&Node>, caller: Option<&Caller>) -> Audience {
        match (self, caller) {
            (Self::Nodes, Some(pod)) if is_own_sidecar(node, pod) => Audience::Pod {
                namespace: pod.identity.namespace().into(),
                own: pod.addresses.iter().map(|ip| address_key("", *ip)).collect(),
            },
            (Self::Nodes, _) => Audience::Everybody,
            (Self::Sidecars(_), _) => {
                let text = |name| node.and_then(|node| node.text(name)).unwrap_or_default();
                let addresses = text("INSTANCE_IPS").split(',').filter_map(|ip| ip.parse().ok());
                Audience::Pod {
                    namespace: text("NAMESPACE").into(),
                    own: addresses.map(|ip| address_key("", ip)).collect(),
                }
            }
        }
    }
}

/// A sidecar without an agent, and not the proxy of a node, which asks by the token of a pod too.
fn is_own_sidecar(node: Option<&Node>, caller: &Caller) -> bool {
    caller.kind == CallerKind::Workload && node.is_some_and(|node| node.id.starts_with(SIDECAR))
}

/// Read at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerCounts {
    pub streams: usize,
    pub responses: u64,
    pub resources: u64,
    /// Resources that clients have refused.
    pub refused: u64,
    /// Streams that were ended because their client took nothing, or asked for nonsense.
    pub cut: u64,
}

#[derive(Debug, Default)]
struct Counters {
    streams: AtomicUsize,
    responses: AtomicU64,
    resources: AtomicU64,
    refused: AtomicU64,
    cut: AtomicU64,
}

/// The discovery service over a store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Discovery {
    shared: Arc<Shared>,
    guests: Guests,
    counters: Arc<Counters>,
}

impl Discovery {
    pub fn new(shared: Arc<Shared>, guests: Guests) -> Self {
        Self {
            shared,
            guests,
            counters: Arc::default(),
        }
    }

    /// As a server takes it.
    pub fn service(self) -> Answering<Self> {
        Answering(self)
    }

    /// It alone.
    pub fn routes(self) -> Routes {
        Routes::new(self.service())
    }

    pub fn counts(&self) -> ServerCounts {
        ServerCounts {
            streams: self.counters.streams.load(Relaxed),
            responses: self.counters.responses.load(Relaxed),
            resources: self.counters.resources.load(Relaxed),
            refused: self.counters.refused.load(Relaxed),
            cut: self.counters.cut.load(Relaxed),
        }
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<DeltaResponse, Status>> + Send>>;

impl NamedService for Discovery {
    const NAME: &'static str = SERVICE;
}

impl Answers for Discovery {
    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        if request.uri().path() != DELTA {
            return Status::unimplemented("only DeltaAggregatedResources is served").into_http();
        }
        let mut grpc = tonic::server::Grpc::new(ProstCodec::default()).max_decoding_message_size(MAX_REQUEST);
        let stream = service_fn(move |request: Request<Streaming<DeltaRequest>>| {
            let caller = request.extensions().get::<Caller>().cloned();
            std::future::ready(Ok(Response::new(self.stream(request.into_inner(), caller))))
        });
        grpc.streaming(stream, request).await
    }
}

impl Discovery {
    fn stream(&self, requests: Streaming<DeltaRequest>, caller: Option<Caller>) -> Responses {
        // One at a time: whoever reads slowly is sent the last state, and none between.
        let (out, mut responses) = mpsc::channel(1);
        let task = Task {
            discovery: self.clone(),
            needs: match &self.guests {
                Guests::Nodes => None,
                Guests::Sidecars(demands) => Some(demands.needs()),
            },
            stream: None,
            caller,
            out,
        };
        tokio::spawn(task.run(requests));
        Box::pin(futures_util::stream::poll_fn(move |cx| responses.poll_recv(cx)))
    }
}

struct Task {
    discovery: Discovery,
    needs: Option<Needs>,
    /// Since the first request, which says who asks.
    stream: Option<ServerStream>,
    /// Whose token was shown; nobody's at an agent, whose doors tell who asks.
    caller: Option<Caller>,
    out: mpsc::Sender<Result<DeltaResponse, Status>>,
}

impl Task {
    async fn run(mut self, requests: Streaming<DeltaRequest>) {
        let counters = self.discovery.counters.clone();
        counters.streams.fetch_add(1, Relaxed);
        if let Err(status) = self.follow(requests).await {
            counters.cut.fetch_add(1, Relaxed);
            tracing::warn!(reason = status.message(), "a discovery stream is ended");
            let _ = self.out.try_send(Err(status));
        }
        counters.streams.fetch_sub(1, Relaxed);
    }

    async fn follow(&mut self, mut requests: Streaming<DeltaRequest>) -> Result<(), Status> {
        let mut changes = self.discovery.shared.follow();
        let mut batch: Option<tokio::time::Instant> = None;
        loop {
            let flush = async {
                match batch {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.request(request)?,
                    // The client has gone.
                    Ok(None) | Err(_) => return Ok(()),
                },
                change = changes.recv() => {
                    let store = self.discovery.shared.lock();
                    match (change, &mut self.stream) {
                        (Err(RecvError::Closed), _) => return Ok(()),
                        (_, None) => {}
                        (Ok(touched), Some(stream)) => stream.touched(&touched, &store),
                        (Err(RecvError::Lagged(_)), Some(stream)) => stream.lost_track(&store),
                    }
                }
                () = flush => {
                    batch = None;
                    self.send().await?;
                }
                () = self.out.closed() => return Ok(()),
            }
            let Some(stream) = &self.stream else {
                continue;
            };
            if stream.is_urgent() {
                batch = None;
                self.send().await?;
            } else if stream.is_due() && batch.is_none() {
                batch = Some(tokio::time::Instant::now() + BATCH.mul_f64(1.0 + fastrand::f64() / 2.0));
            }
        }
    }

    fn request(&mut self, request: DeltaRequest) -> Result<(), Status> {
        let Discovery {
            shared,
            guests,
            counters,
        } = &self.discovery;
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let audience = guests.audience(request.node.as_ref(), self.caller.as_ref());
                if let (Some(needs), Audience::Pod { own, .. }) = (&mut self.needs, &audience) {
                    needs.add(own, Instant::now());
                }
                self.stream.insert(ServerStream::new(audience, guests.limits()))
            }
        };
        let asked = stream.request(request, &shared.lock());
        let asked = asked.map_err(|bad| Status::invalid_argument(bad.to_string()))?;
        if let Some(needs) = &mut self.needs {
            let now = Instant::now();
            needs.add(&asked.subscribed, now);
            needs.remove(&asked.unsubscribed, now);
        }
        if let Some(why) = asked.refused {
            counters.refused.fetch_add(1, Relaxed);
            let why: String = why.chars().take(300).collect();
            tracing::warn!(
                reason = why.escape_debug().to_string(),
                "a client refuses resources"
            );
        }
        Ok(())
    }

    /// All that is due, a response at a time: none is made before the one before it is taken.
    async fn send(&mut self) -> Result<(), Status> {
        let late = |_| Status::deadline_exceeded("nothing was read for 30 seconds");
        let Discovery { shared, counters, .. } = &self.discovery;
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        loop {
            let Ok(place) = timeout(STALLED, self.out.reserve()).await.map_err(late)? else {
                return Ok(());
            };
            let Some(response) = stream.next(&shared.lock()) else {
                return Ok(());
            };
            counters.responses.fetch_add(1, Relaxed);
            counters
                .resources
                .fetch_add(response.resources.len() as u64, Relaxed);
            place.send(Ok(response));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SpiffeId;

    fn caller(kind: CallerKind) -> Caller {
        Caller {
            identity: SpiffeId::new("td", "shop", "web").unwrap(),
            name: "shop/web-1".into(),
            kind,
            node: Some("n1".into()),
            addresses: vec!["10.0.0.1".parse().unwrap()].into(),
        }
    }

    #[test]
    fn a_sidecar_that_asks_control_is_the_pod_of_its_token_whatever_it_says() {
        let said = |id: &str| {
            let words = [("NAMESPACE", "other"), ("INSTANCE_IPS", "10.0.0.9")];
            Node::new(id.to_owned(), &words)
        };
        let (sidecar, node) = (
            said("sidecar~10.0.0.9~web-9.other~x"),
            said("ztunnel~10.0.0.9~z.sys~x"),
        );
        let audience =
            |node: &Node, caller: Option<Caller>| Guests::Nodes.audience(Some(node), caller.as_ref());
        match audience(&sidecar, Some(caller(CallerKind::Workload))) {
            Audience::Pod { namespace, own } => {
                assert_eq!((&*namespace, &*own[0], own.len()), ("shop", "/10.0.0.1", 1));
            }
            Audience::Everybody => panic!("a sidecar is sent what concerns its pod"),
        }
        for (node, caller) in [
            (&node, Some(caller(CallerKind::Workload))),
            (&sidecar, Some(caller(CallerKind::Agent))),
            (&sidecar, None),
        ] {
            assert!(matches!(audience(node, caller), Audience::Everybody));
        }
    }
}
