//! The words of an answer to `/why`. Decides nothing.

use std::net::SocketAddr;
use std::path::Path;

use super::{Connect, Verdict};
use crate::datapath::policy::{Rule, Source};
use crate::model::snapshot::Standing;
use crate::model::{Affinity, BalanceMode, Endpoint, Location, Service, Workload, authorization};
use crate::observe::{EndpointReport, Question, RuleReport, WhyReport};
use crate::policy::authorization::{By, Decision};
use crate::route::{DNS, Refusal, Unknown};

/// Of an address that the agent was not asked for.
pub(super) const UNASKED: &str = "nothing here has dialled this address lately: the agent of this node is asked for it with the first connection, and what follows \
     holds only if it knows nothing of it";

/// What the registry says of a service, and how it is balanced as seen from there.
pub(super) fn service(
    service: &Service,
    endpoints: &[Endpoint],
    from: Location<'_>,
    kept: Option<&Workload>,
) -> Vec<String> {
    let (all, balancing) = (endpoints.len(), &service.balancing);
    let mut reasons = vec![format!(
        "it is the service {}; endpoints in the registry: {all}",
        service.name
    )];
    if balancing.mode == BalanceMode::Passthrough {
        reasons.push("the service takes connections at its own address, in plain TCP".into());
    }
    if balancing.is_ranked() {
        let scopes: Vec<&str> = balancing.scopes.iter().map(|scope| scope.name()).collect();
        let scopes = scopes.join(", ");
        let near = balancing.nearest(endpoints, from, balancing.scopes.len()).len();
        reasons.push(match balancing.mode {
            BalanceMode::Strict => format!("only endpoints of the same {scopes} are used: {near} of {all}"),
            _ => format!("endpoints of the same {scopes} are preferred: {near} of {all}"),
        });
    }
    if let Some(Affinity { timeout }) = service.affinity {
        let timeout = timeout.as_secs();
        reasons.push(match kept {
            Some(kept) => format!(
                "session affinity: connections go to {}/{} until {timeout} s after the last one",
                kept.namespace,
                kept.pod()
            ),
            None => {
                format!("session affinity: the next connection chooses, and others follow it for {timeout} s")
            }
        });
    }
    reasons
}

/// An answer that is being put together.
pub(super) struct Telling(pub(super) WhyReport);

pub(super) fn begin(direction: &'static str, question: &Question, to: SocketAddr) -> Telling {
    Telling(WhyReport {
        direction: direction.into(),
        protocol: question.protocol.name().into(),
        source: question.source.map(|ip| ip.to_string()),
        destination: to.to_string(),
        verdict: "left_alone".into(),
        summary: String::new(),
        connect: None,
        rule: None,
        endpoints: Vec::new(),
        reasons: Vec::new(),
        kernel_event: None,
    })
}

impl Telling {
    /// What the kernel decides, and by which rule.
    pub(super) fn kernel(&mut self, verdict: &Verdict, file: Option<&Path>) {
        self.0.reasons.push(verdict.reason.into());
        self.0.kernel_event = Some(verdict.counter.into());
        if let Some(rule) = &verdict.rule {
            let rule = rule_report(rule, file);
            self.0
                .reasons
                .push(format!("interception policy: {}", place(&rule)));
            self.0.rule = Some(rule);
        } else if verdict.asked_policy {
            self.0
                .reasons
                .push("interception policy: no rule names it, and what none names is taken".into());
        }
    }

    pub(super) fn left_alone(&mut self, why: &str) {
        let summary = match &*self.0.direction {
            "outbound" => format!("{} is left alone: as if there were no proxy", self.0.destination),
            _ => format!(
                "{} is left alone: it reaches the pod as if there were no proxy",
                self.route()
            ),
        };
        self.verdict("left_alone", summary, why);
    }

    pub(super) fn refused(&mut self, why: &str) {
        self.verdict("refused", format!("{} is refused", self.route()), why);
    }

    pub(super) fn admitted(&mut self, mesh: bool, by: Option<&By>) {
        let how = if mesh { "through the mesh" } else { "as plaintext" };
        let summary = format!("{} is let in by the proxy, {how}", self.route());
        let why = match by {
            Some(by) => format!("the Allow policy {by} allows it"),
            None => "no policy that allows restricts this workload, and none denies it".to_owned(),
        };
        self.verdict("admitted", summary, &why);
    }

    pub(super) fn proxied(&mut self, mesh: bool, endpoints: Vec<EndpointReport>) {
        let likely = || {
            endpoints
                .iter()
                .filter(|one| one.chance.is_some_and(|chance| chance > 0.0))
        };
        let to = match (likely().count(), likely().next()) {
            (1, Some(one)) => one.address.clone(),
            (many, _) => format!("one of {many} endpoints"),
        };
        let (verdict, summary) = match mesh {
            true => (
                "mesh",
                format!("{} goes through the mesh, encrypted, to {to}", self.0.destination),
            ),
            false => (
                "direct",
                format!(
                    "{} goes through the proxy, in plaintext, to {to}",
                    self.0.destination
                ),
            ),
        };
        self.0.endpoints = endpoints;
        self.verdict(verdict, summary, "");
    }

    pub(super) fn connect(&mut self, connect: Connect) {
        let (name, why) = match connect {
            Connect::Truthful => (
                "truthful",
                "connect() returns when the destination has answered".to_owned(),
            ),
            Connect::Optimistic => {
                let rule = self.0.rule.as_ref().map(place).unwrap_or_default();
                ("optimistic", format!("connect() returns at once, as {rule} says"))
            }
            Connect::NotHeld => (
                "optimistic",
                "connect() returns at once: this proxy does not hold connections".to_owned(),
            ),
        };
        self.0.connect = Some(name.into());
        self.0.reasons.push(why);
    }

    fn verdict(&mut self, verdict: &'static str, summary: String, why: &str) {
        self.0.verdict = verdict.into();
        self.0.summary = summary;
        if !why.is_empty() {
            self.0.reasons.push(why.into());
        }
    }

    fn route(&self) -> String {
        match &self.0.source {
            Some(source) => format!("{source} to {}", self.0.destination),
            None => self.0.destination.clone(),
        }
    }
}

/// Those that allow, when none of them allows this.
pub(super) fn considered(standing: &Standing<'_>) -> String {
    let allow = standing
        .all()
        .filter(|p| p.action == authorization::Action::Allow && !p.dry_run);
    let mut names: Vec<String> = allow.map(|policy| policy.name.to_string()).collect();
    names.sort();
    names.dedup();
    format!(
        "Allow policies that were asked, and do not allow it: {}",
        names.join(", ")
    )
}

pub(super) fn rehearsed(decision: &Decision) -> String {
    let verdict = match decision {
        Decision::Allow(None) => "nothing would deny it".to_owned(),
        Decision::Allow(Some(by)) => format!("the Allow policy {by} would allow it"),
        Decision::Deny(denial) => format!("it would be denied: {denial}"),
    };
    format!("if the policies with `dryRun` were obeyed: {verdict}")
}

fn rule_report(rule: &Rule, file: Option<&Path>) -> RuleReport {
    let (line, built_in) = match rule.source {
        Source::Line(line) => (Some(line), None),
        Source::BuiltIn(what) => (None, Some(what.to_owned())),
    };
    RuleReport {
        file: file
            .filter(|_| line.is_some())
            .map(|file| file.display().to_string()),
        line,
        built_in,
    }
}

fn place(rule: &RuleReport) -> String {
    match (&rule.file, rule.line, &rule.built_in) {
        (Some(file), Some(line), _) => format!("the rule at {file}:{line}"),
        (_, _, Some(what)) => format!("built-in default, {what}"),
        _ => "a rule".into(),
    }
}

pub(super) fn unknown(unknown: Unknown, port: u16) -> &'static str {
    match unknown {
        Unknown::PassThrough => {
            "the registry does not know it, and `outbound: passthrough` dials it as it is"
        }
        Unknown::Refuse if port == DNS => {
            "the registry does not know it, and `outbound: registry-only` lets DNS pass"
        }
        Unknown::Refuse => "the registry does not know it",
    }
}

pub(super) fn refusal(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NoEndpoint => "no healthy endpoint of the service serves this port",
        Refusal::UnknownDestination => {
            "the registry does not know it, and `outbound: registry-only` refuses what it does not know"
        }
        Refusal::NeedsWaypoint => "the registry demands a waypoint for it, and this proxy goes through none",
    }
}
