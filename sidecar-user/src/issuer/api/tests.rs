//! Who is answered with a certificate, and what the others are told.

use super::*;
use crate::issuer::scratch::Scratch;
use crate::issuer::token;
use crate::model::SpiffeId;
use futures_util::FutureExt;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use std::path::Path;
use tonic::Code;

struct Fixture {
    service: Arc<Service>,
    token: String,
    scratch: Scratch,
}

fn id(account: &str) -> SpiffeId {
    SpiffeId::new("td.test", "demo", account).unwrap()
}

fn fixture() -> Fixture {
    let scratch = Scratch::new();
    let dir = scratch.join("state");
    let token = make(&dir, "a", None);
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        state_dir: dir,
        trust_domain: "td.test".to_owned(),
        leaf_ttl: Duration::from_secs(3600),
        server_names: vec![],
    };
    Fixture {
        service: Service::open(&config, 1024).unwrap(),
        token,
        scratch,
    }
}

fn make(dir: &Path, account: &str, life: Option<Duration>) -> String {
    let request = token::Request {
        identity: id(account),
        label: None,
        life,
    };
    token::create(dir, &request, SystemTime::now())
        .unwrap()
        .secret
        .to_string()
}

fn message() -> CreateRequest {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    CreateRequest {
        csr: request.pem().unwrap(),
        validity_duration: 60,
        metadata: None,
    }
}

fn impersonating(name: &str) -> CreateRequest {
    let value = Value {
        string_value: Some(name.to_owned()),
    };
    CreateRequest {
        metadata: Some(Struct {
            fields: HashMap::from([("ImpersonatedIdentity".to_owned(), value)]),
        }),
        ..message()
    }
}

impl Fixture {
    fn call(&self, authorization: &str, message: CreateRequest) -> Result<CreateResponse, Status> {
        let mut request = Request::new(message);
        if !authorization.is_empty() {
            let value = authorization.parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        self.call_at(SystemTime::now(), &request)
    }

    fn call_at(&self, now: SystemTime, request: &Request<CreateRequest>) -> Result<CreateResponse, Status> {
        let created = self.service.create(request, now).now_or_never();
        created
            .expect("a list is asked at once")
            .map_err(|denial| denial.status)
    }

    fn with_token(&self, message: CreateRequest) -> Result<CreateResponse, Status> {
        self.call(&format!("Bearer {}", self.token), message)
    }
}

#[test]
fn the_answer_is_the_leaf_and_then_the_root_each_in_a_string_of_its_own() {
    let fixture = fixture();
    let chain = fixture.with_token(message()).unwrap().cert_chain;
    let [leaf, root] = &chain[..] else {
        panic!("{chain:?}");
    };
    assert_eq!(leaf.matches("BEGIN CERTIFICATE").count(), 1);
    assert_eq!(root, fixture.service.store.current().bundle());
}

#[test]
fn nobody_is_served_without_a_known_token() {
    let fixture = fixture();
    let token = fixture.token.clone();
    for authorization in [
        String::new(),
        token.clone(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        "Bearer ort_guess".to_owned(),
        format!("Basic {token}"),
        format!("Bearer {token}0"),
    ] {
        let status = fixture.call(&authorization, message()).unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{authorization}: {status}");
        assert!(!status.message().contains(&token));
    }
    let scheme = format!("bearer {token}");
    assert!(fixture.call(&scheme, message()).is_ok(), "the scheme has no case");
}

#[test]
fn a_token_that_expires_or_is_revoked_while_we_run_is_refused_and_says_so() {
    let fixture = fixture();
    let dir = fixture.scratch.join("state");
    let token = make(&dir, "b", Some(Duration::from_secs(60)));
    let mut request = Request::new(message());
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    let now = SystemTime::now();
    assert!(fixture.call_at(now, &request).is_ok());
    let status = fixture
        .call_at(now + Duration::from_secs(120), &request)
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("expired"), "{status}");
    let listed = token::list(&dir).unwrap();
    let id = &listed.iter().find(|token| token.identity == id("b")).unwrap().id;
    token::revoke(&dir, id).unwrap();
    let status = fixture.call_at(now, &request).unwrap_err();
    assert!(status.message().contains("unknown or revoked"), "{status}");
}

#[test]
fn a_bad_request_is_an_invalid_argument_that_names_the_trouble() {
    let csr = "nonsense".to_owned();
    let status = fixture()
        .with_token(CreateRequest { csr, ..message() })
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("CERTIFICATE REQUEST"), "{status}");
}

#[test]
fn another_identity_is_not_lent() {
    let fixture = fixture();
    let status = fixture.with_token(impersonating(id("b").as_str())).unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(fixture.with_token(impersonating(id("a").as_str())).is_ok());
}

#[test]
fn any_validity_asked_for_is_answered() {
    let fixture = fixture();
    for validity_duration in [i64::MIN, -1, 0, 1, i64::MAX] {
        let message = CreateRequest {
            validity_duration,
            ..message()
        };
        assert!(fixture.with_token(message).is_ok(), "{validity_duration}");
    }
}
