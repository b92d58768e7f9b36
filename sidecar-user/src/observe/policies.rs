//! `/policies`: what is asked, and what a proxy answers: which policies hold for its workload, and whether somebody would be let in.
//! The contract; what the answer is, the role knows.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::endpoints::RegistryReport;
use super::filter::misfit;
use crate::model::SpiffeId;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoliciesQuestion {
    /// Would this one be let in?
    pub from: Option<PolicySource>,
    /// The application's port.
    pub port: Option<u16>,
    /// Where the connection comes from.
    pub address: Option<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicySource {
    /// With no identity.
    Plaintext,
    Id(SpiffeId),
    /// Of the trust domain of whoever answers.
    Account {
        namespace: String,
        name: String,
    },
}

/// Names of closed sets are strings here, so that an older reader understands a newer writer. A field that is not known
/// is `null`, never absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyReport {
    /// `namespace/name`, where a node's agent answers; `null` where the pod's own proxy does.
    pub pod: Option<String>,
    /// `namespace/name`, as the proxy is told.
    pub workload: String,
    pub identity: String,
    /// `permissive` or `strict`: whether the proxy's own configuration lets plaintext in.
    pub mode: Cow<'static, str>,
    /// Whether the registry lists the workload, so that it is known which policies select it.
    pub listed: bool,
    pub registry: RegistryReport,
    pub policies: Vec<PolicyStanding>,
    /// What else decides, in words.
    pub notes: Vec<String>,
    /// Where the question names somebody.
    pub verdict: Option<PolicyVerdict>,
}

/// A policy that holds for the workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStanding {
    /// `namespace/name`.
    pub name: String,
    /// `policy`, or `peer_authentication`: made of Istio's object of that kind.
    pub kind: Cow<'static, str>,
    /// `allow` or `deny`; `unknown` where the registry does not have it, and nobody gets in.
    pub action: Cow<'static, str>,
    /// `mesh`, `namespace` or `workload`.
    pub scope: Cow<'static, str>,
    /// Why it holds for this workload.
    pub because: String,
    /// Its verdict is told and not obeyed.
    pub dry_run: bool,
    pub rules: usize,
    /// The number of its first rule that applies to whom the question names, from 0.
    pub applies: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyVerdict {
    /// Who: a SPIFFE ID, or `none`.
    pub from: String,
    pub port: Option<u16>,
    pub address: Option<String>,
    /// `allowed`, `denied`, or `depends` on what the question does not say.
    pub result: Cow<'static, str>,
    /// By whose rule.
    pub policy: Option<String>,
    pub rule: Option<usize>,
    /// Why, in words.
    pub reason: String,
    /// What would be decided if dry runs were obeyed; `null` where there are none.
    pub dry_run: Option<String>,
}

const WANT: &str = "none, a SPIFFE ID or NAMESPACE/ACCOUNT";

impl PoliciesQuestion {
    /// An error is a sentence for the caller.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut question = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let wrong = |want: &str| misfit(&name, &value, want);
            match &*name {
                "from" => question.from = Some(value.parse().map_err(|()| wrong(WANT))?),
                "port" => question.port = Some(value.parse().map_err(|_| wrong("a port"))?),
                "address" => {
                    let from: IpAddr = value
                        .parse()
                        .map_err(|_| wrong("an address such as 10.0.0.1 or fd00::1"))?;
                    question.address = Some(from.to_canonical());
                }
                _ => {
                    return Err(format!(
                        "unknown parameter `{}`; there are from, port, address",
                        name.escape_debug()
                    ));
                }
            }
        }
        if question.from.is_none() && (question.port.is_some() || question.address.is_some()) {
            return Err(format!("`from` is missing: who is to be let in? {WANT}"));
        }
        Ok(question)
    }
}

impl FromStr for PolicySource {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "none" {
            return Ok(Self::Plaintext);
        }
        if text.starts_with("spiffe://") {
            return text.parse().map(Self::Id).map_err(drop);
        }
        let (namespace, name) = text.split_once('/').ok_or(())?;
        // The trust domain plays no part in what may stand behind it.
        SpiffeId::new("td", namespace, name).map_err(drop)?;
        Ok(Self::Account {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// As the query has it.
impl fmt::Display for PolicySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plaintext => f.write_str("none"),
            Self::Id(id) => id.fmt(f),
            Self::Account { namespace, name } => write!(f, "{namespace}/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_has_an_identity_an_account_or_nothing() {
        let from = |query: &str| {
            PoliciesQuestion::parse(query)
                .unwrap()
                .from
                .map(|from| from.to_string())
        };
        assert_eq!(from(""), None);
        assert_eq!(from("from=none&port=80").unwrap(), "none");
        assert_eq!(from("from=demo%2Fclient").unwrap(), "demo/client");
        let id = "spiffe://td.test/ns/demo/sa/client";
        assert_eq!(from(&format!("from={id}&address=::ffff:10.0.0.1")).unwrap(), id);
    }

    #[test]
    fn a_wrong_question_is_answered_with_what_is_right() {
        for (query, part) in [
            ("from=", "SPIFFE ID or NAMESPACE/ACCOUNT"),
            ("from=client", "SPIFFE ID or NAMESPACE/ACCOUNT"),
            ("from=a/b/c", "SPIFFE ID or NAMESPACE/ACCOUNT"),
            ("from=spiffe://td/client", "SPIFFE ID or NAMESPACE/ACCOUNT"),
            ("from=none&port=http", "a port"),
            ("from=none&address=web", "an address such as"),
            ("port=80", "`from` is missing"),
            ("who=none", "there are from, port, address"),
        ] {
            let error = PoliciesQuestion::parse(query).unwrap_err();
            assert!(error.contains(part), "{query}: {error}");
        }
    }
}
