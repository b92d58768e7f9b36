//! The certificate service and its client together, over loopback TCP.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::identity::{self, Status, Svid};
use crate::issuer::rotation::{self, Step};
use crate::issuer::scratch::Scratch;
use crate::issuer::{self, Ca, Service, token};
use crate::model::SpiffeId;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

fn id(account: &str) -> SpiffeId {
    SpiffeId::new("td.test", "demo", account).unwrap()
}

/// A served CA, and what a client needs to use it.
struct Served {
    scratch: Scratch,
    address: SocketAddr,
    server: JoinHandle<Result<(), issuer::Error>>,
}

impl Served {
    async fn start() -> Self {
        let scratch = Scratch::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = issuer::Config {
            listen: listener.local_addr().unwrap(),
            state_dir: scratch.join("state"),
            trust_domain: "td.test".to_owned(),
            leaf_ttl: DAY,
            server_names: vec!["control.test".to_owned()],
        };
        let service = Service::open(&config, 1024).unwrap();
        let address = config.listen;
        let server = tokio::spawn(async move {
            issuer::serve(
                &config,
                service,
                Default::default(),
                listener,
                std::future::pending(),
            )
            .await
        });
        Self {
            scratch,
            address,
            server,
        }
    }

    /// A client that holds a token for `granted` and calls itself `claimed`.
    fn client(&self, granted: &SpiffeId, claimed: &SpiffeId, ttl: Duration) -> identity::Config {
        let request = token::Request {
            identity: granted.clone(),
            label: None,
            life: None,
        };
        let token = token::create(&self.scratch.join("state"), &request, SystemTime::now()).unwrap();
        std::fs::write(self.token(), format!("{}\n", *token.secret)).unwrap();
        identity::Config {
            id: claimed.clone(),
            source: identity::Source::Authority(identity::Ask {
                authority: format!("https://{}", self.address),
                server_name: Some("control.test".to_owned()),
                roots: self.scratch.join("state/root-cert.pem"),
                token: self.token(),
                cluster: "c1".into(),
                ttl,
                refresh: DAY,
            }),
        }
    }

    fn rotate(&self, step: Step) {
        rotation::take(&self.scratch.join("state"), step, true, SystemTime::now()).unwrap();
    }

    fn token(&self) -> PathBuf {
        self.scratch.join("token")
    }
}

fn ask(config: &mut identity::Config) -> &mut identity::Ask {
    match &mut config.source {
        identity::Source::Authority(ask) => ask,
        identity::Source::Files(_) => panic!("it asks an authority"),
    }
}

/// A running `keep`, ended when dropped.
struct Kept {
    svid: watch::Receiver<Option<Arc<Svid>>>,
    status: watch::Receiver<Status>,
    task: JoinHandle<()>,
}

impl Kept {
    fn start(config: identity::Config) -> Self {
        let (publish, svid) = watch::channel(None);
        let (report, status) = watch::channel(Status::default());
        let task = tokio::spawn(async move {
            let Err(error) = identity::keep(
                config,
                identity::Way::Network(Arc::new(|_| Ok(()))),
                publish,
                report,
            )
            .await;
            panic!("{error}");
        });
        Self { svid, status, task }
    }

    async fn next_svid(&mut self) -> Arc<Svid> {
        let svid = within(self.svid.wait_for(Option::is_some)).await.unwrap();
        svid.clone().unwrap()
    }

    async fn failure(&mut self) -> String {
        let status = within(self.status.wait_for(|status| status.failures > 0))
            .await
            .unwrap();
        status.last_error.clone().unwrap()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it took too long")
}

#[tokio::test]
async fn a_workload_gets_the_identity_of_its_token() {
    let served = Served::start().await;
    let mut kept = Kept::start(served.client(&id("a"), &id("a"), DAY));
    let svid = kept.next_svid().await;
    assert_eq!(svid.id(), &id("a"));
    assert!(svid.is_valid_at(SystemTime::now()));
    assert!(svid.not_after() > SystemTime::now() + DAY - Duration::from_secs(120));
    assert_eq!(svid.certified_key().cert.len(), 1, "the root is never presented");
    assert_eq!(svid.roots().len(), 1);
    let status = within(kept.status.wait_for(|status| status.next_attempt.is_some()))
        .await
        .unwrap()
        .clone();
    assert_eq!((status.failures, status.last_error), (0, None));
    let renewal = status
        .next_attempt
        .unwrap()
        .duration_since(SystemTime::now())
        .unwrap();
    assert!(renewal < DAY / 2 && renewal > DAY / 3, "{renewal:?}");
}

#[tokio::test]
async fn an_unknown_token_is_not_authenticated_and_a_good_one_heals_it() {
    let served = Served::start().await;
    let config = served.client(&id("a"), &id("a"), DAY);
    let good = std::fs::read_to_string(served.token()).unwrap();
    std::fs::write(served.token(), "ort_guess").unwrap();
    let mut kept = Kept::start(config);
    let error = kept.failure().await;
    assert!(error.contains("Unauthenticated"), "{error}");
    assert!(!error.contains("ort_guess"), "a token must not be told: {error}");
    std::fs::write(served.token(), good).unwrap();
    assert_eq!(kept.next_svid().await.id(), &id("a"));
    let status = within(kept.status.wait_for(|status| status.failures == 0))
        .await
        .unwrap()
        .clone();
    assert_eq!(status.last_error, None);
}

#[tokio::test]
async fn a_request_for_another_identity_than_the_tokens_is_denied() {
    let served = Served::start().await;
    let mut kept = Kept::start(served.client(&id("a"), &id("admin"), DAY));
    let error = kept.failure().await;
    assert!(error.contains("PermissionDenied"), "{error}");
    assert!(error.contains("sa/admin") && error.contains("sa/a"), "{error}");
    assert!(kept.svid.borrow().is_none());
}

#[tokio::test]
async fn an_authority_of_another_root_is_not_given_the_token() {
    let (served, other) = (Served::start().await, Served::start().await);
    let mut config = served.client(&id("a"), &id("a"), DAY);
    ask(&mut config).roots = other.scratch.join("state/root-cert.pem");
    let mut kept = Kept::start(config);
    let error = kept.failure().await;
    assert!(error.contains("cannot reach the authority"), "{error}");
    assert!(error.contains("invalid peer certificate"), "{error}");
}

#[tokio::test]
async fn an_authority_of_another_name_is_not_given_the_token() {
    let served = Served::start().await;
    let mut config = served.client(&id("a"), &id("a"), DAY);
    ask(&mut config).server_name = Some("elsewhere.test".to_owned());
    let error = Kept::start(config).failure().await;
    assert!(
        error.contains("elsewhere.test") && error.contains("invalid peer certificate"),
        "{error}"
    );
}

#[tokio::test]
async fn the_authoritys_address_is_a_name_it_answers_to() {
    let served = Served::start().await;
    let mut config = served.client(&id("a"), &id("a"), DAY);
    ask(&mut config).server_name = None;
    Kept::start(config).next_svid().await;
}

#[tokio::test]
async fn missing_files_are_named_with_their_remedy_and_waited_for() {
    let served = Served::start().await;
    let mut config = served.client(&id("a"), &id("a"), DAY);
    let roots = std::mem::replace(&mut ask(&mut config).roots, served.scratch.join("absent.pem"));
    let mut kept = Kept::start(config.clone());
    let error = kept.failure().await;
    assert!(
        error.contains("identity.roots") && error.contains("absent.pem"),
        "{error}"
    );
    std::fs::copy(roots, &ask(&mut config).roots).unwrap();
    kept.next_svid().await;

    ask(&mut config).token = served.scratch.join("absent-token");
    let error = Kept::start(config).failure().await;
    assert!(
        error.contains("absent-token") && error.contains("outrigger token create"),
        "{error}"
    );
}

#[tokio::test]
async fn an_authority_without_tls_is_an_error_that_ends_it() {
    let served = Served::start().await;
    let mut config = served.client(&id("a"), &id("a"), DAY);
    ask(&mut config).authority = "http://127.0.0.1:1".to_owned();
    let (publish, status) = (watch::Sender::new(None), watch::Sender::new(Status::default()));
    let Err(error) = identity::keep(
        config,
        identity::Way::Network(Arc::new(|_| Ok(()))),
        publish,
        status,
    )
    .await;
    assert!(error.to_string().contains("https"), "{error}");
}

#[tokio::test]
async fn a_short_lived_certificate_is_renewed_with_a_new_key_before_it_expires() {
    let served = Served::start().await;
    let mut kept = Kept::start(served.client(&id("a"), &id("a"), Duration::from_secs(8)));
    let first = kept.next_svid().await;
    within(kept.svid.changed()).await.unwrap();
    let second = kept
        .svid
        .borrow()
        .clone()
        .expect("there is no gap between the two");
    assert!(SystemTime::now() < first.not_after(), "it came too late");
    assert_ne!(first.serial(), second.serial());
    assert_ne!(first.certified_key().cert, second.certified_key().cert);
    assert_ne!(
        first.certified_key().key.public_key(),
        second.certified_key().key.public_key()
    );
    assert!(second.not_after() > first.not_after());
}

#[tokio::test]
async fn a_changed_file_of_roots_brings_the_authoritys_new_bundle_at_once() {
    let served = Served::start().await;
    let mut kept = Kept::start(served.client(&id("a"), &id("a"), DAY));
    let first = kept.next_svid().await;
    assert_eq!(first.roots().len(), 1);
    served.rotate(Step::Begin);
    let second = within(
        kept.svid
            .wait_for(|svid| svid.as_ref().is_some_and(|svid| svid.roots().len() == 2)),
    );
    assert_ne!(second.await.unwrap().as_ref().unwrap().serial(), first.serial());
}

#[tokio::test]
async fn an_authority_whose_root_was_replaced_is_known_by_the_bundle_that_it_gave() {
    let served = Served::start().await;
    let mut config = served.client(&id("a"), &id("a"), Duration::from_secs(4));
    let copy = served.scratch.join("old-roots.pem");
    std::fs::copy(&ask(&mut config).roots, &copy).unwrap();
    ask(&mut config).roots = copy;
    served.rotate(Step::Begin);
    let mut kept = Kept::start(config);
    assert_eq!(
        kept.next_svid().await.roots().len(),
        2,
        "so it knows the new one from now on"
    );
    served.rotate(Step::Switch);
    served.rotate(Step::Finish);
    let last = within(
        kept.svid
            .wait_for(|svid| svid.as_ref().is_some_and(|svid| svid.roots().len() == 1)),
    );
    last.await.unwrap();
    assert_eq!(kept.status.borrow().failures, 0);
}

#[tokio::test]
async fn without_an_authority_a_certificate_is_used_to_its_end_and_then_withdrawn() {
    let served = Served::start().await;
    let mut kept = Kept::start(served.client(&id("a"), &id("a"), Duration::from_secs(6)));
    kept.next_svid().await;
    served.server.abort();
    let last = kept.svid.borrow().clone().unwrap();
    kept.failure().await;
    assert!(
        kept.svid.borrow().is_some(),
        "a failed renewal takes nothing away"
    );
    within(kept.svid.wait_for(Option::is_none)).await.unwrap();
    assert!(SystemTime::now() >= last.not_after());
    assert!(!last.is_valid_at(SystemTime::now()));
}

#[tokio::test]
async fn a_stopped_service_lets_go_of_its_port_though_a_client_is_connected() {
    let scratch = Scratch::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = issuer::Config {
        listen: address,
        state_dir: scratch.join("state"),
        trust_domain: "td.test".to_owned(),
        leaf_ttl: DAY,
        server_names: vec![],
    };
    let service = Service::open(&config, 1024).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let stop = async { drop(stopped.await) };
        issuer::serve(&config, service, Default::default(), listener, stop).await
    });
    let _stranger = within(tokio::net::TcpStream::connect(address)).await.unwrap();
    stop.send(()).unwrap();
    within(server).await.unwrap().unwrap();
    within(async {
        while TcpListener::bind(address).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[test]
fn nothing_printed_of_an_identity_is_secret() {
    let key = identity::Key::generate().unwrap();
    assert_eq!(format!("{key:?}"), "Key(secret)");
    let ca = Ca::ephemeral("td.test", DAY, SystemTime::now()).unwrap();
    let leaf = ca
        .issue(&key.request(&id("a")).unwrap(), &id("a"), None, SystemTime::now())
        .unwrap();
    let answer = [leaf.pem, ca.bundle().to_owned()];
    let svid = Svid::from_answer(&id("a"), &key, &answer, SystemTime::now()).unwrap();
    let text = format!("{svid:?}");
    assert!(text.contains("sa/a") && !text.contains("key"), "{text}");
}
