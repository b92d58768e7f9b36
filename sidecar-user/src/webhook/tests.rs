//! The webhook over real TLS, as the API server asks it.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate::{self, Keys};
use super::{Counts, server};
use crate::inject::Profile;

const NAME: &str = "control.test";

struct Served {
    address: std::net::SocketAddr,
    connector: TlsConnector,
    counts: Arc<Counts>,
}

async fn serve() -> Served {
    let keys = Arc::new(Keys::new(vec![NAME.into()], SystemTime::now()).unwrap());
    let mut roots = RootCertStore::empty();
    for pem in keys.authorities() {
        roots
            .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
            .unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, counts) = (listener.local_addr().unwrap(), Arc::new(Counts::default()));
    let tls = certificate::tls(keys).unwrap();
    tokio::spawn(server::serve(
        listener,
        tls,
        Arc::new(Profile::new("x:1")),
        counts.clone(),
    ));
    Served {
        address,
        connector: TlsConnector::from(Arc::new(client)),
        counts,
    }
}

impl Served {
    async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        self.connector.connect(name, stream).await.unwrap()
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = self.connect().await;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // Who is refused for the length of his body may find the connection closed.
        let _ = stream.write_all(body.as_bytes()).await;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0);
        (
            status,
            answer.split_once("\r\n\r\n").unwrap_or_default().1.to_owned(),
        )
    }
}

fn question() -> String {
    let pod =
        json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "main", "image": "x" }] } });
    let request = json!({ "uid": "u", "kind": { "kind": "Pod" }, "operation": "CREATE", "namespace": "shop", "object": pod });
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request }).to_string()
}

#[tokio::test]
async fn a_question_is_answered_over_tls_by_the_authority_that_is_published() {
    let served = serve().await;
    let (status, body) = served.ask("POST", "/inject", &question()).await;
    assert_eq!(status, 200, "{body}");
    let review: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&review["response"]["allowed"], &review["response"]["patchType"]),
        (&json!(true), &json!("JSONPatch"))
    );
    assert_eq!(served.counts.read(), [("injected", 1)]);
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let served = serve().await;
    assert_eq!(served.ask("POST", "/other", "").await.0, 404);
    assert_eq!(served.ask("GET", "/inject", "").await.0, 405);
    assert_eq!(served.ask("POST", "/inject", "{}").await.0, 400);
    assert_eq!(served.counts.read(), [("bad", 1)]);
    let long = " ".repeat((4 << 20) + 1);
    let (status, _) = served.ask("POST", "/inject", &long).await;
    assert!(status == 413 || status == 0, "{status}");
    assert_eq!(served.counts.read(), [("bad", 1)], "it was not read");
}

#[tokio::test]
async fn whoever_holds_all_places_makes_room_for_the_next_one() {
    let served = serve().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    assert_eq!(served.ask("POST", "/inject", &question()).await.0, 200);
}
