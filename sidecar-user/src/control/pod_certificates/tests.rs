//! The signer before an API server that is made of answers: versions, both replicas' race, refusals, and the roots.

use std::sync::Mutex;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::issuer::scratch::Scratch;
use crate::issuer::{self, Service};

const REQUEST: &str = "/apis/certificates.k8s.io/v1beta1/namespaces/demo/podcertificaterequests/req-1/status";
const BUNDLES: &str = "/apis/certificates.k8s.io/v1beta1/clustertrustbundles";
const BUNDLE: &str = "/apis/certificates.k8s.io/v1beta1/clustertrustbundles/outrigger.example:workload:root";

/// What was asked: method, path, body.
type Asked = (String, String, Value);

/// Ends when dropped.
struct Server {
    client: Client,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(answer: impl Fn(&Asked) -> (u16, Value) + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::at(&format!("http://{}", listener.local_addr().unwrap()));
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let heard = asked.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, heard) = (answer.clone(), heard.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (answer, heard) = (answer.clone(), heard.clone());
                        async move {
                            let (head, body) = request.into_parts();
                            let body = body.collect().await?.to_bytes();
                            let asked = (
                                head.method.to_string(),
                                head.uri.path().to_owned(),
                                serde_json::from_slice(&body).unwrap_or(Value::Null),
                            );
                            let (status, value) = answer(&asked);
                            heard.lock().unwrap().push(asked);
                            let response = Response::builder().status(status);
                            let body = Full::new(Bytes::from(value.to_string()));
                            Ok::<_, hyper::Error>(response.body(body).unwrap())
                        }
                    });
                    let served = hyper::server::conn::http1::Builder::new();
                    let _ = served.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { client, asked, task }
    }

    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn status(code: u16, message: &str) -> (u16, Value) {
    let text = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message,
        "reason": if code == 404 { "NotFound" } else { "" } });
    (code, text)
}

fn kinds(plurals: &[&str]) -> (u16, Value) {
    let resources: Vec<Value> = plurals
        .iter()
        .map(|name| json!({ "name": name, "singularName": "", "namespaced": true, "kind": "X", "verbs": [] }))
        .collect();
    (200, json!({ "groupVersion": "x", "resources": resources }))
}

/// A signer with a root of its own.
fn signer(server: &Server, scratch: &Scratch) -> Signer {
    let config = issuer::Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        state_dir: scratch.join("state"),
        trust_domain: "td.test".to_owned(),
        leaf_ttl: Duration::from_secs(86_400),
        server_names: vec![],
    };
    Signer {
        client: server.client.clone(),
        roots: Roots::new(Service::open(&config, 1024).unwrap(), None),
        stats: Arc::default(),
    }
}

fn request() -> PodCertificateRequest {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let stub = params.serialize_request(&key).unwrap().der().to_vec();
    PodCertificateRequest::from_json(json!({
        "metadata": { "name": "req-1", "namespace": "demo", "uid": "u", "resourceVersion": "7" },
        "spec": { "podName": "web-1", "nodeName": "n1", "serviceAccountName": "web", "maxExpirationSeconds": 86400,
                  "stubPKCS10Request": serde_json::to_value(k8s_openapi::ByteString(stub)).unwrap() },
    }))
}

fn outcome(stats: &Stats, wanted: &str) -> u64 {
    let outcomes = stats.counts().outcomes;
    outcomes.into_iter().find(|(name, _)| *name == wanted).unwrap().1
}

#[tokio::test]
async fn the_best_version_that_is_served_is_taken_for_each_kind() {
    let server = Server::start(|(_, path, _)| match path.as_str() {
        "/apis/certificates.k8s.io/v1" => kinds(&["certificatesigningrequests", "clustertrustbundles"]),
        _ => kinds(&[
            "podcertificaterequests",
            "podcertificaterequests/status",
            "clustertrustbundles",
        ]),
    })
    .await;
    let found = look(&server.client).await.unwrap();
    let version = |served: &Option<Served>| served.as_ref().map(|served| served.version().to_owned());
    assert_eq!(
        version(&found.pod_certificate_requests).as_deref(),
        Some("v1beta1")
    );
    assert_eq!(version(&found.trust_bundles).as_deref(), Some("v1"));
}

#[tokio::test]
async fn a_server_without_them_has_none_and_one_that_cannot_be_asked_is_an_error() {
    let server = Server::start(|_| status(404, "not found")).await;
    assert_eq!(look(&server.client).await.unwrap(), CertificateKinds::default());
    let server = Server::start(|_| status(503, "starting")).await;
    assert_eq!(look(&server.client).await.unwrap_err(), "starting");
}

#[tokio::test]
async fn a_request_is_answered_with_a_certificate_for_its_pods_account() {
    let server = Server::start(|(_, _, body)| (200, body.clone())).await;
    let scratch = Scratch::new();
    let signer = signer(&server, &scratch);
    let answered = signer.answer(&Served::of_requests("v1beta1"), &request()).await;
    assert_eq!(
        (answered, outcome(&signer.stats, "issued")),
        (Outcome::Settled, 1)
    );
    let asked = server.asked();
    let [(method, path, body)] = asked.as_slice() else {
        panic!("{asked:?}");
    };
    assert_eq!((method.as_str(), path.as_str()), ("PUT", REQUEST));
    assert_eq!(body["metadata"]["resourceVersion"], "7");
    let chain = body["status"]["certificateChain"].as_str().unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(chain.as_bytes()).unwrap();
    let cert = pem.parse_x509().unwrap();
    assert_eq!(
        crate::pki::uris(&cert).unwrap(),
        ["spiffe://td.test/ns/demo/sa/web"]
    );
}

#[tokio::test]
async fn the_answer_of_another_replica_is_left_as_it_is() {
    for code in [409, 404] {
        let server = Server::start(move |_| status(code, "changed")).await;
        let scratch = Scratch::new();
        let signer = signer(&server, &scratch);
        let answered = signer.answer(&Served::of_requests("v1beta1"), &request()).await;
        assert_eq!(answered, Outcome::Changed);
        assert_eq!(
            (
                outcome(&signer.stats, "conflict"),
                outcome(&signer.stats, "issued")
            ),
            (1, 0)
        );
        assert_eq!(server.asked().len(), 1, "it is not insisted");
    }
}

#[tokio::test]
async fn a_certificate_that_the_api_server_rejects_fails_the_request_with_its_reason() {
    let server = Server::start(
        |(_, _, body)| match body["status"]["conditions"][0]["type"].as_str() {
            Some("Issued") => status(422, "status.notAfter: too late"),
            _ => (200, body.clone()),
        },
    )
    .await;
    let scratch = Scratch::new();
    let signer = signer(&server, &scratch);
    let answered = signer.answer(&Served::of_requests("v1beta1"), &request()).await;
    assert_eq!(
        (answered, outcome(&signer.stats, "failed")),
        (Outcome::Settled, 1)
    );
    let (_, _, last) = server.asked().pop().unwrap();
    let condition = &last["status"]["conditions"][0];
    assert_eq!(
        (condition["type"].as_str(), condition["reason"].as_str()),
        (Some("Failed"), Some("Rejected"))
    );
    assert!(
        condition["message"].as_str().unwrap().contains("notAfter"),
        "{condition}"
    );
}

#[tokio::test]
async fn without_the_right_to_sign_or_an_api_server_the_request_waits() {
    for (code, message) in [
        (422, "is not permitted to \"sign\""),
        (403, "forbidden"),
        (500, "etcd"),
    ] {
        let server = Server::start(move |_| status(code, message)).await;
        let scratch = Scratch::new();
        let signer = signer(&server, &scratch);
        let answered = signer.answer(&Served::of_requests("v1beta1"), &request()).await;
        assert_eq!(
            (answered, outcome(&signer.stats, "error")),
            (Outcome::Failed, 1),
            "{message}"
        );
        assert_eq!(
            outcome(&signer.stats, "issued") + outcome(&signer.stats, "failed"),
            0
        );
    }
}

#[tokio::test]
async fn a_denial_is_written_with_its_reason() {
    let server = Server::start(|(_, _, body)| (200, body.clone())).await;
    let scratch = Scratch::new();
    let signer = signer(&server, &scratch);
    let mut request = request();
    request.annotations = vec!["a.example/b".to_owned()];
    signer.answer(&Served::of_requests("v1beta1"), &request).await;
    assert_eq!(outcome(&signer.stats, "denied"), 1);
    let (_, _, body) = server.asked().pop().unwrap();
    assert_eq!(body["status"]["conditions"][0]["reason"], "UnknownAnnotation");
    assert!(body["status"].get("certificateChain").is_none());
}

#[tokio::test]
async fn the_roots_are_made_changed_and_left_alone() {
    let bundle = |roots: &str| {
        json!({
            "apiVersion": "certificates.k8s.io/v1beta1", "kind": "ClusterTrustBundle",
            "metadata": { "name": TRUST_BUNDLE, "resourceVersion": "3", "labels": { "a": "b" } },
            "spec": { "signerName": SIGNER, "trustBundle": roots },
        })
    };
    let publish = async |answer: (u16, Value)| {
        let server = Server::start(move |(method, _, body)| match method.as_str() {
            "GET" => answer.clone(),
            _ => (200, body.clone()),
        })
        .await;
        let served = Served::of_bundles("v1beta1");
        let client = &server.client;
        let found = find_trust_bundle(client, &served, TRUST_BUNDLE).await.unwrap();
        let done = publish_trust_bundle(client, &served, TRUST_BUNDLE, found, SIGNER, "NEW").await;
        (done.unwrap().unwrap(), server.asked())
    };
    let (done, asked) = publish(status(404, "not found")).await;
    let (method, path, body) = asked.last().unwrap();
    assert_eq!(
        (done, method.as_str(), path.as_str()),
        (Published::Made, "POST", BUNDLES)
    );
    assert_eq!(
        (&body["spec"]["trustBundle"], &body["spec"]["signerName"]),
        (&json!("NEW"), &json!(SIGNER))
    );
    let (done, asked) = publish((200, bundle("OLD"))).await;
    let (method, path, body) = asked.last().unwrap();
    assert_eq!(
        (done, method.as_str(), path.as_str()),
        (Published::Changed, "PUT", BUNDLE)
    );
    assert_eq!(
        body["metadata"],
        bundle("")["metadata"],
        "what others wrote stays"
    );
    let (done, asked) = publish((200, bundle("NEW"))).await;
    assert_eq!((done, asked.len()), (Published::Unchanged, 1));
}

#[tokio::test]
async fn roots_are_not_written_over_those_that_another_replica_has_written_meanwhile() {
    let server = Server::start(move |(method, _, _)| match method.as_str() {
        "GET" => status(404, "not found"),
        _ => status(409, "conflict"),
    })
    .await;
    let scratch = Scratch::new();
    let signer = signer(&server, &scratch);
    let published = signer.publish_once(&Served::of_bundles("v1beta1")).await;
    assert_eq!(published, Ok(None), "what it holds is to be looked at again");
}
