//! Who gets to a service behind the guard, and what it hears of them.

use std::time::Duration;

use tonic::Code;
use tonic::server::NamedService;

use super::*;
use crate::issuer::scratch::Scratch;
use crate::issuer::{Config, token};
use crate::model::{Caller, SpiffeId};

/// Says who asks.
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "echo";
}

impl Answers for Echo {
    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        let caller = request.extensions().get::<Caller>();
        let text = caller.map_or("nobody".into(), |caller| caller.identity.to_string());
        Status::already_exists(text).into_http()
    }
}

async fn ask(guarded: &mut Answering<Guarded>, path: &str, authorization: Option<&str>) -> Status {
    let mut request = http::Request::new(Body::empty());
    *request.uri_mut() = path.parse().unwrap();
    if let Some(authorization) = authorization {
        let value = authorization.parse().unwrap();
        request.headers_mut().insert("authorization", value);
    }
    let answer = guarded.call(request).await.unwrap();
    Status::from_header_map(answer.headers()).unwrap()
}

#[tokio::test]
async fn a_service_behind_the_guard_hears_who_asks_and_of_nobody_without_a_token() {
    let scratch = Scratch::new();
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        state_dir: scratch.join("state"),
        trust_domain: "td.test".into(),
        leaf_ttl: Duration::from_secs(3600),
        server_names: vec![],
    };
    let identity = SpiffeId::new("td.test", "demo", "a").unwrap();
    let request = token::Request {
        identity: identity.clone(),
        label: None,
        life: None,
    };
    let token = token::create(&config.state_dir, &request, SystemTime::now()).unwrap();
    let service = Service::open(&config, 1024).unwrap();
    let guard = Guard::new(service.clone(), "/echo/Alone");
    let mut guarded = guard.layer(Routes::new(Answering(Echo)));

    let good = format!("Bearer {}", *token.secret);
    let status = ask(&mut guarded, "/echo/Any", Some(&good)).await;
    assert_eq!(
        (status.code(), status.message()),
        (Code::AlreadyExists, identity.as_str())
    );
    for bad in [
        None,
        Some("Bearer ort_guess"),
        Some("Basic x"),
        Some(&*good.replace("ort_", "ort-")),
    ] {
        let status = ask(&mut guarded, "/echo/Any", bad).await;
        assert_eq!(status.code(), Code::Unauthenticated, "{bad:?}: {status}");
    }
    let refused: u64 = service.counts().refused.iter().map(|(_, count)| count).sum();
    assert_eq!(refused, 4);
    // One call judges by itself.
    let status = ask(&mut guarded, "/echo/Alone", None).await;
    assert_eq!(status.message(), "nobody");
}
