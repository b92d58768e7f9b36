//! `inject` and `uninject`: pods of a file with their sidecar, or without it; and what a cluster is told so that it injects by itself.
//! Asks no cluster and changes no file.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::error::{Error, unwritten};
use super::yaml;
use crate::inject::{self, Namespace, Profile};

/// The most that is read: a List of all Deployments of a large cluster is smaller.
const MAX_FILE: u64 = 256 << 20;

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["file", "policies", "webhook"])))]
pub(super) struct Inject {
    /// YAML or JSON with pods or what makes pods, or - for the standard input; as often as wanted; printed with sidecars
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Print the admission policies by which the API server injects, from Kubernetes 1.36 on
    #[arg(long)]
    policies: bool,
    /// Print the registration of the webhook, for older servers, and the policies that guard it
    #[arg(long)]
    webhook: bool,
    /// YAML with the image of the sidecar, its mode and its resources: see docs/injection.md
    #[arg(long, value_name = "FILE", env = "OUTRIGGER_PROFILE")]
    profile: Option<PathBuf>,
    /// Image of the sidecar, in the place of the profile's
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Args)]
pub(super) struct Uninject {
    /// YAML or JSON, or - for the standard input; as often as wanted; printed without sidecars
    #[arg(short, long, value_name = "FILE", required = true)]
    file: Vec<PathBuf>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    #[default]
    Yaml,
    /// One List
    Json,
}

impl Inject {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        let profile = self.profile()?;
        if self.file.is_empty() {
            let injector = match self.policies {
                true => inject::policies(&profile),
                false => inject::webhook_configuration(&profile),
            };
            return self
                .output
                .print(&[injector, inject::guards(&profile)].concat(), out);
        }
        let with = |pod: &Value, namespace: &str| with_sidecar(pod, namespace, &profile);
        self.output.print(&changed(&self.file, with)?, out)
    }

    fn profile(&self) -> Result<Profile, Error> {
        let mut profile = match (&self.profile, &self.image) {
            (Some(path), _) => {
                let text = read(path)?;
                Profile::parse(&text).map_err(|problems| Error::File {
                    reason: problems.in_file(path),
                })?
            }
            (None, Some(image)) => Profile::new(image),
            (None, None) => return Err(Error::NoImage),
        };
        if let Some(image) = &self.image {
            profile.image.clone_from(image);
        }
        Ok(profile)
    }
}

impl Uninject {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        let without = |pod: &Value, _: &str| Ok(inject::uninject(pod).unwrap_or_else(|| pod.clone()));
        self.output.print(&changed(&self.file, without)?, out)
    }
}

/// Whoever asks for a file has asked for its pods, unless they say themselves that they want none.
fn with_sidecar(pod: &Value, namespace: &str, profile: &Profile) -> Result<Value, String> {
    let namespace = Namespace {
        name: namespace.to_owned(),
        is_enabled: true,
    };
    match inject::inject(pod, &namespace, profile) {
        Ok(injected) => {
            for warning in injected.warnings {
                eprintln!("warning: {warning}");
            }
            Ok(injected.pod)
        }
        Err(refusals) if refusals.iter().all(|refusal| refusal.is_exempt) => {
            eprintln!("left as it is: {}", refusals[0].reason);
            Ok(pod.clone())
        }
        Err(refusals) => {
            let reasons: Vec<&str> = refusals.iter().map(|refusal| refusal.reason).collect();
            Err(reasons.join("; "))
        }
    }
}

/// The objects of all files, in their order.
fn changed(
    files: &[PathBuf],
    mut change: impl FnMut(&Value, &str) -> Result<Value, String>,
) -> Result<Vec<Value>, Error> {
    if files.iter().filter(|file| file.as_os_str() == "-").count() > 1 {
        return Err(Error::Usage {
            reason: "--file -: the standard input can be read once only".into(),
        });
    }
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    for file in files {
        let text = read(file)?;
        let mut objects = inject::documents(&text).map_err(|problem| Error::File {
            reason: format!("{}:{problem}", file.display()),
        })?;
        if objects.is_empty() {
            return Err(Error::File {
                reason: format!("{}: there is no object in it", file.display()),
            });
        }
        let mut of_file = Vec::new();
        for object in &mut objects {
            inject::change(object, &mut change, &mut of_file);
        }
        wrong.extend(
            of_file
                .iter()
                .map(|wrong| format!("{}: {}: {}", file.display(), wrong.object, wrong.reason)),
        );
        all.append(&mut objects);
    }
    match wrong.is_empty() {
        true => Ok(all),
        // Nothing is printed then: whoever applies the output would run a pod without what was asked for.
        false => Err(Error::NotInjected {
            reasons: wrong.join("\n"),
        }),
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let input: io::Result<Box<dyn Read>> = match path.as_os_str() == "-" {
        true => Ok(Box::new(io::stdin())),
        false => fs::File::open(path).map(|file| Box::new(file) as Box<dyn Read>),
    };
    input
        .and_then(|input| input.take(MAX_FILE).read_to_string(&mut text))
        .map_err(|source| Error::File {
            reason: format!("cannot read {}: {source}", path.display()),
        })?;
    Ok(text)
}

impl Format {
    fn print(self, objects: &[Value], out: &mut impl Write) -> Result<(), Error> {
        if matches!(self, Self::Json) {
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
            return writeln!(out, "{list:#}").map_err(unwritten);
        }
        for (n, object) in objects.iter().enumerate() {
            let separator = if n == 0 { "" } else { "---\n" };
            write!(out, "{separator}{}", yaml::document(object)).map_err(unwritten)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    enum Line {
        Inject(Inject),
        Uninject(Uninject),
    }

    fn run(words: &[&str]) -> Result<String, String> {
        let mut out = Vec::new();
        let line = Line::try_parse_from([&["line"], words].concat()).map_err(|error| error.to_string())?;
        match line {
            Line::Inject(inject) => inject.run(&mut out),
            Line::Uninject(uninject) => uninject.run(&mut out),
        }
        .map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    struct File(PathBuf);

    impl File {
        fn new(name: &str, text: &str) -> Self {
            let path = std::env::temp_dir().join(format!("outrigger-{}-{name}.yaml", std::process::id()));
            fs::write(&path, text).unwrap();
            Self(path)
        }

        fn path(&self) -> &str {
            self.0.to_str().unwrap()
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    const OBJECTS: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {on: \"yes\"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: nginx}]
      volumes: [{name: conf, configMap: {name: settings, defaultMode: 0644}}]
";

    #[test]
    fn a_file_goes_in_and_comes_back_as_it_was() {
        let file = File::new("there", OBJECTS);
        let injected = run(&["inject", "--file", file.path(), "--image", "x:1"]).unwrap();
        assert!(injected.contains("name: outrigger-proxy\n"), "{injected}");
        let injected = File::new("back", &injected);
        let again = run(&["inject", "--file", injected.path(), "--image", "x:2"]).unwrap();
        assert_eq!(
            again,
            fs::read_to_string(&injected.0).unwrap(),
            "it has its sidecar"
        );

        let back = run(&["uninject", "--file", injected.path()]).unwrap();
        let read = |text: &str| inject::documents(text).unwrap();
        assert_eq!(read(&back), read(OBJECTS));
        assert!(
            back.contains("defaultMode: 420\n"),
            "octal, as kubectl reads it: {back}"
        );
    }

    #[test]
    fn nothing_is_printed_of_a_file_with_a_pod_that_is_refused() {
        let refused = OBJECTS.replace("containers:", "hostNetwork: true\n      containers:");
        let file = File::new("refused", &refused);
        let error = run(&["inject", "--file", file.path(), "--image", "x:1"]).unwrap_err();
        assert!(error.contains("Deployment web: hostNetwork"), "{error}");
    }

    #[test]
    fn of_several_files_all_objects_are_printed_or_all_reasons() {
        let (first, second) = (
            File::new("first", OBJECTS),
            File::new("second", &OBJECTS.replace("web", "api")),
        );
        let line = |verb, paths: [&str; 2]| {
            let files = paths.iter().flat_map(|path| ["-f", path]);
            let image = if verb == "inject" {
                &["--image", "x:1"][..]
            } else {
                &[]
            };
            run(&[verb]
                .into_iter()
                .chain(files)
                .chain(image.iter().copied())
                .collect::<Vec<_>>())
        };
        let printed = line("inject", [first.path(), second.path()]).unwrap();
        assert_eq!(inject::documents(&printed).unwrap().len(), 4);
        assert_eq!(printed.matches("name: outrigger-proxy\n").count(), 2);
        let back = line("uninject", [first.path(), second.path()]).unwrap();
        assert_eq!(inject::documents(&back).unwrap().len(), 4);

        let refuse = |file: &File| {
            let text = fs::read_to_string(&file.0).unwrap();
            fs::write(
                &file.0,
                text.replace("containers:", "hostNetwork: true\n      containers:"),
            )
            .unwrap();
        };
        refuse(&second);
        let error = line("inject", [first.path(), second.path()]).unwrap_err();
        assert!(
            error.contains(&format!("{}: Deployment api: hostNetwork", second.path())),
            "{error}"
        );
        assert!(!error.contains("Deployment web"), "{error}");
        refuse(&first);
        let error = line("inject", [first.path(), second.path()]).unwrap_err();
        assert!(
            error.contains("Deployment web") && error.contains("Deployment api"),
            "{error}"
        );
        let twice = line("uninject", ["-", "-"]).unwrap_err();
        assert!(twice.contains("once only"), "{twice}");
        let empty = File::new("empty", "---\n");
        let error = line("uninject", [empty.path(), first.path()]).unwrap_err();
        assert!(error.contains("no object"), "{error}");
    }

    #[test]
    fn a_pod_that_says_no_itself_stays_as_it_is() {
        let opted_out = OBJECTS.replace("{app: web}", "{outrigger.example/inject: disabled}");
        let file = File::new("out", &opted_out);
        let printed = run(&["inject", "--file", file.path(), "--image", "x:1"]).unwrap();
        assert!(!printed.contains("outrigger-proxy"), "{printed}");
    }

    #[test]
    fn without_an_image_it_says_how_to_name_one() {
        let error = run(&["inject", "--policies"]).unwrap_err();
        assert!(error.contains("--image"), "{error}");
        assert!(run(&["inject"]).is_err());
    }

    #[test]
    fn policies_are_documents_that_can_be_applied() {
        for (door, kind) in [
            ("--policies", "MutatingAdmissionPolicy"),
            ("--webhook", "MutatingWebhookConfiguration"),
        ] {
            let text = run(&["inject", door, "--image", "x:1"]).unwrap();
            let objects = inject::documents(&text).unwrap();
            assert_eq!(objects[0]["kind"], kind);
            let guards = objects
                .iter()
                .filter(|object| object["kind"] == "ValidatingAdmissionPolicy");
            assert_eq!(guards.count(), 3);
        }
    }
}
