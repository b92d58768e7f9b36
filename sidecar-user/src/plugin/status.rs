//! `status`: the pods that agents serve, and what is wrong with them. Only shows what the agent says at `/pods`.

use std::io::Write;

use super::access::{AccessArgs, SelectorArgs};
use super::columns::{Column, Columns, WHOLE, column, printable};
use super::error::{Error, unwritten};
use super::merge;
use super::paint::{Cell, Tint};
use super::screen::{Output, Screen, ScreenArgs};
use super::words::known;
use crate::observe::{PodList, PodStatus};
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    of: SelectorArgs,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    screen: ScreenArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[arg(long)]
    no_headers: bool,
}

const COLUMNS: [Column; 8] = [
    column("POD", 0, 16),
    column("SIDECAR", 0, WHOLE),
    column("SINCE", 2, WHOLE),
    column("OPEN", 1, WHOLE),
    column("CLOSED", 4, WHOLE),
    column("FAILED", 1, WHOLE),
    column("IDENTITY", 5, 16),
    column("PROBLEMS", 0, 10),
];

impl Status {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        let sources = self.access.sources(&self.of)?;
        sources.tell();
        let answers = sources.get("/pods")?;
        let unlike = |error: serde_json::Error| Error::NotPods {
            target: sources.to_string(),
            reason: error.to_string(),
        };
        let all = merge::lists(&answers.bodies, &merge::PODS).map_err(unlike)?;
        let screen = self.screen.stdout();
        let Some(syntax) = self.output.syntax() else {
            let list: PodList = serde_json::from_value(all).map_err(unlike)?;
            let screen = Screen {
                width: screen.width.filter(|_| self.output == Output::Table),
                ..screen
            };
            let text = match self.output {
                Output::Name => list.pods.iter().map(name).collect(),
                _ => render(&list, &screen, !self.no_headers, std::time::SystemTime::now()),
            };
            out.write_all(text.as_bytes()).map_err(unwritten)?;
            return answers.end();
        };
        screen.document(out, syntax, "PodList", &all)?;
        answers.end()
    }
}

fn name(pod: &PodStatus) -> String {
    printable(&format!("pod/{}", pod.pod)) + "\n"
}

/// A row for each pod; below them each problem in full, with its remedy.
pub(super) fn render(list: &PodList, screen: &Screen, headers: bool, now: std::time::SystemTime) -> String {
    let mut columns = Columns::new(COLUMNS.into(), screen.width, headers).coloured(screen.is_coloured);
    for pod in &list.pods {
        columns.push(row(pod, now));
    }
    let mut text = columns.text();
    for pod in &list.pods {
        for problem in &pod.problems {
            let (pod, what, remedy) = (&pod.pod, &problem.what, &problem.remedy);
            text.push_str(&format!("\n{}\n", printable(&format!("{pod}: {what}"))));
            text.push_str(&format!("  {}\n", printable(remedy)));
        }
    }
    text
}

fn row(pod: &PodStatus, now: std::time::SystemTime) -> Vec<Cell> {
    let since = pod
        .since
        .as_deref()
        .map(|since| match humantime::parse_rfc3339(since) {
            Ok(since) => super::words::age(now.duration_since(since).unwrap_or_default().as_secs_f64()),
            Err(_) => since.to_owned(),
        });
    let tint = match &*pod.sidecar {
        "serving" => Some(Tint::Secured),
        "waiting" | "silent" | "refused" | "cut" => Some(Tint::Failed),
        "gone" => None,
        _ => Some(Tint::Plaintext),
    };
    let problems = match pod.problems.as_slice() {
        [] => "-".into(),
        [one] => Cell::tinted(&*one.what, Tint::Failed),
        [first, more @ ..] => Cell::tinted(format!("{} (and {} more)", first.what, more.len()), Tint::Failed),
    };
    vec![
        pod.pod.clone().into(),
        Cell::maybe(&*pod.sidecar, tint),
        known(since.as_deref()).into(),
        pod.open_flows
            .map_or_else(|| "-".to_owned(), |n| n.to_string())
            .into(),
        pod.closed_flows.to_string().into(),
        pod.failed_flows.to_string().into(),
        known(pod.identity.as_deref()).into(),
        problems,
    ]
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;
    use crate::observe::Problem;
    use std::time::{Duration, SystemTime};

    fn list() -> PodList {
        let pod = |pod: &str, sidecar: &str, problems: &[(&str, &str)]| PodStatus {
            pod: pod.into(),
            sidecar: sidecar.to_owned().into(),
            identity: Some("spiffe://cluster.local/ns/demo/sa/web".into()),
            version: Some("0.1.0".into()),
            since: Some("1970-01-01T00:10:00Z".into()),
            open_flows: (sidecar == "serving").then_some(12),
            closed_flows: 340,
            failed_flows: 3,
            refused_askers: 0,
            problems: problems
                .iter()
                .map(|(what, remedy)| Problem {
                    what: (*what).into(),
                    remedy: (*remedy).into(),
                })
                .collect(),
        };
        PodList {
            pods: vec![
                pod("demo/web-7c9d8b6f4-x2x9k", "serving", &[]),
                pod(
                    "demo/client",
                    "waiting",
                    &[
                        ("no sidecar holds this pod\x1b[31m", "start its sidecar"),
                        ("another", "do that"),
                    ],
                ),
            ],
        }
    }

    fn screen(columns: usize) -> Screen {
        Screen {
            width: Some(columns),
            ..Screen::default()
        }
    }

    #[test]
    fn each_pod_has_a_row_and_each_problem_its_remedy() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_200);
        let text = render(&list(), &screen(80), true, now);
        assert_eq!(
            text,
            "\
POD                      SIDECAR  SINCE  OPEN  CLOSED  FAILED  PROBLEMS
demo/web-7c9d8b6f4-x2x9k  serving  10m    12    340     3       -
"
            .replace("POD                      ", "POD                       ")
                + "demo/client               waiting  10m    -     340     3       no sidecar hold…\n\
                   \ndemo/client: no sidecar holds this pod?[31m\n  start its sidecar\n\
                   \ndemo/client: another\n  do that\n"
        );
        for columns in [80, 200] {
            golden::same(
                &format!("status-{columns}"),
                &render(&list(), &screen(columns), true, now),
            );
        }
        let wide = render(&list(), &screen(200), true, now);
        assert!(
            wide.contains("IDENTITY") && wide.contains("(and 1 more)"),
            "{wide}"
        );
        assert!(wide.lines().all(|line| line.chars().count() <= 200), "{wide}");
    }
}
