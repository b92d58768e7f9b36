//! Why a connection went as it did: what its flow remembers, as the answer to `/why` says it. Decides nothing.

use super::decided::DecisionReport;
use super::endpoints::EndpointReport;
use super::report::FlowReport;
use super::why::WhyReport;

impl WhyReport {
    /// Of a connection that there was, or is: `verdict` is `mesh`, `direct` or `admitted` where it came up, else `refused`
    /// (by us or policy) or `failed`.
    pub fn of_flow(flow: &FlowReport) -> Self {
        let to = flow.original_dst.as_deref().unwrap_or("an unknown destination");
        Self {
            direction: flow.direction.clone(),
            protocol: "tcp".into(),
            source: Some(flow.client.clone()),
            destination: to.to_owned(),
            verdict: verdict(flow).into(),
            summary: summary(flow, to),
            connect: None,
            rule: None,
            endpoints: tried(flow),
            reasons: reasons(flow),
            kernel_event: None,
        }
    }
}

const LEFT_ALONE: &str = "left_alone";

/// Bytes could pass. Nobody knows how long it took where the kernel left an inbound connection alone.
fn came_up(flow: &FlowReport) -> bool {
    let was_accepted = flow.transport == LEFT_ALONE && flow.direction == "inbound";
    flow.connect_seconds.is_some() || was_accepted
}

fn verdict(flow: &FlowReport) -> &'static str {
    if flow.transport == LEFT_ALONE && came_up(flow) {
        return LEFT_ALONE;
    }
    match (flow.connect_seconds, &*flow.direction, &*flow.transport) {
        (Some(_), "inbound", _) => "admitted",
        (Some(_), _, "hbone") => "mesh",
        (Some(_), ..) => "direct",
        (None, ..) => match flow.closed_by.as_deref() {
            Some("policy" | "us") => "refused",
            Some(_) => "failed",
            None => "connecting",
        },
    }
}

fn summary(flow: &FlowReport, to: &str) -> String {
    let pod = flow.pod.iter().map(|pod| format!("{pod}: ")).collect::<String>();
    let end = match (&flow.close_cause, &flow.closed_by, &flow.closed) {
        (Some(cause), Some(by), Some(at)) if cause == "eof" => format!("ended in order by {by} at {at}"),
        (Some(cause), Some(by), Some(at)) => {
            let verb = if came_up(flow) { "ended" } else { "failed" };
            format!("{verb} at {at}: {cause} by {by}")
        }
        _ => format!("is {}", flow.state),
    };
    format!("{pod}{} to {to} {end}", flow.client)
}

/// Each endpoint once, in the order in which they were dialled.
fn tried(flow: &FlowReport) -> Vec<EndpointReport> {
    let mut endpoints: Vec<EndpointReport> = Vec::new();
    for decision in &flow.decisions {
        if let Some(address) = &decision.endpoint
            && !endpoints.iter().any(|endpoint| endpoint.address == *address)
        {
            endpoints.push(EndpointReport {
                address: address.clone(),
                transport: decision.transport.clone().unwrap_or_default(),
                ..EndpointReport::default()
            });
        }
    }
    endpoints
}

fn reasons(flow: &FlowReport) -> Vec<String> {
    let mut reasons = vec![match &*flow.direction {
        _ if flow.transport == LEFT_ALONE => match flow.chosen_dst {
            Some(_) => "the kernel left it alone: it did not come to the proxy".to_owned(),
            None => "the kernel programs refused its connect()".to_owned(),
        },
        "inbound" => match (&flow.source_identity, &flow.tls) {
            (Some(id), Some(tls)) => format!("its peer proved to be {id}, by {}", tls.version),
            _ => "its client proved no identity".to_owned(),
        },
        _ => "the kernel gave the application's connection to the proxy".to_owned(),
    }];
    let (first, last) = flow.decisions.split_at(flow.decisions.len() / 2);
    reasons.extend(first.iter().map(|decision| told(flow, decision)));
    if flow.decisions_left_out > 0 {
        reasons.push(format!(
            "({} decisions were left out here)",
            flow.decisions_left_out
        ));
    }
    reasons.extend(last.iter().map(|decision| told(flow, decision)));
    if let ("outbound", Some(id), Some(tls)) = (&*flow.direction, &flow.destination_identity, &flow.tls) {
        reasons.push(format!(
            "the endpoint's proxy proved to be {id}, by {}",
            tls.version
        ));
    }
    reasons
}

/// One decision as a sentence that begins with its time.
fn told(flow: &FlowReport, decision: &DecisionReport) -> String {
    let word = |word: &Option<std::borrow::Cow<'static, str>>| word.clone().unwrap_or_default();
    let (result, cause, by) = (word(&decision.result), word(&decision.cause), word(&decision.by));
    let detail = decision.detail.as_deref().unwrap_or_default();
    let said = match (&*decision.step, &*result) {
        ("route", "service") => format!(
            "the registry says: it is the service {}",
            flow.service.as_deref().unwrap_or("?")
        ),
        ("route", "workload") => "the registry says: it is a workload's own address".to_owned(),
        ("route", "unknown") => "the registry does not know it: it is dialled as it is".to_owned(),
        ("route", _) => format!("there is no way to it: {cause}"),
        ("dial", result) => {
            let endpoint = decision.endpoint.as_deref().unwrap_or("?");
            let how = match decision.transport.as_deref() {
                Some("hbone") => " through the mesh",
                _ => "",
            };
            match result {
                "ok" => format!("{endpoint} was dialled{how}, and took the connection"),
                _ => format!("{endpoint} was dialled{how}: {cause} by {by}: {detail}"),
            }
        }
        ("again", _) => "nobody had taken it; the endpoints were tried again".to_owned(),
        ("policy", "allowed") => match (&decision.policy, decision.rule) {
            (Some(policy), Some(rule)) => {
                format!("the Allow policy {policy} by its rules[{rule}] let it in")
            }
            _ => "no policy that allows restricts this workload, and none denied it".to_owned(),
        },
        ("policy", _) => format!("it was denied: {detail}"),
        ("identity", _) => format!("who it is was not proved: {cause} by {by}: {detail}"),
        (step, result) => format!("{step} {result} {cause} {detail}").trim_end().to_owned(),
    };
    format!("+{} {said}", millis(decision.after_seconds))
}

fn millis(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{:.1}ms", s * 1e3),
        s => format!("{s:.1}s"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::model::authorization::PolicyName;
    use crate::model::{
        Cause, Decided, Direction, Failure, Flow, Outcome, Party, Routed, ServiceName, Transport,
    };

    fn flow(direction: Direction) -> (Flow, impl FnMut(&mut Flow, Decided)) {
        let opened = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let mut flow = Flow::new(direction, "10.0.0.5:4000".parse().unwrap(), opened);
        flow.original_dst = Some("10.96.0.10:80".parse().unwrap());
        let mut millis = 0;
        let decide = move |flow: &mut Flow, step| {
            millis += 2;
            flow.decided(opened + Duration::from_millis(millis), step);
        };
        (flow, decide)
    }

    fn close(flow: &mut Flow, by: Party, cause: Cause) -> WhyReport {
        flow.closed = Some((flow.opened + Duration::from_secs(1), Outcome::new(by, cause)));
        let mut report = FlowReport::new(flow, SystemTime::now());
        report.pod = Some("demo/client-0".into());
        // As it comes over the wire.
        let wire = serde_json::to_string(&report).unwrap();
        WhyReport::of_flow(&serde_json::from_str(&wire).unwrap())
    }

    #[test]
    fn a_failure_is_told_in_order_with_each_endpoint_and_its_cause() {
        let (mut flow, mut decide) = flow(Direction::Outbound);
        flow.service = Some(ServiceName {
            namespace: "demo".into(),
            hostname: "web".into(),
        });
        decide(&mut flow, Decided::Routed(Routed::Service));
        for (end, cause, detail) in [
            (2, Cause::ConnectionRefused, "refused"),
            (3, Cause::WrongIdentity, "it is x"),
        ] {
            decide(
                &mut flow,
                Decided::Tried {
                    endpoint: format!("10.0.0.{end}:8080").parse().unwrap(),
                    transport: Transport::Hbone,
                    failure: Some(Box::new(Failure::new(
                        Outcome::new(Party::Upstream, cause),
                        detail,
                    ))),
                },
            );
        }
        let why = close(&mut flow, Party::Upstream, Cause::WrongIdentity);
        assert_eq!(why.verdict, "failed");
        assert_eq!(
            why.summary,
            "demo/client-0: 10.0.0.5:4000 to 10.96.0.10:80 failed at 1970-01-01T00:16:41.000Z: wrong_identity by upstream"
        );
        assert_eq!(
            why.reasons,
            [
                "the kernel gave the application's connection to the proxy",
                "+2.0ms the registry says: it is the service demo/web",
                "+4.0ms 10.0.0.2:8080 was dialled through the mesh: connection_refused by upstream: refused",
                "+6.0ms 10.0.0.3:8080 was dialled through the mesh: wrong_identity by upstream: it is x",
            ]
        );
        let endpoints: Vec<&str> = why.endpoints.iter().map(|e| &*e.address).collect();
        assert_eq!(endpoints, ["10.0.0.2:8080", "10.0.0.3:8080"]);
    }

    #[test]
    fn one_that_never_came_to_the_proxy_is_told_as_left_alone_or_refused_by_the_programs() {
        let left = |direction, up: bool, connect_time, by, cause| {
            let (mut flow, _) = flow(direction);
            flow.transport = Transport::LeftAlone;
            flow.chosen_dst = up.then_some(flow.original_dst).flatten();
            flow.connect_time = connect_time;
            let why = close(&mut flow, by, cause);
            (
                why.verdict.to_string(),
                why.reasons[0].clone(),
                why.summary.contains(" ended "),
            )
        };
        let said = |verdict: &str, reason: &str, ended| (verdict.to_owned(), reason.to_owned(), ended);
        let alone = "the kernel left it alone: it did not come to the proxy";
        let took = Some(Duration::from_millis(1));
        assert_eq!(
            left(Direction::Outbound, true, took, Party::Client, Cause::Eof),
            said("left_alone", alone, true)
        );
        assert_eq!(
            left(Direction::Inbound, true, None, Party::Client, Cause::Eof),
            said("left_alone", alone, true)
        );
        assert_eq!(
            left(
                Direction::Outbound,
                true,
                None,
                Party::Upstream,
                Cause::ConnectionRefused
            ),
            said("failed", alone, false)
        );
        assert_eq!(
            left(Direction::Outbound, false, None, Party::Policy, Cause::Denied),
            said("refused", "the kernel programs refused its connect()", false)
        );
    }

    #[test]
    fn a_policy_is_named_whichever_way_it_decides() {
        let (mut refused, mut decide) = flow(Direction::Inbound);
        decide(
            &mut refused,
            Decided::Denied("the Deny policy demo/no denies it".into()),
        );
        let why = close(&mut refused, Party::Policy, Cause::Denied);
        assert_eq!(why.verdict, "refused");
        assert_eq!(
            why.reasons[1],
            "+2.0ms it was denied: the Deny policy demo/no denies it"
        );

        let (mut let_in, mut decide) = flow(Direction::Inbound);
        let policy = PolicyName {
            namespace: "demo".into(),
            name: "yes".into(),
        };
        decide(&mut let_in, Decided::Admitted(Some((policy, 3))));
        let_in.connect_time = Some(Duration::from_millis(1));
        let why = close(&mut let_in, Party::Client, Cause::Eof);
        assert_eq!(why.verdict, "admitted");
        assert_eq!(
            why.reasons[1],
            "+2.0ms the Allow policy demo/yes by its rules[3] let it in"
        );
    }
}
