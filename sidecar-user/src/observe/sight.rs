//! What a proxy says of itself beside its flows: who it is, whom it could dial and whom it lets in. Takes the questions apart and
//! writes the answers down; what they are, the role knows.

use super::endpoints::{EndpointList, EndpointsQuestion};
use super::http::Caller;
use super::identity::IdentityReport;
use super::policies::{PoliciesQuestion, PolicyReport};

/// The role brings the closures.
pub struct Sight {
    /// Not everybody is told whence certificates come, and why there is none.
    pub identity: Box<dyn Fn(Caller) -> IdentityReport + Send + Sync>,
    pub endpoints: Box<dyn Fn(&EndpointsQuestion) -> EndpointList + Send + Sync>,
    pub policies: Box<AnswerPolicies>,
}

/// An error is a sentence for the caller.
pub type AnswerPolicies = dyn Fn(&PoliciesQuestion) -> Result<PolicyReport, String> + Send + Sync;

impl Sight {
    /// In JSON; an error is a sentence for the caller.
    pub(super) fn answer(&self, path: &str, query: &str, caller: Caller) -> Result<String, String> {
        let written = match path {
            "/identity" => serde_json::to_string(&(self.identity)(caller)),
            "/endpoints" => serde_json::to_string(&(self.endpoints)(&EndpointsQuestion::parse(query)?)),
            _ => serde_json::to_string(&(self.policies)(&PoliciesQuestion::parse(query)?)?),
        };
        written.map_err(|error| format!("cannot write JSON: {error}"))
    }

    #[cfg(test)]
    pub(super) fn of_nothing() -> Self {
        use std::time::SystemTime;

        let id = crate::model::SpiffeId::new("td.test", "demo", "web").expect("an identity");
        let source = |caller| super::identity::SourceReport {
            kind: "authority".into(),
            from: (caller == Caller::Owner).then(|| "https://control.test".into()),
            signer: None,
        };
        Self {
            identity: Box::new(move |caller| {
                IdentityReport::new(&id, source(caller), None, SystemTime::UNIX_EPOCH)
            }),
            endpoints: Box::new(|question| EndpointList {
                pod: None,
                asked: question.to_string(),
                knowledge: "unknown".into(),
                summary: String::new(),
                service: None,
                registry: super::endpoints::RegistryReport::default(),
                endpoints: Vec::new(),
                truncated: false,
            }),
            policies: Box::new(|_| Err("nobody knows".into())),
        }
    }
}
