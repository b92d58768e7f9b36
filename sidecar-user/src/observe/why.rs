//! `/why`: what is asked and what is answered. The contract between the admin endpoint and those who read it; what the
//! answer is, the role knows.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::endpoints::EndpointReport;
use super::filter::misfit;
use crate::model::SpiffeId;
use crate::model::identity::InvalidId;

/// A connection that nobody opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub protocol: Protocol,
    /// Who connects, from outside of the pod; `None`: the application.
    pub source: Option<IpAddr>,
    /// Whom the source proves to be, in a tunnel; `None`: it comes in plaintext.
    pub identity: Option<SpiffeId>,
    /// `None`: that address of the pod that a source of this family would dial.
    pub destination: Option<IpAddr>,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// Names of closed sets are strings here, so that an older reader understands a newer writer. A field that is not known
/// is `null`, never absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhyReport {
    /// `outbound` or `inbound`.
    pub direction: Cow<'static, str>,
    /// `tcp` or `udp`.
    pub protocol: Cow<'static, str>,
    pub source: Option<String>,
    pub destination: String,
    /// `left_alone`, `mesh`, `direct`, `admitted` or `refused`.
    pub verdict: Cow<'static, str>,
    /// The verdict for people.
    pub summary: String,
    /// `truthful` or `optimistic`, where the proxy gets an outbound connection.
    pub connect: Option<Cow<'static, str>>,
    pub rule: Option<RuleReport>,
    /// Who stands behind the destination, and how likely the proxy goes there; of what there was, those that were dialled.
    pub endpoints: Vec<EndpointReport>,
    /// What led to the verdict, in order.
    pub reasons: Vec<String>,
    /// The `event` of `outrigger_kernel_events_total` that counts such connections.
    pub kernel_event: Option<Cow<'static, str>>,
}

/// The rule of the interception policy that holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleReport {
    /// `null` for a built-in rule.
    pub file: Option<String>,
    pub line: Option<usize>,
    /// What a built-in rule is for.
    pub built_in: Option<String>,
}

impl Question {
    /// An error is a sentence for the caller.
    pub(super) fn parse(query: &str) -> Result<Self, String> {
        let (mut protocol, mut source, mut destination, mut port) = (Protocol::Tcp, None, None, None);
        let mut identity = None;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let wrong = |want: &str| misfit(&name, &value, want);
            match &*name {
                "protocol" => {
                    protocol = match &*value {
                        "tcp" => Protocol::Tcp,
                        "udp" => Protocol::Udp,
                        _ => return Err(wrong("tcp or udp")),
                    }
                }
                "destination" => {
                    let at: SocketAddr = value
                        .parse()
                        .map_err(|_| wrong("an address and a port such as 10.0.0.1:80 or [fd00::1]:80"))?;
                    (destination, port) = (Some(at.ip().to_canonical()), Some(at.port()));
                }
                "source" => {
                    let from: IpAddr = value
                        .parse()
                        .map_err(|_| wrong("an address such as 10.0.0.1 or fd00::1"))?;
                    source = Some(from.to_canonical());
                }
                "identity" => {
                    let id: SpiffeId = value.parse().map_err(|error: InvalidId| error.to_string())?;
                    identity = Some(id);
                }
                "port" => port = Some(value.parse().map_err(|_| wrong("a port"))?),
                _ => {
                    return Err(format!(
                        "unknown parameter `{}`; there are destination, source, identity, port, protocol",
                        name.escape_debug()
                    ));
                }
            }
        }
        if identity.is_some() && source.is_none() {
            return Err("`source=ADDRESS` is missing: where does that identity come from?".into());
        }
        if identity.is_some() && protocol == Protocol::Udp {
            return Err("`identity` and `protocol=udp`: tunnels carry TCP only".into());
        }
        match (source, destination, port) {
            (None, Some(_), Some(port)) | (Some(_), _, Some(port)) => Ok(Self {
                protocol,
                source,
                identity,
                destination,
                port,
            }),
            (Some(_), ..) => Err("`port` is missing: which one does the source dial?".into()),
            (None, ..) => Err(
                "`destination=ADDRESS:PORT` is missing; for inbound give `source=ADDRESS` and `port=PORT`"
                    .into(),
            ),
        }
    }

    /// As the IP header has it.
    pub fn protocol_number(&self) -> u32 {
        match self.protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_who_and_where() {
        let question = Question::parse("destination=[fd00::1]:80&protocol=udp").unwrap();
        assert_eq!(
            (question.source, question.destination, question.port),
            (None, Some("fd00::1".parse().unwrap()), 80)
        );
        assert_eq!(question.protocol_number(), 17);
        let question = Question::parse("source=%3A%3Affff:10.0.0.1&port=22").unwrap();
        assert_eq!(
            (question.source, question.destination, question.port),
            (Some("10.0.0.1".parse().unwrap()), None, 22)
        );
    }

    #[test]
    fn a_wrong_question_is_answered_with_what_is_right() {
        for (query, part) in [
            ("", "`destination=ADDRESS:PORT` is missing"),
            ("destination=web:80", "an address and a port"),
            ("destination=10.0.0.1", "an address and a port"),
            ("source=10.0.0.1", "`port` is missing"),
            ("source=x&port=1", "an address such as"),
            ("source=10.0.0.1&port=65536", "a port"),
            ("protocol=sctp", "tcp or udp"),
            (
                "identity=spiffe://td/ns/n/sa/a&destination=10.0.0.1:1",
                "`source=ADDRESS` is missing",
            ),
            ("source=10.0.0.1&port=1&identity=a", "no workload identity"),
            (
                "source=10.0.0.1&port=1&identity=spiffe://td/ns/n/sa/a&protocol=udp",
                "TCP only",
            ),
            ("to=x", "unknown parameter `to`"),
        ] {
            let error = Question::parse(query).unwrap_err();
            assert!(error.contains(part), "{query}: {error}");
        }
    }
}
