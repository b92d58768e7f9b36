//! `completion`: scripts by which shells complete this command line, and the one by which kubectl does. `candidates.rs` is the part that kubectl's
//! script asks; the others know the words themselves.

use std::io::Write;

use clap::{Args, Command, ValueEnum};
use clap_complete::{Shell, generate};

use super::error::{Error, unwritten};
use candidates::candidates;

mod candidates;

/// kubectl finds a plugin by the name of its file.
pub(super) const NAME: &str = "kubectl-outrigger";

#[derive(Debug, Args)]
pub(super) struct Completion {
    /// Of bash, zsh and fish a script that completes kubectl-outrigger; of kubectl an executable that completes kubectl outrigger,
    /// to be put on PATH as kubectl_complete-outrigger
    #[arg(value_enum)]
    shell: For,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum For {
    Bash,
    Zsh,
    Fish,
    Kubectl,
}

/// What kubectl's script asks with: the words so far, of which the last is being typed.
#[derive(Debug, Args)]
pub(super) struct Words {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0..)]
    words: Vec<String>,
}

/// kubectl (1.26 and later) runs the first file of this name on PATH, and reads what cobra's programs print.
const SHIM: &str = "\
#!/bin/sh
# Put this on PATH as kubectl_complete-outrigger, executable: kubectl asks it how `kubectl outrigger` goes on.
exec kubectl-outrigger __complete \"$@\"
";

impl Completion {
    pub(super) fn run(&self, command: Command, out: &mut impl Write) -> Result<(), Error> {
        let shell = match self.shell {
            For::Bash => Shell::Bash,
            For::Zsh => Shell::Zsh,
            For::Fish => Shell::Fish,
            For::Kubectl => return out.write_all(SHIM.as_bytes()).map_err(unwritten),
        };
        let name = match shell {
            // clap_complete writes the dash of a program's name in two ways into a script for bash, which then finds no verb.
            Shell::Bash => "kubectl_outrigger",
            _ => NAME,
        };
        // The usual name of this command has a space, which would be taken for two words; and scripts offer hidden verbs, too.
        let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
        let mut shown = Command::new(name)
            .bin_name(name)
            .version(env!("CARGO_PKG_VERSION"))
            .args(command.get_arguments())
            .subcommands(verbs.cloned());
        let mut script = Vec::new();
        generate(shell, &mut shown, name, &mut script);
        let of_name = |name: &str| format!("-o default {name}\n");
        let script = String::from_utf8_lossy(&script).replace(&of_name(name), &of_name(NAME));
        out.write_all(script.as_bytes()).map_err(unwritten)
    }
}

impl Words {
    pub(super) fn run(&self, mut command: Command, out: &mut impl Write) -> Result<(), Error> {
        command.build();
        out.write_all(candidates(&command, &self.words).text().as_bytes())
            .map_err(unwritten)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command as Program, Stdio};

    use clap::{CommandFactory, Parser};

    use super::super::{Cli, Verb};

    fn script(shell: &str) -> String {
        let Verb::Completion(completion) = Cli::try_parse_from(["x", "completion", shell]).unwrap().verb
        else {
            panic!("completion")
        };
        let mut out = Vec::new();
        completion.run(Cli::command(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// What a real bash offers after these words.
    fn offered_by_bash(words: &[&str]) -> Vec<String> {
        let ask = r#"
            eval "$(cat)"
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
            spec=$(complete -p kubectl-outrigger); function=${spec##*-F }; function=${function%% *}
            $function kubectl-outrigger "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
            printf '%s\n' "${COMPREPLY[@]}"
        "#;
        let mut bash = Program::new("bash")
            .args(["--norc", "-c", ask, "bash"])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        bash.stdin
            .take()
            .unwrap()
            .write_all(script("bash").as_bytes())
            .unwrap();
        let said = bash.wait_with_output().unwrap();
        let trouble = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success() && trouble.is_empty(), "{trouble}");
        let text = String::from_utf8(said.stdout).unwrap();
        text.lines().map(String::from).collect()
    }

    #[test]
    fn a_real_bash_completes_verbs_flags_and_values() {
        assert_eq!(offered_by_bash(&["kubectl-outrigger", "fl"]), ["flows"]);
        let flags = offered_by_bash(&["kubectl-outrigger", "flows", "--"]);
        for flag in ["--watch", "--cause", "--slower-than", "--color"] {
            assert!(flags.iter().any(|offered| offered == flag), "{flag}: {flags:?}");
        }
        let values = offered_by_bash(&["kubectl-outrigger", "flows", "--direction", "in"]);
        assert_eq!(values, ["inbound"]);
        let verbs = offered_by_bash(&["kubectl-outrigger", ""]);
        assert!(!verbs.iter().any(|verb| verb.starts_with("__")), "{verbs:?}");
        let none = offered_by_bash(&["kubectl-outrigger", "nonsense", "nothing"]);
        assert!(!none.iter().any(|offered| offered == "flows"), "{none:?}");
    }

    #[test]
    fn the_other_shells_get_scripts_of_their_own() {
        assert!(script("zsh").starts_with("#compdef kubectl-outrigger"));
        assert!(script("fish").contains("complete -c kubectl-outrigger"));
        for shell in ["bash", "zsh", "fish"] {
            assert!(
                !script(shell).contains("__complete"),
                "{shell} offers a hidden verb"
            );
        }
    }

    /// The script of kubectl with this program beside it, as far as a test can have one.
    #[test]
    fn the_script_of_kubectl_asks_with_the_words_as_they_are() {
        let dir = std::env::temp_dir().join(format!("outrigger-{}-completion", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let plugin = dir.join("kubectl-outrigger");
        std::fs::write(&plugin, "#!/bin/sh\nprintf '<%s>' \"$@\"\n").unwrap();
        std::fs::write(dir.join("shim"), script("kubectl")).unwrap();
        let mode = Program::new("chmod").arg("+x").arg(&plugin).status().unwrap();
        assert!(mode.success());
        let path = format!("{}:/usr/bin:/bin", dir.display());
        let asked = Program::new("sh")
            .arg(dir.join("shim"))
            .args(["flows", "-o", ""])
            .env("PATH", path)
            .output()
            .unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(
            String::from_utf8(asked.stdout).unwrap(),
            "<__complete><flows><-o><>"
        );
    }

    #[test]
    fn the_verb_of_the_script_takes_any_words() {
        for (words, offered) in [
            (&["fl"][..], "flows\t"),
            (&["flows", "-o", "y"], "yaml\n:4\n"),
            (&["flows", "--output=j"], "--output=json\n:4\n"),
            (&["flows", "--help", "--", "-"], ":4\n"),
        ] {
            let args = ["x", "__complete"].iter().chain(words);
            let Verb::Complete(words) = Cli::try_parse_from(args).unwrap().verb else {
                panic!("__complete")
            };
            let mut out = Vec::new();
            words.run(Cli::command(), &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(text.contains(offered), "{words:?}: {text}");
        }
    }
}
