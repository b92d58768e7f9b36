//! A sidecar's request for a certificate on its way through the agent, and back.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::identity::{self, Status, Svid, Way};
use crate::issuer::scratch::Scratch;
use crate::issuer::{self, Credentials, Doubt, Material, Refused, Service, Store, token};
use crate::model::{LocalPod, SpiffeId};
use crate::uplink::{self, Addresses, Control, Counts, Relay, Share};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

fn id() -> SpiffeId {
    SpiffeId::new("td.test", "demo", "a").unwrap()
}

/// A control process and an agent in front of it.
struct Node {
    scratch: Scratch,
    addresses: watch::Sender<Vec<SocketAddr>>,
    relay: Relay,
    pod: Share,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Node {
    /// Where the control process is, the agent is told later.
    async fn start() -> (Self, SocketAddr) {
        Self::with(|config| Service::open(config, 1024).unwrap()).await
    }

    async fn with(service: impl FnOnce(&issuer::Config) -> Arc<Service>) -> (Self, SocketAddr) {
        let scratch = Scratch::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = issuer::Config {
            listen: address,
            state_dir: scratch.join("state"),
            trust_domain: "td.test".into(),
            leaf_ttl: DAY,
            server_names: vec!["control.system.svc".into()],
        };
        let service = service(&config);
        let served = async move {
            let others = Default::default();
            let served = issuer::serve(&config, service, others, listener, std::future::pending()).await;
            served.unwrap();
        };
        std::fs::write(scratch.join("agent-token"), "agent").unwrap();
        let (addresses, known) = watch::channel(Vec::new());
        let config = uplink::Config {
            fields: uplink::Fields::AGENT,
            server_name: None,
            url: "https://control.system.svc:15012".into(),
            roots: scratch.join("state/root-cert.pem"),
            token: scratch.join("agent-token"),
        };
        let control = Arc::new(Control::new(config, Addresses::Followed(known)).unwrap());
        let relay = Relay::new(control);
        let (local, incoming) = uplink::incoming();
        let routes = relay.routes();
        let serving = async move { uplink::serve(routes, incoming).await.unwrap() };
        let node = Self {
            addresses,
            relay,
            pod: local.share(LocalPod { uid: "uid".into() }),
            tasks: vec![tokio::spawn(served), tokio::spawn(serving)],
            scratch,
        };
        (node, address)
    }

    fn token(&self, content: Option<&str>) -> PathBuf {
        let request = token::Request {
            identity: id(),
            label: None,
            life: None,
        };
        let made = token::create(&self.scratch.join("state"), &request, SystemTime::now()).unwrap();
        let path = self.scratch.join("token");
        std::fs::write(&path, content.unwrap_or(&made.secret)).unwrap();
        path
    }

    fn sidecar(&self, token: PathBuf) -> Sidecar {
        let config = identity::Config {
            id: id(),
            source: identity::Source::Authority(identity::Ask {
                authority: identity::AGENT.into(),
                server_name: None,
                roots: PathBuf::new(),
                token,
                cluster: "c1".into(),
                ttl: DAY,
                refresh: DAY,
            }),
        };
        let pod = self.pod.clone();
        let open: identity::Open = Arc::new(move || {
            let stream = pod.open().map_err(std::io::Error::other);
            Box::pin(async move {
                let stream = stream?;
                stream.set_nonblocking(true)?;
                UnixStream::from_std(stream)
            })
        });
        let (publish, svid) = watch::channel(None);
        let (report, status) = watch::channel(Status::default());
        let task = tokio::spawn(async move {
            let Err(error) = identity::keep(config, Way::Agent(open), publish, report).await;
            panic!("{error}");
        });
        Sidecar { svid, status, task }
    }
}

struct Sidecar {
    svid: watch::Receiver<Option<Arc<Svid>>>,
    status: watch::Receiver<Status>,
    task: JoinHandle<()>,
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sidecar {
    async fn svid(&mut self) -> Arc<Svid> {
        let svid = timeout(PATIENCE, self.svid.wait_for(Option::is_some)).await;
        svid.expect("it took too long").unwrap().clone().unwrap()
    }

    async fn failure(&mut self) -> String {
        let failed = timeout(PATIENCE, self.status.wait_for(|status| status.failures > 0)).await;
        failed
            .expect("it took too long")
            .unwrap()
            .last_error
            .clone()
            .unwrap()
    }
}

#[tokio::test]
async fn a_sidecar_gets_its_certificate_through_the_agent_and_trusts_what_comes_with_it() {
    let (node, address) = Node::start().await;
    node.addresses.send_replace(vec![address]);
    let svid = node.sidecar(node.token(None)).svid().await;
    assert_eq!((svid.id(), svid.roots().len()), (&id(), 1));
    assert_eq!(
        node.relay.counts(),
        Counts {
            answered: 1,
            unanswered: 0
        }
    );
}

#[tokio::test]
async fn a_refusal_of_the_control_process_comes_back_as_it_is() {
    let (node, address) = Node::start().await;
    node.addresses.send_replace(vec![address]);
    let error = node.sidecar(node.token(Some("ort_guess"))).failure().await;
    assert!(
        error.contains("Unauthenticated") && error.contains("unknown or revoked"),
        "{error}"
    );
    assert!(!error.contains("ort_guess"), "{error}");
    assert_eq!(node.relay.counts().answered, 1);
}

#[tokio::test]
async fn without_a_replica_a_sidecar_is_told_so_and_gets_its_certificate_once_there_is_one() {
    let (node, address) = Node::start().await;
    let mut sidecar = node.sidecar(node.token(None));
    let error = sidecar.failure().await;
    assert!(error.contains("no replica of control.system.svc"), "{error}");
    node.addresses.send_replace(vec![address]);
    assert_eq!(sidecar.svid().await.id(), &id());
}

#[tokio::test]
async fn a_replica_that_is_gone_is_passed_over() {
    let (node, address) = Node::start().await;
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    node.addresses.send_replace(vec![gone, address, gone]);
    assert_eq!(node.sidecar(node.token(None)).svid().await.id(), &id());
    assert_eq!(node.relay.counts().unanswered, 0);
}

#[tokio::test]
async fn a_pod_has_only_so_many_streams() {
    let (node, _) = Node::start().await;
    let mut held = Vec::new();
    let refused = loop {
        match node.pod.open() {
            Ok(stream) => held.push(stream),
            Err(refused) => break refused.to_string(),
        }
        assert!(held.len() < 100);
    };
    assert!(
        refused.contains("streams to the control plane already"),
        "{refused}"
    );
    // Whoever closes one makes room for another.
    held.clear();
    let opened = async {
        while node.pod.open().is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, opened).await.expect("it took too long");
}

#[tokio::test]
async fn the_control_process_hears_who_the_agent_is_beside_whose_the_certificate_is() {
    let (heard, mut said) = watch::channel(None);
    let heard = Arc::new(heard);
    let review = move |credentials: Credentials, _| {
        let agent = credentials.agent_token.map(|token| token.to_string());
        heard.send_replace(Some((credentials.token.to_string(), agent)));
        let refused = Err(Doubt::new(Refused::OtherNode, "of another node"));
        Box::pin(std::future::ready(refused)) as Pin<Box<dyn Future<Output = _> + Send>>
    };
    let start = |config: &issuer::Config| {
        // Only so that there is a file of roots.
        drop(Service::open(config, 1024).unwrap());
        let key = |name| std::fs::read_to_string(config.state_dir.join(name)).unwrap();
        let material = Material {
            roots: key(Material::ROOTS),
            key: key(Material::KEY).into(),
            next_key: None,
            times: None,
        };
        let store = Store::held(&material, "td.test", DAY).unwrap();
        Service::reviewed(store, Arc::new(review), 1024)
    };
    let (node, address) = Node::with(start).await;
    node.addresses.send_replace(vec![address]);
    let error = node.sidecar(node.token(Some("pod"))).failure().await;
    assert!(error.contains("PermissionDenied: of another node"), "{error}");
    let said = said.wait_for(Option::is_some).await.unwrap().clone();
    assert_eq!(said, Some(("pod".into(), Some("agent".into()))));
    assert_eq!(crate::model::AGENT_TOKEN, "outrigger-agent-token");
}
