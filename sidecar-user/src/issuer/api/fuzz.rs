//! What has to hold of a call, whoever makes it: a certificate goes only to who shows a token that is known, and for no
//! other name than the token's.

use std::cell::OnceCell;
use std::sync::Arc;

use futures_util::FutureExt;
use prost::Message;
use tonic::Request;
use tonic::metadata::MetadataValue;

use super::{CreateRequest, Service};
use crate::issuer::fuzz::{check_leaf, id, now};
use crate::issuer::scratch::Scratch;
use crate::issuer::{Config, token};

/// Stands for a token that is known, because tokens are made at random.
const KNOWN: &[u8] = b"@TOKEN";

struct Desk {
    authority: Arc<Service>,
    token: String,
    /// Holds the list of tokens for as long as the thread lives.
    _state: Scratch,
}

thread_local! {
    static DESK: OnceCell<Desk> = const { OnceCell::new() };
}

impl Desk {
    fn open() -> Self {
        let state = Scratch::new();
        let dir = state.join("state");
        let wanted = token::Request {
            identity: id(),
            label: None,
            life: None,
        };
        let made = token::create(&dir, &wanted, now()).expect("the directory is ours");
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            state_dir: dir,
            trust_domain: "td.test".to_owned(),
            leaf_ttl: crate::issuer::fuzz::DAY,
            server_names: vec![],
        };
        Self {
            authority: Service::open(&config, 1024).expect("the directory is ours"),
            token: made.secret.to_string(),
            _state: state,
        }
    }

    fn call(&self, authorization: &[u8], message: &[u8]) -> Result<String, String> {
        let message = CreateRequest::decode(message).map_err(|error| error.to_string())?;
        let mut request = Request::new(message);
        if !authorization.is_empty() {
            let value = MetadataValue::try_from(&*self.with_token(authorization))
                .map_err(|error| error.to_string())?;
            request.metadata_mut().insert("authorization", value);
        }
        let answer = self.authority.create(&request, now()).now_or_never();
        let answer = answer.expect("a list is asked at once");
        let response = answer.map_err(|denial| denial.status.message().to_owned())?;
        assert!(authorization.windows(KNOWN.len()).any(|piece| piece == KNOWN));
        let impersonated = request.get_ref().impersonated();
        assert!(
            impersonated.is_none_or(|name| name == id().as_str()),
            "{impersonated:?}"
        );
        let [leaf, ..] = &response.cert_chain[..] else {
            panic!("an answer without a certificate");
        };
        check_leaf(&self.authority.store().current(), leaf);
        Ok(String::new())
    }

    fn with_token(&self, authorization: &[u8]) -> Vec<u8> {
        match authorization
            .windows(KNOWN.len())
            .position(|piece| piece == KNOWN)
        {
            Some(at) => [
                &authorization[..at],
                self.token.as_bytes(),
                &authorization[at + KNOWN.len()..],
            ]
            .concat(),
            None => authorization.to_vec(),
        }
    }
}

pub(crate) fn call(authorization: &[u8], message: &[u8]) -> Result<String, String> {
    DESK.with(|desk| desk.get_or_init(Desk::open).call(authorization, message))
}
