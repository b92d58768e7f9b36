//! Which flows: the flags that become parameters of `/flows`, the same for each verb that asks for flows. The endpoint filters.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::client::escaped;
use crate::observe::cause_names;

#[derive(Clone, Debug, Default, Args)]
pub(super) struct FilterArgs {
    /// Only to this service, `namespace/hostname` or its hostname
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Only from or to this identity, `namespace/account` or the whole SPIFFE ID
    #[arg(long, value_name = "IDENTITY")]
    identity: Option<String>,
    /// Only to this port: the one that the client asked for, or that of the endpoint
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Only of this direction, as the pod sees it
    #[arg(long, value_enum, value_name = "DIRECTION")]
    direction: Option<Direction>,
}

/// How flows went.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct CourseArgs {
    /// Only flows that did not end in order
    #[arg(long)]
    failed: bool,
    /// Only flows that ended for this cause
    #[arg(long, value_name = "CAUSE", value_parser = cause_names(), hide_possible_values = true)]
    cause: Option<String>,
    /// Only flows whose connect took longer, or whose round trip time to the peer is longer, e.g. 100ms
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    slower_than: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Direction {
    #[value(alias = "in")]
    Inbound,
    #[value(alias = "out")]
    Outbound,
}

impl FilterArgs {
    /// Each parameter with `&` behind it.
    pub(super) fn query(&self) -> String {
        let direction = self.direction.map(|direction| match direction {
            Direction::Inbound => "inbound".to_owned(),
            Direction::Outbound => "outbound".to_owned(),
        });
        parameters([
            ("service", self.service.clone()),
            ("identity", self.identity.clone()),
            ("port", self.port.map(|port| port.to_string())),
            ("direction", direction),
        ])
    }
}

impl CourseArgs {
    pub(super) fn query(&self) -> String {
        let slower = self.slower_than.map(humantime::format_duration);
        parameters([
            ("failed", self.failed.then(|| "true".to_owned())),
            ("cause", self.cause.clone()),
            ("slowerThan", slower.map(|time| time.to_string())),
        ])
    }
}

fn parameters<const N: usize>(all: [(&str, Option<String>); N]) -> String {
    let given = all.into_iter().filter_map(|(name, value)| Some((name, value?)));
    given
        .map(|(name, value)| format!("{name}={}&", escaped(&value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::observe::FlowQuery;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        course: CourseArgs,
    }

    fn query(args: &[&str]) -> Result<String, clap::Error> {
        let line = Line::try_parse_from(std::iter::once(&"flows").chain(args))?;
        Ok(line.filter.query() + &line.course.query())
    }

    #[test]
    fn every_flag_is_a_parameter_that_the_endpoint_takes() {
        for (args, expected) in [
            (&["--service", "demo/web svc"][..], "service=demo/web%20svc&"),
            (&["--identity", "demo/web"], "identity=demo/web&"),
            (&["--port", "443"], "port=443&"),
            (&["--direction", "in"], "direction=inbound&"),
            (&["--failed"], "failed=true&"),
            (&["--cause", "tls_failed"], "cause=tls_failed&"),
            (&["--slower-than", "1500ms"], "slowerThan=1s%20500ms&"),
        ] {
            let query = query(args).unwrap();
            assert_eq!(query, expected);
            FlowQuery::parse(query.trim_end_matches('&')).unwrap_or_else(|error| panic!("{query}: {error}"));
        }
    }

    #[test]
    fn nonsense_is_told_before_anybody_is_asked() {
        for args in [
            &["--port", "0"][..],
            &["--direction", "up"],
            &["--cause", "bad luck"],
            &["--slower-than", "5"],
        ] {
            assert!(query(args).is_err(), "{args:?}");
        }
        let error = query(&["--cause", "denid"]).unwrap_err().to_string();
        assert!(error.contains("denied"), "{error}");
    }
}
