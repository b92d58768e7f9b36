//! One authority for all replicas.

use std::collections::BTreeMap;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::*;
use crate::issuer::Refused;
use crate::issuer::rotation::{Phase, Step};
use crate::kubernetes::fake::Fake;
use crate::kubernetes::{find_config_map, publish};

const SECRET: &str = "/api/v1/namespaces/sys/secrets/outrigger-ca";
const ROOTS: &str = "/api/v1/namespaces/sys/configmaps/outrigger-ca";
const HOUR: Duration = Duration::from_secs(3600);
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn config() -> issuer::Config {
    issuer::Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        state_dir: Default::default(),
        trust_domain: "td.test".into(),
        leaf_ttl: HOUR,
        server_names: vec![],
    }
}

fn kept(fake: &Fake) -> Kept {
    Kept {
        client: fake.client.clone(),
        namespace: "sys".into(),
    }
}

async fn open(fake: &Fake, config: &issuer::Config) -> anyhow::Result<Store> {
    kept(fake).open(config).await
}

fn bundle(store: &Store) -> String {
    store.current().bundle().to_owned()
}

fn service(store: Store) -> Arc<Service> {
    let refuse = |_, _| {
        let refused = Err(issuer::Doubt::new(Refused::UnknownToken, "nobody is known"));
        Box::pin(std::future::ready(refused)) as std::pin::Pin<Box<dyn Future<Output = _> + Send>>
    };
    Service::reviewed(store, Arc::new(refuse), 1024)
}

#[tokio::test]
async fn replicas_that_start_at_the_same_time_have_the_same_root() {
    let fake = Fake::start().await;
    let config = config();
    let open = || open(&fake, &config);
    let (a, b, c) = tokio::join!(open(), open(), open());
    let [a, b, c] = [a, b, c].map(|store| bundle(&store.unwrap()));
    assert!(a == b && b == c);
    assert_eq!(bundle(&open().await.unwrap()), a, "a later one too");
    let kept = fake.get(SECRET).unwrap();
    let keys: Vec<_> = kept["data"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["root-cert.pem", "root-key.pem", "rotation.json"]);
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_is_refused_as_a_whole_and_stays_as_it_is() {
    let fake = Fake::start().await;
    open(&fake, &config()).await.unwrap();
    let good = fake.get(SECRET).unwrap();
    for (key, value, reason) in [
        ("root-key.pem", json!("anVuaw=="), "root-key.pem"),
        ("root-cert.pem", json!("anVuaw=="), "no certificate"),
        ("root-cert.pem", json!("/w=="), "no text"),
    ] {
        let mut damaged = good.clone();
        damaged["data"][key] = value;
        fake.put(SECRET, damaged.clone());
        let error = open(&fake, &config()).await.err().unwrap();
        let error = format!("{error:#}");
        assert!(
            error.contains("Secret sys/outrigger-ca") && error.contains(reason),
            "{error}"
        );
        assert_eq!(fake.get(SECRET).unwrap()["data"], damaged["data"]);
    }
    let mut half = good.clone();
    half["data"].as_object_mut().unwrap().remove("root-key.pem");
    fake.put(SECRET, half);
    let error = open(&fake, &config()).await.err().unwrap();
    assert!(format!("{error:#}").contains("it is missing"), "{error:#}");
    fake.put(SECRET, good);
    let other = issuer::Config {
        trust_domain: "other.test".into(),
        ..config()
    };
    let error = open(&fake, &other).await.err().unwrap();
    assert!(
        format!("{error:#}").contains("trust domain `td.test`"),
        "{error:#}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_is_waited_for() {
    let fake = Fake::start().await;
    fake.away(true);
    let config = config();
    let opening = open(&fake, &config);
    tokio::pin!(opening);
    tokio::select! {
        _ = &mut opening => panic!("there is nothing to open"),
        () = async { while fake.asked(SECRET) < 3 { tokio::time::sleep(AGAIN).await } } => {}
    }
    fake.away(false);
    opening.await.unwrap();
}

#[tokio::test]
async fn a_secret_that_changes_is_taken_up_and_one_that_is_damaged_or_gone_is_not() {
    let fake = Fake::start().await;
    let service = service(open(&fake, &config()).await.unwrap());
    let before = bundle(service.store());
    let damaged = Secret(BTreeMap::from([(
        Material::ROOTS.to_owned(),
        Zeroizing::new(before.clone().into_bytes()),
    )]));
    let change = |change| {
        let changes = futures_util::stream::iter([change]);
        take_up(changes, "sys", &service)
    };
    change(SecretChange::Now(damaged)).await;
    change(SecretChange::Gone).await;
    change(SecretChange::Trouble("away".into())).await;
    assert_eq!(bundle(service.store()), before);
    let other = Material::fresh("td.test").unwrap();
    let roots = other.roots.clone();
    change(SecretChange::Now(secret(other, Secret::default()))).await;
    assert_eq!(bundle(service.store()), roots);
}

/// A replica that keeps in order what it is to, and hears of the Secret only by looking.
struct Replica {
    service: Arc<Service>,
    elsewhere: watch::Sender<Elsewhere>,
    keeping: JoinHandle<()>,
}

impl Replica {
    async fn start(fake: &Fake, elsewhere: Elsewhere) -> Self {
        let service = service(open(fake, &config()).await.unwrap());
        let roots = Roots::new(service.clone(), Some(kept(fake)));
        let (elsewhere, seen) = watch::channel(elsewhere);
        let kept = kept(fake);
        let keeping = tokio::spawn(async move { keep::run(&kept, &roots, seen).await });
        Self {
            service,
            elsewhere,
            keeping,
        }
    }

    /// As its watch would tell it.
    async fn hears(&self, fake: &Fake) -> String {
        kept(fake).roots(&self.service).await.unwrap().unwrap()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

async fn seen(what: &str, is_so: impl Fn() -> bool) {
    let seen = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await
        }
    };
    timeout(PATIENCE, seen).await.expect(what);
}

fn published(fake: &Fake) -> serde_json::Value {
    fake.get(ROOTS).unwrap_or_default()["data"]["root-cert.pem"].clone()
}

#[tokio::test]
async fn the_roots_are_published_and_published_again_when_they_change() {
    let fake = Fake::start().await;
    let replica = Replica::start(&fake, Elsewhere::Nowhere).await;
    let first = bundle(replica.service.store());
    seen("the roots are published", || published(&fake) == *first).await;
    rotate::take(&kept(&fake), Step::Begin, false).await.unwrap();
    let both = replica.hears(&fake).await;
    assert_eq!(both.matches("BEGIN").count(), 2);
    seen("both are", || published(&fake) == *both).await;
}

#[tokio::test]
async fn both_roots_count_as_published_once_they_are_in_the_other_place_too() {
    let fake = Fake::start().await;
    let replica = Replica::start(&fake, Elsewhere::Unknown).await;
    rotate::take(&kept(&fake), Step::Begin, false).await.unwrap();
    let both = replica.hears(&fake).await;
    seen("both are published", || published(&fake) == *both).await;
    replica
        .elsewhere
        .send_replace(Elsewhere::Holds("the elder one".into()));
    let error = rotate::take(&kept(&fake), Step::Switch, false).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("has not published both roots yet"),
        "{error:#}"
    );
    replica.elsewhere.send_replace(Elsewhere::Holds(both));
    let kept = kept(&fake);
    let noted = async {
        while rotate::status(&kept).await.unwrap().unpublished {
            tokio::time::sleep(Duration::from_millis(20)).await
        }
    };
    timeout(PATIENCE, noted).await.expect("it is noted");
    let error = rotate::take(&kept, Step::Switch, false).await.unwrap_err();
    assert!(format!("{error:#}").contains("wait until"), "{error:#}");
}

#[tokio::test]
async fn a_replica_that_hears_late_does_not_bring_back_the_roots_of_before() {
    let fake = Fake::start().await;
    let (late, prompt) = tokio::join!(
        Replica::start(&fake, Elsewhere::Nowhere),
        Replica::start(&fake, Elsewhere::Nowhere)
    );
    let old = bundle(late.service.store());
    seen("the root is published", || published(&fake) == *old).await;
    late.keeping.abort();
    rotate::take(&kept(&fake), Step::Begin, false).await.unwrap();
    let both = prompt.hears(&fake).await;
    seen("both are published", || published(&fake) == *both).await;
    assert_eq!(bundle(late.service.store()), old, "it has not heard of it");
    let roots = Roots::new(late.service.clone(), Some(kept(&fake)));
    assert_eq!(roots.now().await.unwrap(), both);
    // And what it has read before, it does not write afterwards.
    let before = find_config_map(&fake.client, "sys", NAME).await.unwrap();
    rotate::take(&kept(&fake), Step::Abort, false).await.unwrap();
    let one = prompt.hears(&fake).await;
    seen("one is published", || published(&fake) == *one).await;
    let written = publish(&fake.client, "sys", NAME, &before, Material::ROOTS, &both).await;
    assert!(!written.unwrap());
    assert_eq!(published(&fake), *one);
}

#[tokio::test]
async fn of_two_operators_one_takes_the_step_and_the_other_hears_how_things_stand() {
    let fake = Fake::start().await;
    open(&fake, &config()).await.unwrap();
    let kept = kept(&fake);
    let begin = || rotate::take(&kept, Step::Begin, false);
    let (a, b, c) = tokio::join!(begin(), begin(), begin());
    let taken = [a, b, c];
    assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 1, "{taken:?}");
    for error in taken.into_iter().filter_map(Result::err) {
        assert!(
            format!("{error:#}").contains("possible is switch or abort"),
            "{error:#}"
        );
    }
    assert_eq!(rotate::status(&kept).await.unwrap().phase, Phase::Overlap);
}

#[tokio::test]
async fn a_step_changes_what_is_its_own_and_nothing_that_others_keep_in_the_secret() {
    let fake = Fake::start().await;
    open(&fake, &config()).await.unwrap();
    let mut secret = fake.get(SECRET).unwrap();
    secret["metadata"]["labels"] = json!({ "backup": "nightly" });
    secret["data"]["note"] = json!("aGVsbG8=");
    fake.put(SECRET, secret.clone());
    for step in [Step::Begin, Step::Switch, Step::Finish] {
        rotate::take(&kept(&fake), step, true).await.unwrap();
    }
    let after = fake.get(SECRET).unwrap();
    assert_eq!(after["metadata"]["labels"], secret["metadata"]["labels"]);
    assert_eq!(after["data"]["note"], secret["data"]["note"]);
    assert_ne!(after["data"]["root-key.pem"], secret["data"]["root-key.pem"]);
    let keys: Vec<_> = after["data"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["note", "root-cert.pem", "root-key.pem", "rotation.json"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_may_note_nothing_does_not_serve() {
    let fake = Fake::start().await;
    open(&fake, &config()).await.unwrap();
    let mut secret = fake.get(SECRET).unwrap();
    secret["data"].as_object_mut().unwrap().remove("rotation.json");
    fake.put(SECRET, secret);
    fake.forbid(SECRET);
    let config = config();
    let opening = open(&fake, &config);
    let asked = async {
        while fake.asked(SECRET) < 12 {
            tokio::time::sleep(AGAIN).await
        }
    };
    tokio::select! {
        _ = opening => panic!("it would sign without a note of it"),
        () = asked => {}
    }
}

#[tokio::test]
async fn a_rotation_of_a_secret_that_is_not_there_says_so() {
    let fake = Fake::start().await;
    let error = rotate::status(&kept(&fake)).await.unwrap_err().to_string();
    assert!(error.contains("Secret sys/outrigger-ca is not there"), "{error}");
}
