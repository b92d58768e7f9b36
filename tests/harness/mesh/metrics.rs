//! Reads what `/metrics` answers, in Prometheus' text format.

/// The sum of all series of a metric whose labels hold all the given texts.
pub(super) fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let series = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, found_labels) = series.split_once('{').unwrap_or((series, ""));
        let wanted = found == name && labels.iter().all(|label| found_labels.contains(label));
        wanted.then(|| value.parse().ok()).flatten()
    });
    series.fold(0.0, |sum: f64, value: f64| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_the_series_that_match() {
        let text = "# HELP opened x\nopened{direction=\"inbound\",transport=\"plain\"} 2\n\
                    opened{direction=\"inbound\",transport=\"hbone\"} 3\nopened{direction=\"outbound\"} 5\n";
        assert_eq!(sum(text, "opened", &[]), 10.0);
        assert_eq!(sum(text, "opened", &["direction=\"inbound\""]), 5.0);
        assert_eq!(sum(text, "closed", &[]), 0.0);
    }
}
