//! The manifest of a plugin of krew, `krew.googlecontainertools.github.com/v1alpha2`: its digests, and whether krew would take it. Reads no more of YAML than
//! our manifest has.

use std::collections::BTreeSet;

use anyhow::Result;

/// What stands in the place of a digest, before the name of the archive.
const DIGEST_OF: &str = "digest of ";

/// With which each platform begins.
const PLATFORM: &str = "    - selector:\n";

const API_VERSION: &str = "krew.googlecontainertools.github.com/v1alpha2";

/// krew's index refuses longer ones, which `kubectl krew search` cuts off.
const LONGEST_SHORT_DESCRIPTION: usize = 50;

pub(super) struct Filled {
    pub(super) text: String,
    /// The archives that are not there. Their platforms are left out.
    pub(super) missing: Vec<String>,
}

/// Puts digests into their places.
pub(super) fn fill(text: &str, digest: impl Fn(&str) -> Result<Option<String>>) -> Result<Filled> {
    let mut parts = text.split(PLATFORM);
    let mut filled = Filled {
        text: without_comments(parts.next().unwrap_or_default()),
        missing: Vec::new(),
    };
    for platform in parts {
        let place = field(platform, "sha256").unwrap_or_default();
        let Some(archive) = place.strip_prefix(DIGEST_OF) else {
            filled.text += PLATFORM;
            filled.text += platform;
            continue;
        };
        match digest(archive)? {
            Some(digest) => {
                filled.text += PLATFORM;
                filled.text += &platform.replace(place, &digest);
            }
            None => filled.missing.push(archive.to_owned()),
        }
    }
    Ok(filled)
}

fn without_comments(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Why krew would not take it.
pub(super) fn problems(text: &str) -> Vec<String> {
    let mut parts = text.split(PLATFORM);
    let head = parts.next().unwrap_or_default();
    let mut problems = Vec::new();
    let mut demand = |good: bool, what: String| {
        if !good {
            problems.push(what);
        }
    };
    for (name, wanted) in [("apiVersion", API_VERSION), ("kind", "Plugin")] {
        let found = field(head, name);
        demand(
            found == Some(wanted),
            format!("{name} is {found:?}, not {wanted}"),
        );
    }
    let name = field(head, "name").unwrap_or_default();
    demand(
        is_name(name),
        format!("metadata.name is `{name}`: letters, digits and - alone"),
    );
    let version = field(head, "version").unwrap_or_default();
    demand(
        is_version(version),
        format!("spec.version is `{version}`, not vMAJOR.MINOR.PATCH"),
    );
    let short = field(head, "shortDescription").unwrap_or_default();
    demand(
        !short.is_empty() && short.len() <= LONGEST_SHORT_DESCRIPTION && !short.ends_with('.'),
        format!("spec.shortDescription is `{short}`: at most 50 letters, and no sentence"),
    );
    for name in ["description", "homepage"] {
        demand(field(head, name).is_some(), format!("spec.{name} is missing"));
    }
    let mut seen = BTreeSet::new();
    let platforms: Vec<&str> = parts.collect();
    demand(!platforms.is_empty(), "spec.platforms is empty".to_owned());
    for platform in platforms {
        let of = |name| field(platform, name).unwrap_or_default();
        let which = format!("{}/{}", of("os"), of("arch"));
        let known = [
            "linux/amd64",
            "linux/arm64",
            "darwin/amd64",
            "darwin/arm64",
            "windows/amd64",
        ];
        demand(known.contains(&which.as_str()), format!("{which} is no platform"));
        demand(seen.insert(which.clone()), format!("{which} is there twice"));
        let sha256 = of("sha256");
        let is_digest = sha256.len() == 64
            && sha256
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        demand(is_digest, format!("{which}: sha256 is `{sha256}`"));
        let uri = of("uri");
        let is_archive = uri.starts_with("https://") && (uri.ends_with(".tar.gz") || uri.ends_with(".zip"));
        demand(
            is_archive && uri.contains(&format!("/{version}/")),
            format!("{which}: uri is `{uri}`"),
        );
        let bin = of("bin");
        // krew links it as kubectl-NAME, and the program knows by that that it is the plugin.
        demand(
            bin == format!("kubectl-{name}"),
            format!("{which}: bin is `{bin}`"),
        );
    }
    problems
}

fn is_name(name: &str) -> bool {
    let mut letters = name.bytes();
    !name.is_empty()
        && letters.all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-')
}

fn is_version(text: &str) -> bool {
    let Some(version) = text.strip_prefix('v') else {
        return false;
    };
    let numbers: Vec<&str> = version.split('.').collect();
    numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u32>().is_ok())
}

/// The first of that name, however deep.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut values = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix(name));
    values.find_map(|rest| rest.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::workspace;

    const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn manifest() -> String {
        fs::read_to_string(workspace::root().join("deploy/krew/outrigger.yaml")).unwrap()
    }

    fn filled() -> Filled {
        fill(&manifest(), |_| Ok(Some(DIGEST.to_owned()))).unwrap()
    }

    #[test]
    fn krew_would_take_our_manifest_with_the_digests_of_all_archives() {
        let filled = filled();
        assert_eq!(filled.missing, [""; 0]);
        assert_eq!(problems(&filled.text), [""; 0], "{}", filled.text);
        assert_eq!(filled.text.matches(DIGEST).count(), 2);
        let version = format!("\n  version: v{}\n", env!("CARGO_PKG_VERSION"));
        assert!(filled.text.contains(&version), "{}", filled.text);
    }

    #[test]
    fn a_platform_without_its_archive_is_left_out_and_named() {
        let digest = |name: &str| Ok(name.contains("amd64").then(|| DIGEST.to_owned()));
        let filled = fill(&manifest(), digest).unwrap();
        assert_eq!(filled.missing, ["kubectl-outrigger-linux-arm64.tar.gz"]);
        assert!(!filled.text.contains("arm64"), "{}", filled.text);
        assert_eq!(problems(&filled.text), [""; 0]);
    }

    #[test]
    fn what_krew_would_refuse_is_told() {
        assert_eq!(problems(&manifest()).len(), 2, "the digests are not there yet");
        let good = filled().text;
        for (from, to, culprit) in [
            ("v1alpha2", "v1", "apiVersion"),
            ("name: outrigger", "name: Outrigger", "metadata.name"),
            ("version: v0", "version: 0", "spec.version"),
            (
                "See and explain",
                "See, and explain to everybody who asks,",
                "shortDescription",
            ),
            ("homepage", "home", "spec.homepage"),
            ("arch: arm64", "arch: amd64", "linux/amd64 is there twice"),
            ("arch: arm64", "arch: mips", "linux/mips is no platform"),
            (
                "https://outrigger.example/rel",
                "http://outrigger.example/rel",
                "uri",
            ),
            ("bin: kubectl-outrigger", "bin: outrigger", "bin"),
            (DIGEST, "0123", "sha256"),
        ] {
            let told = problems(&good.replace(from, to));
            assert!(
                told.iter().any(|problem| problem.contains(culprit)),
                "{from} as {to}: {told:?}"
            );
        }
    }
}
