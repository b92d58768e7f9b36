//! The chart's templates of injection: what `kubectl outrigger inject` prints for a profile of placeholders, with the chart's values in their
//! place. The rules themselves are written once, in Rust.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::image::BUILT;
use crate::workspace;

/// Each stands for a value, and occurs nowhere else.
const PROFILE: &str = "image: image-of-the-values
imagePullPolicy: Never
mode: permissive
attach: self
hostPaths: {cgroup: /cgroup-of-the-values, bpf: /bpf-of-the-values}
trustDomain: trust-domain-of-the-values
systemNamespace: outrigger-system
refresh: 5555s
resources: {cpu: 1111m, memory: 2222Mi, memoryLimit: 3333Mi, guaranteedCpu: 4444m}
identity: pod-certificates
";

/// What is printed for the profile, and the template's words for it.
const PLACEHOLDERS: [(&str, &str, &str); 13] = [
    ("", "image-of-the-values", r#"{{ include "outrigger.image" . }}"#),
    (
        r#"\"imagePullPolicy\": dyn(\""#,
        "Never",
        "{{ .Values.image.pullPolicy }}",
    ),
    (
        r#"\"OUTRIGGER_MODE\"), \"value\": dyn(\""#,
        "permissive",
        "{{ .Values.proxy.mode }}",
    ),
    (
        "[?'outrigger.example/attach'].orValue('",
        "self",
        "{{ .Values.injection.attach }}",
    ),
    (
        "",
        "/cgroup-of-the-values",
        "{{ .Values.agent.hostPaths.cgroup }}",
    ),
    ("", "/bpf-of-the-values", "{{ .Values.agent.hostPaths.bpf }}"),
    ("", "trust-domain-of-the-values", "{{ .Values.trustDomain }}"),
    ("", "5555s", "{{ .Values.proxy.refresh }}"),
    ("", "1111m", "{{ .Values.proxy.resources.cpu }}"),
    ("", "2222Mi", "{{ .Values.proxy.resources.memory }}"),
    ("", "3333Mi", "{{ .Values.proxy.resources.memoryLimit }}"),
    ("", "4444m", "{{ .Values.proxy.resources.guaranteedCpu }}"),
    // Compared with each way by which a sidecar can get its certificates.
    (
        "('",
        "pod-certificates' ==",
        r#"{{ include "outrigger.identity" . }}' =="#,
    ),
];

/// Before the digest of a profile in the annotation that injection leaves.
const DIGEST: &str = r#"{\\\"profile\\\":\\\""#;
const DIGEST_DIGITS: usize = 16;

/// A template, the option that prints it, the kinds that belong to it, and the condition under which it is rendered.
const TEMPLATES: [(&str, &str, &str, &str); 3] = [
    (
        "injection-policy.yaml",
        "--policies",
        "kind: Mutating",
        r#"eq .Values.injection.by "policy""#,
    ),
    (
        "injection-webhook.yaml",
        "--webhook",
        "kind: Mutating",
        r#"eq .Values.injection.by "webhook""#,
    ),
    (
        "injection-guards.yaml",
        "--policies",
        "kind: Validating",
        ".Values.injection.guards",
    ),
];

/// Writes them into the directory of the chart's templates.
pub(super) fn write(templates: &Path) -> Result<()> {
    let program = "kubectl-outrigger";
    let built = match std::env::var_os(BUILT) {
        Some(dir) => dir.into(),
        None => {
            let build = ["build", "--quiet", "--package", "outrigger", "--bin", program];
            workspace::run(workspace::cargo().args(build))?;
            workspace::bin_dir()
        }
    };
    let program = built.join(program);
    let profile = workspace::target_dir().join("placeholders.yaml");
    fs::write(&profile, PROFILE).with_context(|| format!("write {}", profile.display()))?;
    for (name, option, kinds, condition) in TEMPLATES {
        let mut command = Command::new(&program);
        command.args(["inject", option, "--profile"]).arg(&profile);
        let printed = workspace::ask(&mut command)
            .with_context(|| format!("{} inject {option} fails", program.display()))?;
        let text = template(&printed, kinds, condition).with_context(|| name.to_owned())?;
        let path = templates.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn template(printed: &str, kinds: &str, condition: &str) -> Result<String> {
    let objects = printed.split("---\n").filter(|object| !object.trim().is_empty());
    let ours: Vec<&str> = objects
        .filter(|object| object.lines().any(|line| line.starts_with(kinds)))
        .collect();
    ensure!(!ours.is_empty(), "nothing of `{kinds}` is printed");
    let mut text = ours.join("---\n").replace("{{", r#"{{ "{{" }}"#);
    if let Some(at) = text.find(DIGEST) {
        let digits = at + DIGEST.len();
        text.replace_range(
            digits..digits + DIGEST_DIGITS,
            r#"{{ include "outrigger.profileDigest" . }}"#,
        );
        for (before, printed, value) in PLACEHOLDERS {
            let found = format!("{before}{printed}");
            ensure!(
                text.contains(&found),
                "`{found}` is not printed: the profile has another form now"
            );
            text = text.replace(&found, &format!("{before}{value}"));
        }
    }
    Ok(format!(
        "{{{{- /* Made by `cargo xtask manifests` from what `kubectl outrigger inject` prints. */ -}}}}\n\
         {{{{- if {condition} }}}}\n{text}{{{{- end }}}}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_that_is_not_printed_is_an_error_and_other_kinds_are_left_out() {
        let mut printed = String::from("kind: ValidatingX\n---\nkind: MutatingX\ndigest: ");
        printed += DIGEST;
        printed += "0123456789abcdef rest\n";
        let error = template(&printed, "kind: Mutating", "x").unwrap_err().to_string();
        assert!(error.contains("image-of-the-values"), "{error}");
        for (before, value, _) in PLACEHOLDERS {
            printed += &format!("{before}{value}\n");
        }
        let text = template(&printed, "kind: Mutating", "x").unwrap();
        assert!(
            text.contains(".Values.proxy.mode") && text.contains("profileDigest"),
            "{text}"
        );
        assert!(!text.contains("Validating") && !text.contains("0123"), "{text}");
        assert!(template(&printed, "kind: Other", "x").is_err());
    }
}
