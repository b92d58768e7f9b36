//! What cargo says while it builds: its messages for programs, and its line of progress for people. Counts nothing.

use serde::Deserialize;

/// A step of a build that is finished.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Compiled {
        /// Its package's identifier, if it is a build script.
        script: Option<String>,
        /// Nothing was to be done.
        fresh: bool,
    },
    /// A build script has run, or had.
    Run {
        /// Its package's identifier.
        id: String,
    },
}

/// From one of cargo's messages, which are JSON.
pub(super) fn finished(line: &str) -> Option<Step> {
    #[derive(Deserialize)]
    struct Message {
        reason: String,
        package_id: String,
        target: Option<Target>,
        #[serde(default)]
        fresh: bool,
    }
    #[derive(Deserialize)]
    struct Target {
        kind: Vec<String>,
    }
    let message: Message = serde_json::from_str(line).ok()?;
    match (message.reason.as_str(), message.target) {
        ("compiler-artifact", Some(target)) => Some(Step::Compiled {
            script: (target.kind == ["custom-build"]).then_some(message.package_id),
            fresh: message.fresh,
        }),
        ("build-script-executed", _) => Some(Step::Run {
            id: message.package_id,
        }),
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// All that there are; none of a download.
    pub(super) steps: Option<usize>,
    /// What it is at.
    pub(super) now: String,
}

/// From `Building [====>   ] 12/335: syn, quote(build)`, `Downloading [==>   ] 3/20: …`, or nothing like it.
pub(super) fn progress(line: &str) -> Option<Progress> {
    let (verb, rest) = line.trim_start().split_once(" [")?;
    let (_, rest) = rest.split_once("] ")?;
    if verb == "Building" {
        let (counts, now) = rest.split_once(": ").unwrap_or((rest, ""));
        let steps = counts.split_once('/')?.1.trim_end_matches(':').parse().ok()?;
        return Some(Progress {
            steps: Some(steps),
            now: now.trim().to_owned(),
        });
    }
    let is_a_verb = !verb.is_empty() && verb.chars().all(|c| c.is_ascii_alphabetic());
    is_a_verb.then(|| Progress {
        steps: None,
        now: format!("{verb} {}", rest.trim()),
    })
}

/// Whether a line only says that cargo does what it always does.
pub(super) fn is_routine(line: &str) -> bool {
    const VERBS: [&str; 15] = [
        "Adding",
        "Checking",
        "Compiling",
        "Downloaded",
        "Downloading",
        "Dirty",
        "Finished",
        "Fresh",
        "Ignored",
        "Installed",
        "Installing",
        "Locking",
        "Replaced",
        "Replacing",
        "Updating",
    ];
    let verb = line.split_whitespace().next().unwrap_or_default();
    // Cargo's verbs are aligned to the right in twelve columns; the source lines of a warning begin elsewhere.
    let aligned = line.len() > 12 && line.find(verb).map(|start| start + verb.len()) == Some(12);
    line.trim().is_empty() || (aligned && VERBS.contains(&verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compiled_and_what_has_run_is_told_apart_and_nothing_else_is_a_step() {
        let artifact = |kind: &str, fresh: bool| {
            finished(&format!(
                r#"{{"reason":"compiler-artifact","package_id":"x#syn@2.0.1","target":{{"kind":["{kind}"],"name":"syn"}},"fresh":{fresh}}}"#
            ))
        };
        let compiled = |script: Option<&str>, fresh| {
            Some(Step::Compiled {
                script: script.map(Into::into),
                fresh,
            })
        };
        assert_eq!(artifact("lib", true), compiled(None, true));
        assert_eq!(artifact("bin", false), compiled(None, false));
        assert_eq!(
            artifact("custom-build", false),
            compiled(Some("x#syn@2.0.1"), false)
        );
        let run = r#"{"reason":"build-script-executed","package_id":"x#syn@2.0.1","out_dir":"o"}"#;
        assert_eq!(
            finished(run),
            Some(Step::Run {
                id: "x#syn@2.0.1".into()
            })
        );
        assert_eq!(finished(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(
            finished(r#"{"reason":"compiler-message","package_id":"x#syn@2.0.1","target":{"kind":["lib"]}}"#),
            None
        );
        assert_eq!(finished("not JSON"), None);
    }

    #[test]
    fn the_line_of_progress_is_read_and_nothing_else_is_taken_for_it() {
        let building = progress("    Building [=====>         ] 12/335: syn, quote(build)").unwrap();
        assert_eq!(
            (building.steps, building.now.as_str()),
            (Some(335), "syn, quote(build)")
        );
        let last = progress("    Building [=============> ] 334/335: outrigger(bin)          ").unwrap();
        assert_eq!((last.steps, last.now.as_str()), (Some(335), "outrigger(bin)"));
        let download = progress(" Downloading [=>  ] 3/20: syn").unwrap();
        assert_eq!(
            (download.steps, download.now.as_str()),
            (None, "Downloading 3/20: syn")
        );
        for line in [
            "   Compiling syn v2.0.119",
            "   | let a = [1, 2] + b;",
            "    |     call(&[x] ) ",
            "",
        ] {
            assert_eq!(progress(line), None, "{line:?}");
        }
    }

    #[test]
    fn only_what_cargo_always_says_is_left_out() {
        for line in [
            "   Compiling syn v2.0.119",
            "    Finished `release` profile",
            "  Installing bpf-linker v0.10.0",
            " ",
        ] {
            assert!(is_routine(line), "{line:?}");
        }
        for line in [
            "warning: unused variable: `a`",
            "error: could not compile `outrigger`",
            "    Blocking waiting for file lock on build directory",
            "1 | Compiling",
            "  Compiling",
        ] {
            assert!(!is_routine(line), "{line:?}");
        }
    }
}
