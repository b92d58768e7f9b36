//! The kernel's own figures of the client's connections, as its flows have them.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::stage::Stage;

/// So many flows of each kind are shown.
const SHOWN: usize = 2;

/// Both connections of the last flows through the mesh, and of the last to the server outside.
pub(super) fn figures(stage: &Stage) -> Result<Vec<String>> {
    let flows = stage.mesh.client.sidecar.all_flows()?;
    let of = |transport: &str| -> Vec<&Value> {
        let ended = flows
            .iter()
            .filter(|flow| flow["state"] == "closed" && flow["transport"] == transport);
        let mut those: Vec<&Value> = ended.collect();
        those.sort_by_key(|flow| flow["closed"].as_str().unwrap_or_default().to_owned());
        those.split_off(those.len().saturating_sub(SHOWN))
    };
    let (mesh, plain) = (of("hbone"), of("plain"));
    ensure!(!mesh.is_empty(), "no flow through the mesh has ended: {flows:?}");
    ensure!(
        !plain.is_empty(),
        "no flow to the server outside has ended: {flows:?}"
    );
    let mut lines = vec![format!(
        "{:<16} {:<12} {:>8} {:>8} {:>8} {:>6} {:>6} {:>5}",
        "DESTINATION", "LEG", "CONNECT", "RTT", "MIN RTT", "SENT", "AGAIN", "CWND"
    )];
    for flow in mesh.into_iter().chain(plain) {
        for side in ["client", "upstream"] {
            lines.push(leg(flow, side)?);
        }
    }
    Ok(lines)
}

fn leg(flow: &Value, side: &str) -> Result<String> {
    let facts = &flow["tcp"][side];
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let count = |name: &str| {
        facts[name]
            .as_u64()
            .with_context(|| format!("{side} has no {name}: {flow}"))
    };
    let (destination, connect, name) = match side {
        "client" => (text(&flow["originalDst"]), None, "application"),
        _ if facts["tunnel"] == true => (String::new(), flow["connectSeconds"].as_f64(), "tunnel"),
        _ => (String::new(), flow["connectSeconds"].as_f64(), "plaintext"),
    };
    let (sent, again) = (count("segmentsSent")?, count("segmentsRetransmitted")?);
    ensure!(sent > 0, "{side} has sent nothing: {flow}");
    Ok(format!(
        "{destination:<16} {name:<12} {:>8} {:>8} {:>8} {sent:>6} {again:>6} {:>5}",
        milliseconds(connect),
        milliseconds(facts["rttSeconds"].as_f64()),
        milliseconds(facts["minRttSeconds"].as_f64()),
        count("congestionWindowSegments")?,
    ))
}

fn milliseconds(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".into(), |seconds| format!("{:.2}ms", seconds * 1e3))
}
