//! The client on the wire: one stream at a time to a discovery server, opened again when it ends. What it asks for,
//! [`Demands`] say; what it hears goes into a [`Shared`] store, which keeps it while nobody answers.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

use super::client::Client;
use super::demands::Demands;
use super::message::{DeltaRequest, DeltaResponse, Node};
use super::serve::DELTA;
use super::{Shared, Touched};

/// wire.md 3: the largest message of Istio's discovery has 200 MiB; ours are cut into parts far below.
const MAX_RESPONSE: usize = 64 << 20;
const OPEN_TIME: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(15);
/// Acknowledgements and subscriptions that wait to be taken.
const REQUESTS: usize = 32;
const MAX_WAITING: usize = 4096;

/// A way to the server. An error is why there is none.
pub type Connect = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Link, String>> + Send>> + Send + Sync>;

/// A channel, and the token that is shown with a call over it.
#[derive(Debug)]
pub struct Link {
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
}

impl Link {
    pub fn new(channel: Channel, token: Option<MetadataValue<Ascii>>) -> Self {
        Self { channel, token }
    }
}

/// How following goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Following {
    /// Counts up with each response after which what belongs together is whole.
    pub rounds: u64,
    /// Streams that were opened.
    pub streams: u64,
    /// Resources that were refused.
    pub refused: u64,
    /// Why there is no stream now.
    pub error: Option<String>,
}

pub struct Follower {
    pub node: Node,
    pub shared: Arc<Shared>,
    pub demands: Arc<Demands>,
    pub connect: Connect,
    pub following: watch::Sender<Following>,
}

impl Follower {
    /// Follows until it is dropped.
    pub async fn run(self) {
        let mut client = Client::default();
        let mut pause = FIRST_PAUSE;
        loop {
            let rounds = self.following.borrow().rounds;
            let Err(why) = self.stream(&mut client).await;
            if self.following.borrow().rounds > rounds {
                pause = FIRST_PAUSE;
            }
            self.following
                .send_modify(|following| following.error = Some(why.clone()));
            match pause == FIRST_PAUSE {
                true => tracing::debug!(error = why, "discovery is asked again"),
                false => tracing::warn!(
                    error = why,
                    "nobody answers about what is in the mesh; what was heard last holds"
                ),
            }
            // As many clients as lost their server at once come back one after the other.
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn stream(&self, client: &mut Client) -> Result<std::convert::Infallible, String> {
        let late = |_| format!("it does not answer within {OPEN_TIME:?}");
        let link = timeout(OPEN_TIME, (self.connect)()).await.map_err(late)??;
        let (out, mut requests) = mpsc::channel(REQUESTS);
        let requests = futures_util::stream::poll_fn(move |cx| requests.poll_recv(cx));
        let mut request = Request::new(requests);
        if let Some(token) = link.token {
            request.metadata_mut().insert("authorization", token);
        }
        let call = async {
            let mut grpc = tonic::client::Grpc::new(link.channel).max_decoding_message_size(MAX_RESPONSE);
            grpc.ready().await.map_err(|error| crate::error_chain(&error))?;
            let answer = grpc.streaming(request, PathAndQuery::from_static(DELTA), ProstCodec::default());
            answer.await.map_err(|status| status.message().to_owned())
        };
        let mut waiting = VecDeque::new();
        let mut next = self.look(client);
        self.shared.change(|store| {
            let (first, touched) = client.begin(&self.node, store);
            waiting.extend(first);
            touched
        });
        let responses: Streaming<DeltaResponse> = timeout(OPEN_TIME, call).await.map_err(late)??.into_inner();
        self.following.send_modify(|following| following.streams += 1);
        let mut responses = responses;
        loop {
            if waiting.len() > MAX_WAITING {
                return Err("it takes no requests".to_owned());
            }
            let idle = async {
                match next {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                place = out.reserve(), if !waiting.is_empty() => {
                    let place = place.map_err(|_| "it has ended the stream".to_owned())?;
                    if let Some(request) = waiting.pop_front() {
                        place.send(request);
                    }
                }
                response = responses.message() => match response {
                    Ok(Some(response)) => waiting.extend(self.take(client, response)),
                    Ok(None) => return Err("it has ended the stream".to_owned()),
                    Err(status) => return Err(status.message().to_owned()),
                },
                () = self.demands.changed() => {
                    next = self.look(client);
                    waiting.extend(std::iter::from_fn(|| client.request()));
                }
                () = idle => {
                    next = self.look(client);
                    waiting.extend(std::iter::from_fn(|| client.request()));
                }
            }
        }
    }

    /// What is needed now, and when to look again.
    fn look(&self, client: &mut Client) -> Option<Instant> {
        let due = self.demands.due(Instant::now());
        self.shared.change(|store| {
            for name in &due.unwanted {
                client.unwant(name, store);
            }
            Touched::default()
        });
        for name in due.wanted {
            client.want(name);
        }
        if !due.unwanted.is_empty() {
            // Whoever follows knows less from now on.
            self.following.send_modify(|following| following.rounds += 1);
        }
        due.next
    }

    fn take(&self, client: &mut Client, response: DeltaResponse) -> Option<DeltaRequest> {
        let mut received = None;
        self.shared.change(|store| {
            received = client.response(response, store);
            match &mut received {
                Some(received) => std::mem::take(&mut received.touched),
                None => Touched::default(),
            }
        });
        let received = received?;
        for refused in &received.refused {
            tracing::warn!(reason = refused, "a resource is refused; the last good one stays");
        }
        self.following.send_modify(|following| {
            following.error = None;
            following.rounds += u64::from(!received.more);
            following.refused += received.refused.len() as u64;
        });
        Some(received.ack)
    }
}
