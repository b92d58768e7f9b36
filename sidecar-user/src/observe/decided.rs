//! A decision as `/flows` shows it. What does not apply to a step is absent.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::labels::{cause, party, transport};
use crate::model::{Decided, Decision, Failure, Routed};

/// Names of closed sets are strings here, so that an older reader understands a newer writer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionReport {
    /// Since the flow was opened.
    pub after_seconds: f64,
    /// `route`, `dial`, `again`, `policy` or `identity`.
    pub step: Cow<'static, str>,
    /// `service`, `workload`, `unknown`, `ok`, `failed`, `allowed`, `denied` or `refused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Cow<'static, str>>,
    /// What was dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Cow<'static, str>>,
    /// The policy's `namespace/name`, and the number of the rule in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Cow<'static, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cow<'static, str>>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl DecisionReport {
    pub(super) fn new(decision: &Decision) -> Self {
        let mut report = Self {
            after_seconds: decision.after.as_secs_f64(),
            ..Self::default()
        };
        match &decision.what {
            Decided::Routed(routed) => {
                let result = match routed {
                    Routed::Service => "service",
                    Routed::Workload => "workload",
                    Routed::Unknown => "unknown",
                    Routed::Refused(why) => {
                        report.cause = Some(cause(*why).into());
                        "refused"
                    }
                };
                report.step("route", result);
            }
            Decided::Tried {
                endpoint,
                transport: by,
                failure,
            } => {
                report.step("dial", if failure.is_none() { "ok" } else { "failed" });
                report.endpoint = Some(endpoint.to_string());
                report.transport = Some(transport(*by).into());
                report.failure(failure.as_deref());
            }
            Decided::Again => report.step = "again".into(),
            Decided::Admitted(by) => {
                report.step("policy", "allowed");
                if let Some((policy, rule)) = by {
                    report.policy = Some(policy.to_string());
                    report.rule = Some(*rule);
                }
            }
            Decided::Denied(why) => {
                report.step("policy", "denied");
                report.detail = Some(why.to_string());
            }
            Decided::Unproved(failure) => {
                report.step("identity", "failed");
                report.failure(Some(failure));
            }
        }
        report
    }

    fn step(&mut self, step: &'static str, result: &'static str) {
        self.step = step.into();
        self.result = Some(result.into());
    }

    fn failure(&mut self, failure: Option<&Failure>) {
        if let Some(failure) = failure {
            self.by = Some(party(failure.outcome.by).into());
            self.cause = Some(cause(failure.outcome.cause).into());
            self.detail = Some(failure.detail.to_string());
        }
    }
}
