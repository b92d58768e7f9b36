//! iperf3: a control connection and one a stream, in both directions at once, and what both ends print of them.

use anyhow::{Context, Result};
use harness::{Output, apps};
use serde_json::Value;

use super::facts::{Facts, lines_with};
use super::world::World;
use super::{Accepted, same_but};

const PORT: u16 = 5201;

const LOOPBACK: &[Accepted] = &[
    Accepted {
        fact: "IPv4: the segment size",
        reason: "the connection that the program holds is over loopback, whose segments are larger",
    },
    Accepted {
        fact: "IPv6: the segment size",
        reason: "as for IPv4",
    },
];

#[test]
fn iperf3_shows_what_it_shows_bare() {
    same_but(
        "f-iperf3",
        |world| {
            let mut facts = Facts::default();
            let mut server = apps::iperf3_server(&world.server, PORT)?;
            let mut runs = 1;
            for at in world.at(PORT) {
                let family = if at.is_ipv4() { "IPv4" } else { "IPv6" };
                let run = |args: &[&str]| iperf3(world, &at.ip().to_string(), args);
                for (label, args) in [
                    ("to the server", &["-n", "8M", "-P", "3"][..]),
                    ("from the server", &["-n", "8M", "-R"]),
                    ("both ways", &["-n", "4M", "--bidir"]),
                    (
                        "from a chosen port",
                        &["-n", "1M", "--cport", &format!("2101{}", u8::from(at.is_ipv6()))],
                    ),
                    ("over UDP", &["-u", "-n", "20K", "-b", "10M"]),
                ] {
                    let answer = run(args).and_then(Output::ok);
                    // The client ends first, and the server turns the next one away until it has told all of this one.
                    // Should it not have met this one at all, what there is tells more than that.
                    runs += 1;
                    let next = format!("(test #{runs})");
                    let _ = server.until("waits for the next run", |server| server.log().contains(&next));
                    match answer {
                        Ok(report) => {
                            let report: Value = serde_json::from_str(&report).context("iperf3's report")?;
                            facts.note(format!("{family}: {label}"), told(&report));
                            if label == "to the server" {
                                let size = &report["start"]["tcp_mss_default"];
                                facts.note(format!("{family}: the segment size"), size.to_string());
                            }
                        }
                        Err(error) => facts.note(format!("{family}: {label}"), format!("{error:#}")),
                    }
                }
            }
            facts.note(
                "what the server printed",
                lines_with(&server.log(), &["Accepted", "connected to", "rror"]),
            );
            for (label, address) in world.dead() {
                let port = address.port().to_string();
                let args = ["-p", &port, "--connect-timeout", "1000"];
                facts.end_with(label, iperf3(world, &address.ip().to_string(), &args), |text| {
                    lines_with(text, &["\"error\""])
                });
            }
            Ok(facts)
        },
        LOOPBACK,
    );
}

fn iperf3(world: &World, host: &str, args: &[&str]) -> Result<Output> {
    world.client.run("iperf3", ["-J", "-c", host].iter().chain(args))
}

/// The facts of a report that are not measurements: who was connected with whom, and what arrived.
fn told(report: &Value) -> String {
    let mut lines = Vec::new();
    for stream in report["start"]["connected"].as_array().into_iter().flatten() {
        let [local, local_port, remote, remote_port] =
            ["local_host", "local_port", "remote_host", "remote_port"].map(|key| &stream[key]);
        lines.push(format!("{local} {local_port} to {remote} {remote_port}"));
    }
    let lost = &report["end"]["sum"]["lost_packets"];
    lines.push(format!("lost {lost}, error {}", report["error"]));
    lines.join("\n")
}
