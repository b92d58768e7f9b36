//! Flows as aligned columns for people; programs take the JSON.

use crate::model::SpiffeId;
use crate::observe::FlowReport;

const COLUMNS: [&str; 11] = [
    "AGE",
    "DIR",
    "CLIENT",
    "DESTINATION",
    "ENDPOINT",
    "SERVICE",
    "IDENTITY",
    "TLS",
    "SENT",
    "RECV",
    "STATE",
];
/// More of them, before STATE, which stays last because it may hold spaces.
const WIDE: [&str; 5] = ["ID", "CONNECT", "HANDSHAKE", "CIPHER", "KEX"];

/// Widths that most values of the first columns keep to: IPv4 with port, `namespace/host`, two short identities.
const USUAL: [usize; 10] = [5, 3, 21, 21, 21, 28, 28, 7, 9, 9];

pub(super) struct Table {
    wide: bool,
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new<'a>(
        wide: bool,
        headers: bool,
        flows: impl IntoIterator<Item = &'a FlowReport>,
    ) -> Self {
        let mut names: Vec<String> = COLUMNS.map(String::from).into();
        if wide {
            let state = COLUMNS.len() - 1;
            names.splice(state..state, WIDE.map(String::from));
        }
        let mut table = Self {
            wide,
            widths: vec![0; names.len()],
            rows: Vec::new(),
        };
        table.widen(&names);
        if headers {
            table.rows.push(names);
        }
        for flow in flows {
            let row = row(flow, wide);
            table.widen(&row);
            table.rows.push(row);
        }
        table
    }

    /// Makes room for what is to come, so that a watch's rows stay under its header.
    pub(super) fn expecting_more(mut self) -> Self {
        for (width, usual) in self.widths.iter_mut().zip(USUAL) {
            *width = usual.max(*width);
        }
        self
    }

    pub(super) fn text(&self) -> String {
        self.rows.iter().map(|row| self.aligned(row)).collect()
    }

    /// One more flow, under the columns as wide as they have become.
    pub(super) fn line(&mut self, flow: &FlowReport) -> String {
        let row = row(flow, self.wide);
        self.widen(&row);
        self.aligned(&row)
    }

    fn widen(&mut self, row: &[String]) {
        for (width, cell) in self.widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }

    fn aligned(&self, row: &[String]) -> String {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&self.widths) {
            line.push_str(&format!("{cell:<width$}   "));
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }
}

fn row(flow: &FlowReport, wide: bool) -> Vec<String> {
    let direction = match &*flow.direction {
        "outbound" => "out",
        "inbound" => "in",
        other => other,
    };
    let tls = flow.tls.as_ref();
    let mut row = vec![
        age(flow.age_seconds),
        direction.into(),
        flow.client.clone(),
        known(flow.original_dst.as_deref()),
        known(flow.chosen_dst.as_deref()),
        known(flow.service.as_deref()),
        identities(flow, wide),
        known(tls.map(|tls| &*tls.version)),
        size(flow.bytes_sent),
        size(flow.bytes_received),
    ];
    if wide {
        row.extend([
            flow.id.to_string(),
            flow.connect_seconds.map_or_else(|| "-".into(), short_time),
            flow.handshake_seconds.map_or_else(|| "-".into(), short_time),
            known(tls.map(|tls| &*tls.cipher)),
            known(tls.map(|tls| &*tls.key_exchange)),
        ]);
    }
    row.push(match (&flow.close_cause, &flow.closed_by) {
        (Some(cause), Some(by)) if flow.standing == "stranger" => format!("{cause} by {by} (stranger)"),
        (Some(cause), Some(by)) => format!("{cause} by {by}"),
        _ => flow.state.clone().into_owned(),
    });
    row.iter().map(|cell| printable(cell)).collect()
}

fn known(value: Option<&str>) -> String {
    value.unwrap_or("-").to_owned()
}

/// A name from the other side may not drive this terminal.
pub(super) fn printable(cell: &str) -> String {
    cell.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// `demo/client→demo/web`; in full where it is wide.
fn identities(flow: &FlowReport, wide: bool) -> String {
    let (source, destination) = (
        flow.source_identity.as_deref(),
        flow.destination_identity.as_deref(),
    );
    if source.is_none() && destination.is_none() {
        return "-".into();
    }
    let parsed = |id: Option<&str>| id.and_then(|id| id.parse::<SpiffeId>().ok());
    let both = parsed(source).zip(parsed(destination));
    let foreign = both.is_some_and(|(a, b)| a.trust_domain() != b.trust_domain());
    let name = |id: Option<&str>| match (id, parsed(id)) {
        (None, _) => "-".into(),
        (Some(_), Some(parsed)) if !wide => {
            let domain = if foreign {
                format!("{}/", parsed.trust_domain())
            } else {
                String::new()
            };
            format!("{domain}{}/{}", parsed.namespace(), parsed.service_account())
        }
        (Some(id), _) => id.to_owned(),
    };
    format!("{}→{}", name(source), name(destination))
}

/// As kubectl writes ages: one unit when it is enough, two while the second still says something.
fn age(seconds: f64) -> String {
    let s = seconds as u64;
    match s {
        0 => format!("{}ms", (seconds * 1e3) as u64),
        1..120 => format!("{s}s"),
        120..600 => format!("{}m{}s", s / 60, s % 60),
        600..10_800 => format!("{}m", s / 60),
        10_800..172_800 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

fn short_time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0}us", s * 1e6),
        s if s < 1.0 => format!("{:.1}ms", s * 1e3),
        s => format!("{s:.1}s"),
    }
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would print as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1}{}", UNITS[unit])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{Cause, Direction, Flow, Outcome, Party, ServiceName, TlsFacts};
    use std::time::{Duration, SystemTime};

    pub(in crate::plugin) fn flow() -> Flow {
        let client = "10.99.0.2:40000".parse().unwrap();
        let mut flow = Flow::new(Direction::Outbound, client, SystemTime::UNIX_EPOCH);
        flow.id = 7;
        flow.original_dst = Some("10.96.0.10:80".parse().unwrap());
        flow
    }

    fn reports() -> Vec<FlowReport> {
        let mut mesh = flow();
        mesh.chosen_dst = Some("[fd99::3]:8080".parse().unwrap());
        mesh.service = Some(ServiceName {
            namespace: "demo".into(),
            hostname: "web.demo.svc\x1b[31m".into(),
        });
        mesh.source_identity = Some(SpiffeId::new("td.test", "demo", "client").unwrap());
        mesh.destination_identity = Some(SpiffeId::new("td.test", "demo", "web").unwrap());
        mesh.connect_time = Some(Duration::from_micros(1250));
        mesh.handshake_time = Some(Duration::from_micros(900));
        mesh.tls = Some(TlsFacts {
            version: "TLSv1.3",
            cipher: "TLS13_AES_128_GCM_SHA256",
            key_exchange: "X25519MLKEM768",
            reused_tunnel: false,
        });
        mesh.bytes.add_sent(78);
        mesh.bytes.add_received(5 << 20);
        let mut failed = flow();
        let end = SystemTime::UNIX_EPOCH + Duration::from_millis(3);
        failed.closed = Some((end, Outcome::new(Party::Upstream, Cause::ConnectionRefused)));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(125);
        [flow(), mesh, failed]
            .iter()
            .map(|flow| FlowReport::new(flow, now))
            .collect()
    }

    #[test]
    fn the_table_is_aligned_and_harmless() {
        let golden = "\
AGE    DIR   CLIENT            DESTINATION     ENDPOINT         SERVICE                  IDENTITY               TLS       SENT   RECV     STATE
2m5s   out   10.99.0.2:40000   10.96.0.10:80   -                -                        -                      -         0B     0B       connecting
2m5s   out   10.99.0.2:40000   10.96.0.10:80   [fd99::3]:8080   demo/web.demo.svc?[31m   demo/client→demo/web   TLSv1.3   78B    5.0MiB   open
3ms    out   10.99.0.2:40000   10.96.0.10:80   -                -                        -                      -         0B     0B       connection_refused by upstream
";
        assert_eq!(Table::new(false, true, &reports()).text(), golden);
    }

    #[test]
    fn wide_rows_hold_identities_and_tls_in_full() {
        let text = Table::new(true, true, &reports()).text();
        let row = text.lines().nth(2).unwrap();
        let ids = "spiffe://td.test/ns/demo/sa/client→spiffe://td.test/ns/demo/sa/web";
        for part in [
            ids,
            "1.2ms",
            "900us",
            "TLS13_AES_128_GCM_SHA256",
            "X25519MLKEM768",
        ] {
            assert!(row.contains(part), "{part}: {row}");
        }
        assert_eq!(Table::new(true, false, &[]).text(), "");
    }

    #[test]
    fn rows_of_a_watch_stay_under_its_header() {
        let mut table = Table::new(false, true, &[]).expecting_more();
        let header = table.text();
        let column = header.find("STATE").unwrap();
        assert_eq!(table.line(&reports()[0]).find("connecting"), Some(column));
    }

    #[test]
    fn units_change_where_people_expect_it() {
        let sizes = [0, 1023, 1024, 1536, 1_048_575, 1 << 30].map(size);
        assert_eq!(sizes, ["0B", "1023B", "1.0KiB", "1.5KiB", "1.0MiB", "1.0GiB"]);
        let ages = [0.25, 1.0, 119.0, 120.0, 700.0, 11_000.0, 200_000.0].map(age);
        assert_eq!(ages, ["250ms", "1s", "119s", "2m0s", "11m", "3h", "2d"]);
    }
}
