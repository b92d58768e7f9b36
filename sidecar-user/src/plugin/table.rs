//! Flows as aligned columns for people; programs take the JSON.

use super::columns::{Column, Columns, WHOLE, column};
use super::paint::{Cell, Tint};
use super::words::{age, known, short_time, size};
use crate::model::SpiffeId;
use crate::observe::FlowReport;

/// STATE stays last because it may hold spaces.
const COLUMNS: [Column; 11] = [
    column("AGE", 1, WHOLE),
    column("DIR", 2, WHOLE),
    column("CLIENT", 6, WHOLE),
    column("DESTINATION", 0, WHOLE),
    column("ENDPOINT", 7, WHOLE),
    column("SERVICE", 5, 12),
    column("IDENTITY", 4, 14),
    column("TLS", 3, WHOLE),
    column("SENT", 8, WHOLE),
    column("RECV", 8, WHOLE),
    column("STATE", 0, 20),
];
/// Before all others, where more than one pod is told of.
const POD: Column = column("POD", 1, 20);
/// Where it is wide, before STATE. A terminal with room shows them too.
const WIDE: [Column; 9] = [
    column("ID", 11, WHOLE),
    column("CONNECT", 9, WHOLE),
    column("HANDSHAKE", 10, WHOLE),
    column("CIPHER", 12, 12),
    column("KEX", 12, WHOLE),
    column("RTT", 13, WHOLE),
    column("RETRANS", 13, WHOLE),
    column("RATE", 14, WHOLE),
    column("BOTTLENECK", 13, WHOLE),
];

/// Widths that most values of the first columns keep to: IPv4 with port, `namespace/host`, two short identities.
const USUAL: [usize; 10] = [5, 3, 21, 21, 21, 28, 28, 7, 9, 9];
/// `namespace/name` of a pod.
const USUAL_POD: usize = 28;

pub(super) struct Table {
    wide: bool,
    full: bool,
    pods: bool,
    columns: Columns,
}

impl Table {
    /// `room`: as many columns of characters as there are; `None` for all that it takes.
    pub(super) fn new(shape: Shape, flows: &[&FlowReport]) -> Self {
        let pods = shape.pods || flows.iter().any(|flow| flow.pod.is_some());
        let mut columns: Vec<Column> = COLUMNS.into();
        if shape.wide {
            let state = COLUMNS.len() - 1;
            columns.splice(state..state, WIDE);
        }
        if pods {
            columns.insert(0, POD);
        }
        let mut table = Self {
            wide: shape.wide,
            full: shape.full,
            pods,
            columns: Columns::new(columns, shape.room, shape.headers).coloured(shape.colours),
        };
        for flow in flows {
            let row = table.row(flow);
            table.columns.push(row);
        }
        table
    }

    /// Makes room for what is to come, so that a watch's rows stay under its header.
    pub(super) fn expecting_more(mut self) -> Self {
        let mut usual: Vec<usize> = USUAL.into();
        if self.pods {
            usual.insert(0, USUAL_POD);
        }
        self.columns.await_more(&usual);
        self
    }

    pub(super) fn text(&self) -> String {
        self.columns.text()
    }

    /// One more flow, under the columns as wide as they have become.
    pub(super) fn line(&mut self, flow: &FlowReport) -> String {
        let row = self.row(flow);
        self.columns.line(row)
    }

    fn row(&self, flow: &FlowReport) -> Vec<Cell> {
        let mut row = row(flow, self.wide, self.full);
        if self.pods {
            row.insert(0, known(flow.pod.as_deref()).into());
        }
        row
    }
}

/// Which columns, and in how much room.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shape {
    /// All columns.
    pub(super) wide: bool,
    /// Identities in full.
    pub(super) full: bool,
    /// Even where none of the first flows names one.
    pub(super) pods: bool,
    pub(super) headers: bool,
    pub(super) colours: bool,
    pub(super) room: Option<usize>,
}

fn row(flow: &FlowReport, wide: bool, full: bool) -> Vec<Cell> {
    let direction = match &*flow.direction {
        "outbound" => "out",
        "inbound" => "in",
        other => other,
    };
    let tls = flow.tls.as_ref();
    let mut row: Vec<Cell> = vec![
        age(flow.age_seconds).into(),
        direction.into(),
        flow.client.clone().into(),
        known(flow.original_dst.as_deref()).into(),
        known(flow.chosen_dst.as_deref()).into(),
        known(flow.service.as_deref()).into(),
        identities(flow, full).into(),
        security(flow),
        size(flow.bytes_sent).into(),
        size(flow.bytes_received).into(),
    ];
    if wide {
        row.extend([
            flow.id.to_string().into(),
            flow.connect_seconds.map_or_else(|| "-".into(), short_time).into(),
            flow.handshake_seconds
                .map_or_else(|| "-".into(), short_time)
                .into(),
            known(tls.map(|tls| &*tls.cipher)).into(),
            known(tls.map(|tls| &*tls.key_exchange)).into(),
        ]);
        row.extend(kernel(flow).map(Cell::from));
    }
    let is_failed = flow.close_cause.as_deref().is_some_and(|cause| cause != "eof");
    row.push(Cell::maybe(state(flow), is_failed.then_some(Tint::Failed)));
    row
}

/// How it ended, and by whom; or that it has not.
pub(super) fn state(flow: &FlowReport) -> String {
    match (&flow.close_cause, &flow.closed_by) {
        (Some(cause), Some(by)) if flow.standing == "stranger" => format!("{cause} by {by} (stranger)"),
        (Some(cause), Some(by)) => format!("{cause} by {by}"),
        _ => flow.state.clone().into_owned(),
    }
}

/// The version of TLS; `plain` where bytes can have gone without it, `-` where none went.
pub(super) fn security(flow: &FlowReport) -> Cell {
    let came_up =
        flow.state == "open" || flow.connect_seconds.is_some() || flow.close_cause.as_deref() == Some("eof");
    match &flow.tls {
        Some(tls) => Cell::tinted(&*tls.version, Tint::Secured),
        None if came_up && flow.transport != "hbone" => Cell::tinted("plain", Tint::Plaintext),
        None => "-".into(),
    }
}

/// What the kernel says of the connection that leaves the pod: `1.2ms`, `3 of 1200`, `48.0MiB/s`, and the verdict.
fn kernel(flow: &FlowReport) -> [String; 4] {
    let leg = flow.peer_leg();
    let or_unknown = |cell: Option<String>| cell.unwrap_or_else(|| "-".into());
    [
        or_unknown(leg.and_then(|leg| leg.rtt_seconds).map(short_time)),
        or_unknown(leg.map(|leg| format!("{} of {}", leg.segments_retransmitted, leg.segments_sent))),
        or_unknown(leg.map(|leg| format!("{}/s", size(leg.delivery_rate_bytes_per_second)))),
        known(flow.bottleneck.as_deref()),
    ]
}

/// `demo/client→demo/web`; in full where it is wide.
fn identities(flow: &FlowReport, full: bool) -> String {
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
        (Some(_), Some(parsed)) if !full => {
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

#[cfg(test)]
pub(super) mod tests {
    use super::super::golden;
    use super::*;
    use crate::model::{
        Bottleneck, Cause, Direction, Flow, LegFacts, Legs, Outcome, Party, ServiceName, TcpFacts, TlsFacts,
    };
    use std::time::{Duration, SystemTime};

    pub(in crate::plugin) fn flow() -> Flow {
        let client = "10.99.0.2:40000".parse().unwrap();
        let mut flow = Flow::new(Direction::Outbound, client, SystemTime::UNIX_EPOCH);
        flow.id = 7;
        flow.original_dst = Some("10.96.0.10:80".parse().unwrap());
        flow
    }

    pub(in crate::plugin) fn reports() -> Vec<FlowReport> {
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
        mesh.legs = Some(Box::new(Legs {
            client: None,
            upstream: Some(LegFacts {
                tcp: TcpFacts {
                    rtt: Some(Duration::from_micros(310)),
                    segments_sent: 1200,
                    segments_retransmitted: 3,
                    delivery_rate: 48 << 20,
                    ..TcpFacts::default()
                },
                is_tunnel: true,
            }),
        }));
        mesh.bottleneck = Some(Bottleneck::PeerProxy);
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

    fn table(shape: Shape, flows: &[FlowReport]) -> Table {
        let flows: Vec<&FlowReport> = flows.iter().collect();
        let headers = true;
        Table::new(Shape { headers, ..shape }, &flows)
    }

    const WIDE_SHAPE: Shape = Shape {
        wide: true,
        full: true,
        pods: false,
        headers: true,
        colours: false,
        room: None,
    };

    #[test]
    fn eighty_columns_hold_what_matters_and_two_hundred_all_of_it() {
        let mut flows = reports();
        for flow in &mut flows {
            flow.pod = Some("demo/client-7c9d8b6f4-x2x9k".into());
        }
        let at = |room| {
            let shape = Shape {
                wide: true,
                room: Some(room),
                ..Shape::default()
            };
            let text = table(shape, &flows).text();
            assert!(text.lines().all(|line| line.chars().count() <= room), "{text}");
            assert_eq!(text.lines().count(), 4, "{text}");
            text
        };
        for part in ["POD", "AGE", "DESTINATION", "connection_refused"] {
            assert!(at(80).contains(part), "{part}: {}", at(80));
        }
        for part in ["IDENTITY", "SERVICE", "connection_refused by upstream"] {
            assert!(at(120).contains(part), "{part}: {}", at(120));
        }
        for part in ["ENDPOINT", "SENT", "CONNECT", "demo/client-7c9d8b6f4-x2x9k"] {
            assert!(at(200).contains(part), "{part}: {}", at(200));
        }
        let mut watch = table(
            Shape {
                room: Some(80),
                ..Shape::default()
            },
            &[],
        )
        .expecting_more();
        let header = watch.text();
        let row = watch.line(&reports()[1]);
        let place = |line: &str, part| line.find(part).map(|at| line[..at].chars().count());
        assert_eq!(place(&row, "open"), place(&header, "STATE"), "{header}{row}");
        assert!(row.trim_end().chars().count() <= 80, "{row}");
    }

    #[test]
    fn tables_of_both_widths_are_as_they_were_found_good() {
        let mut flows = reports();
        for flow in &mut flows {
            flow.pod = Some("demo/client-7c9d8b6f4-x2x9k".into());
        }
        let text = |room, colours| {
            let shape = Shape {
                wide: true,
                colours,
                room: Some(room),
                ..Shape::default()
            };
            table(shape, &flows).text()
        };
        golden::same("flows-80", &text(80, false));
        golden::same("flows-200", &text(200, false));
        let coloured = text(80, true);
        golden::same("flows-colours", &coloured.replace('\x1b', "^["));
        let plain = ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"]
            .iter()
            .fold(coloured, |text, code| text.replace(code, ""));
        assert_eq!(plain, text(80, false), "colours move nothing");
    }

    #[test]
    fn a_hundred_times_the_flows_are_a_hundred_times_the_work() {
        let three = reports();
        let work = |times: u64| {
            let flows: Vec<&FlowReport> = three.iter().cycle().take(3 * times as usize).collect();
            let shape = Shape {
                wide: true,
                headers: true,
                room: Some(80),
                ..Shape::default()
            };
            let drawn = allocation_counter::measure(|| {
                let text = Table::new(shape, &flows).text();
                assert_eq!(text.lines().count(), flows.len() + 1);
            });
            drawn.count_total
        };
        let (few, many) = (work(10), work(1_000));
        assert!(many <= few * 100, "{few} and {many} allocations");
        // Twenty columns have a cell each, and those that are cut another.
        assert!(many <= 3_000 * 40, "{many} allocations");
    }

    #[test]
    fn the_table_is_aligned_and_harmless() {
        let golden = "\
AGE    DIR   CLIENT            DESTINATION     ENDPOINT         SERVICE                  IDENTITY               TLS       SENT   RECV     STATE
2m5s   out   10.99.0.2:40000   10.96.0.10:80   -                -                        -                      -         0B     0B       connecting
2m5s   out   10.99.0.2:40000   10.96.0.10:80   [fd99::3]:8080   demo/web.demo.svc?[31m   demo/client→demo/web   TLSv1.3   78B    5.0MiB   open
3ms    out   10.99.0.2:40000   10.96.0.10:80   -                -                        -                      -         0B     0B       connection_refused by upstream
";
        assert_eq!(table(Shape::default(), &reports()).text(), golden);
    }

    #[test]
    fn wide_rows_hold_identities_and_tls_in_full_and_what_the_kernel_says() {
        let text = table(WIDE_SHAPE, &reports()).text();
        let row = text.lines().nth(2).unwrap();
        let ids = "spiffe://td.test/ns/demo/sa/client→spiffe://td.test/ns/demo/sa/web";
        for part in [
            ids,
            "1.2ms",
            "900us",
            "TLS13_AES_128_GCM_SHA256",
            "X25519MLKEM768   310us   3 of 1200   48.0MiB/s   peer_proxy   open",
        ] {
            assert!(row.contains(part), "{part}: {row}");
        }
        let none = Shape {
            headers: false,
            ..Shape::default()
        };
        assert_eq!(Table::new(none, &[]).text(), "");
    }

    #[test]
    fn rows_of_a_watch_stay_under_its_header() {
        let mut table = table(Shape::default(), &[]).expecting_more();
        let header = table.text();
        let column = header.find("STATE").unwrap();
        assert_eq!(table.line(&reports()[0]).find("connecting"), Some(column));
    }
}
