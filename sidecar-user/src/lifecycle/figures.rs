//! What goes wrong in the process itself, as every role shows it among its metrics. Counts nothing.

use super::logging::{lines_dropped, lines_suppressed};
use super::panics::panics;
use crate::observe::Figure;

pub fn figures() -> Vec<Figure> {
    let dropped = "Lines of the log that were lost, because nobody read it fast enough";
    let suppressed = "Lines that were left out of bursts, whose number the log has";
    let met = "Bugs that were met, each at the cost of one connection or one attempt";
    vec![
        Figure::counter("outrigger_log_lines_dropped", dropped).value(lines_dropped()),
        Figure::counter("outrigger_log_lines_suppressed", suppressed).value(lines_suppressed()),
        Figure::counter("outrigger_panics", met).value(panics()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_documented() {
        const MANUAL: &str = include_str!("../../../docs/observability.md");
        for figure in figures() {
            let name = figure.exposed_name();
            assert!(MANUAL.contains(&format!("| `{name}` | counter |")), "{name}");
        }
    }
}
