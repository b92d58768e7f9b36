//! The command line: what can be typed, and which function answers it. Judges no value; `config/` does.

mod attach;
pub mod ca;
mod check;
mod install;
mod kernel;
pub mod request;
pub mod state_dir;
pub mod status;
mod table;
pub mod token;

use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand};

use crate::config::{self, Kind, Overrides, Setting};
use crate::{agent, control, lifecycle, plugin, proxy};

/// Transparent mutual TLS for unmodified programs, by eBPF.
#[derive(Debug, Parser)]
#[command(
    name = "outrigger",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Runs the sidecar of one workload
    ///
    /// A value given by flag wins over the environment, the environment over the file, the file over the default.
    Proxy(Role<ProxySettings>),
    /// Runs the control process: the certificate authority
    ///
    /// A value given by flag wins over the environment, the environment over the file, the file over the default.
    Control(Role<ControlSettings>),
    /// Runs the agent of a node: it installs interception for pods, whose sidecars then need no privilege
    ///
    /// A value given by flag wins over the environment, the environment over the file, the file over the default.
    Agent(Role<AgentSettings>),
    /// Asks the agent of this node to install a pod that it has not found by itself
    Install(install::Install),
    /// Works on configuration files
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Works on the certificate authority's root
    #[command(subcommand)]
    Ca(ca::Verb),
    /// Works on bootstrap tokens
    #[command(subcommand)]
    Token(token::Verb),
    /// Attaches what a proxy would, before there is one: connections are refused until it takes over
    ///
    /// For a step that runs before anything else of the pod, in its network namespace or with `interception.netns`, with the
    /// proxy's own configuration; of that it needs no more than `interception`. Leaves a pod alone to which a proxy has attached.
    Attach(Role<ProxySettings>),
    /// Removes what a proxy has attached to the kernel and pinned, also after a crash
    ///
    /// Hooks of other versions are removed as well. Refuses while a proxy runs with that directory.
    ///
    /// A pod of an agent is named by --uid, --cgroup or --pid. Its sidecar keeps its session and is not ready until `outrigger install`
    /// has the pod intercepted again; its own start, and that of an agent, do that too.
    Detach(kernel::Detach),
    /// Says what is attached where, by whom and since when, and whether a proxy serves it
    ///
    /// The kernel is asked about every pinned hook, and the proxy about itself. Exits with 1 when something is not as it
    /// should be: a hook that is detached, a cgroup that is gone or was made anew, a proxy that does not answer or is not
    /// ready.
    Status(status::Status),
    /// Asks a running proxy what would happen to a connection, and why
    ///
    /// The kernel's own maps and the proxy's routes are looked at; no connection is opened. Exits with 0 when there is
    /// an answer, whatever it is.
    Why(Box<plugin::Why>),
    /// Asks the sidecar to end, as SIGTERM does: for a preStop hook
    ///
    /// New connections are served for `drain.minimum`, open ones until `drain.deadline`; then the sidecar exits.
    Drain(plugin::Drain),
    /// Says whether this host is fit to intercept, and what is missing
    Check {
        /// Name the programs of other owners on this cgroup, too, and on this network namespace
        #[arg(long, value_name = "DIR")]
        cgroup: Option<PathBuf>,
        /// The file of that network namespace [default: that of the cgroup's first program, or this command's own]
        #[arg(long, value_name = "FILE", requires = "cgroup")]
        netns: Option<PathBuf>,
        /// Say, too, what the agent of this node says of its pods [default: the agent at /run/outrigger/agent-admin.sock, where there is one]
        #[arg(long, value_name = "SOCKET")]
        agent: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Reads a proxy, control, registry or interception policy file and reports every problem in it
    ///
    /// Exits with 0 when the file is good and with 1 when it is not. Flags and environment play no part.
    Check {
        file: PathBuf,
        /// What the file is, when its fields do not tell
        #[arg(long, value_enum)]
        kind: Option<Kind>,
    },
}

/// A long-running role: its file, and what overrides it.
#[derive(Debug, Args)]
pub struct Role<S: Settings> {
    /// The YAML file; see docs/configuration.md for every field
    #[arg(long, value_name = "FILE", env = "OUTRIGGER_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub overrides: Flags<S>,
}

/// One flag for each setting of `S`'s table.
#[derive(Debug)]
pub struct Flags<S>(pub Overrides, PhantomData<S>);

pub trait Settings: std::fmt::Debug + Send + Sync + 'static {
    const TABLE: &'static [Setting];
}

#[derive(Debug)]
pub enum ProxySettings {}

#[derive(Debug)]
pub enum ControlSettings {}

#[derive(Debug)]
pub enum AgentSettings {}

impl Settings for AgentSettings {
    const TABLE: &'static [Setting] = &config::AGENT;
}

impl Settings for ProxySettings {
    const TABLE: &'static [Setting] = &config::PROXY;
}

impl Settings for ControlSettings {
    const TABLE: &'static [Setting] = &config::CONTROL;
}

/// Whether this process was started by the plugin's name.
pub fn is_plugin() -> bool {
    std::env::args_os()
        .next()
        .is_some_and(|name| plugin::is_called(&name))
}

/// Answers what was asked for. Blocks as long as a role runs.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.verb {
        Verb::Proxy(role) => run_proxy(role.config.as_deref(), &role.overrides.0),
        Verb::Control(role) => run_control(role.config.as_deref(), &role.overrides.0),
        Verb::Install(install) => install.run(),
        Verb::Agent(role) => run_agent(role.config.as_deref(), &role.overrides.0),
        Verb::Config(ConfigVerb::Check { file, kind }) => check_config(&file, kind),
        Verb::Ca(verb) => ca::run(verb),
        Verb::Token(verb) => token::run(verb),
        Verb::Attach(role) => attach::attach(role.config.as_deref(), &role.overrides.0),
        Verb::Detach(detach) => detach.run(),
        Verb::Status(status) => status::run(status),
        Verb::Why(why) => Ok(why.run(&mut std::io::stdout().lock())?),
        Verb::Drain(drain) => Ok(drain.run(&mut std::io::stdout().lock())?),
        Verb::Check { cgroup, netns, agent } => {
            check::run(cgroup.as_deref(), netns.as_deref(), agent.as_deref())
        }
    }
}

fn run_proxy(file: Option<&Path>, overrides: &Overrides) -> anyhow::Result<()> {
    // Before there is another thread.
    lifecycle::seal().context("cannot set no_new_privs and empty the bounding set")?;
    let loaded = config::load_proxy(file, overrides)?;
    let log = lifecycle::start_logging(&loaded.logging)?;
    supervised()?;
    proxy::run(loaded.role, log).context("the proxy ended")
}

fn run_control(file: Option<&Path>, overrides: &Overrides) -> anyhow::Result<()> {
    let loaded = config::load_control(file, overrides)?;
    lifecycle::start_logging(&loaded.logging)?;
    supervised()?;
    control::run(loaded.role).context("the control process ended")
}

fn run_agent(file: Option<&Path>, overrides: &Overrides) -> anyhow::Result<()> {
    let loaded = config::load_agent(file, overrides)?;
    lifecycle::start_logging(&loaded.logging)?;
    supervised()?;
    agent::run(loaded.role).context("the agent ended")
}

/// The variable is the service manager's, not a setting.
fn supervised() -> anyhow::Result<()> {
    match std::env::var_os("NOTIFY_SOCKET") {
        Some(_) => {
            lifecycle::notify::start().context("cannot start the thread that tells the service manager")
        }
        None => Ok(()),
    }
}

fn check_config(file: &Path, kind: Option<Kind>) -> anyhow::Result<()> {
    for line in config::check(file, kind)? {
        println!("{line}");
    }
    Ok(())
}

impl<S: Settings> FromArgMatches for Flags<S> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(Overrides::from_matches(matches, S::TABLE), PhantomData))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<S: Settings> Args for Flags<S> {
    fn augment_args(command: Command) -> Command {
        Overrides::augment(command, S::TABLE)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_identity_is_a_usage_error_that_says_why() {
        let args = [
            "outrigger",
            "token",
            "create",
            "--state-dir",
            "/x",
            "--identity",
            "spiffe://td/x",
        ];
        let error = Cli::try_parse_from(args).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(
            error.to_string().contains("/ns/<namespace>/sa/<service account>"),
            "{error}"
        );
    }
}
