//! One authority for all replicas.

use serde_json::json;
use tokio::time::timeout;

use super::*;
use crate::issuer::Refused;
use crate::kubernetes::fake::Fake;

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
    let open = || open(&fake.client, "sys", &config);
    let (a, b, c) = tokio::join!(open(), open(), open());
    let [a, b, c] = [a, b, c].map(|store| bundle(&store.unwrap()));
    assert!(a == b && b == c);
    assert_eq!(bundle(&open().await.unwrap()), a, "a later one too");
    let kept = fake.get(SECRET).unwrap();
    let keys: Vec<_> = kept["data"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["root-cert.pem", "root-key.pem"]);
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_is_refused_as_a_whole_and_stays_as_it_is() {
    let fake = Fake::start().await;
    open(&fake.client, "sys", &config()).await.unwrap();
    let good = fake.get(SECRET).unwrap();
    for (key, value, reason) in [
        ("root-key.pem", json!("anVuaw=="), "root-key.pem"),
        ("root-cert.pem", json!("anVuaw=="), "no certificate"),
        ("root-cert.pem", json!("/w=="), "no text"),
    ] {
        let mut damaged = good.clone();
        damaged["data"][key] = value;
        fake.put(SECRET, damaged.clone());
        let error = open(&fake.client, "sys", &config()).await.err().unwrap();
        let error = format!("{error:#}");
        assert!(
            error.contains("Secret sys/outrigger-ca") && error.contains(reason),
            "{error}"
        );
        assert_eq!(fake.get(SECRET).unwrap(), damaged);
    }
    let mut half = good.clone();
    half["data"].as_object_mut().unwrap().remove("root-key.pem");
    fake.put(SECRET, half);
    let error = open(&fake.client, "sys", &config()).await.err().unwrap();
    assert!(format!("{error:#}").contains("it is missing"), "{error:#}");
    fake.put(SECRET, good);
    let other = issuer::Config {
        trust_domain: "other.test".into(),
        ..config()
    };
    let error = open(&fake.client, "sys", &other).await.err().unwrap();
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
    let opening = open(&fake.client, "sys", &config);
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
    let service = service(open(&fake.client, "sys", &config()).await.unwrap());
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
    change(SecretChange::Now(secret(other))).await;
    assert_eq!(bundle(service.store()), roots);
}

#[tokio::test]
async fn the_roots_are_published_and_published_again_when_they_change() {
    let fake = Fake::start().await;
    let service = service(open(&fake.client, "sys", &config()).await.unwrap());
    let (client, served) = (fake.client.clone(), service.clone());
    let publishing = tokio::spawn(async move { publish_roots(&client, "sys", &served).await });
    let published = async |roots: &str| {
        let seen = || {
            let map = fake.get(ROOTS)?;
            Some(map["data"]["root-cert.pem"] == roots)
        };
        let seen = async {
            while seen() != Some(true) {
                tokio::time::sleep(Duration::from_millis(20)).await
            }
        };
        timeout(PATIENCE, seen).await.expect("it took too long");
    };
    published(&bundle(service.store())).await;
    service
        .store()
        .replace(&Material::fresh("td.test").unwrap())
        .unwrap();
    published(&bundle(service.store())).await;
    publishing.abort();
}
