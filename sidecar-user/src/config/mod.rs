//! One validated configuration from flags, environment and file, in this order of precedence. The only reader of
//! the environment. Nobody but the door imports this: each room gets its own `Config` by value.

mod agent;
mod check;
mod control;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod host;
mod layers;
mod logging;
mod proxy;
mod values;
mod webhook;

use std::io;
use std::path::{Path, PathBuf};

use crate::datapath::policy::PolicyFile;
use crate::document::{Problem, Problems};
use crate::lifecycle::Logging;

pub use agent::SETTINGS as AGENT;
pub use check::{Kind, check};
pub use control::SETTINGS as CONTROL;
pub use host::addresses as own_addresses;
pub use layers::{Overrides, Setting};
pub use proxy::SETTINGS as PROXY;

use layers::Layers;

/// A role's configuration, and how the process logs.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    pub role: T,
    pub logging: Logging,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}; check that the path is right and readable", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}", render(.file.as_deref(), .problems))]
    Invalid {
        file: Option<PathBuf>,
        problems: Problems,
    },
    #[error(transparent)]
    Policy(#[from] crate::datapath::policy::Error),
}

/// The proxy's configuration. Without a file, flags and environment have to say it all.
pub fn load_proxy(file: Option<&Path>, overrides: &Overrides) -> Result<Loaded<crate::proxy::Config>, Error> {
    load(file, &PROXY, overrides, |layers| {
        proxy::read(layers, host::addresses_in)
    })
}

/// What of the proxy's configuration concerns the kernel, with the interception policy of now; the rest may be missing.
pub fn load_kernel(
    file: Option<&Path>,
    overrides: &Overrides,
) -> Result<(crate::datapath::Config, crate::existing::Existing), Error> {
    let loaded = load(file, &PROXY, overrides, |layers| {
        proxy::read_kernel(layers, host::addresses_in)
    })?;
    let (mut kernel, policy, existing) = loaded.role;
    if let Some(policy) = policy {
        kernel.policy = PolicyFile::check(&policy)?;
    }
    Ok((kernel, existing))
}

pub fn load_agent(file: Option<&Path>, overrides: &Overrides) -> Result<Loaded<crate::agent::Config>, Error> {
    load(file, &AGENT, overrides, agent::read)
}

pub fn load_control(
    file: Option<&Path>,
    overrides: &Overrides,
) -> Result<Loaded<crate::control::Config>, Error> {
    load(file, &CONTROL, overrides, control::read)
}

fn load<T>(
    file: Option<&Path>,
    settings: &'static [Setting],
    overrides: &Overrides,
    read: impl FnOnce(&Layers) -> Option<T>,
) -> Result<Loaded<T>, Error> {
    let text = file.map(read_file).transpose()?;
    read_text(text.as_deref(), settings, overrides, read).map_err(|problems| Error::Invalid {
        file: file.map(Path::to_owned),
        problems,
    })
}

fn read_text<T>(
    text: Option<&str>,
    settings: &'static [Setting],
    overrides: &Overrides,
    read: impl FnOnce(&Layers) -> Option<T>,
) -> Result<Loaded<T>, Problems> {
    let layers = Layers::new(text, settings, overrides)?;
    let (role, logging) = (read(&layers), logging::read(&layers));
    match (Problems::new(layers.into_problems()), role, logging) {
        (Some(problems), ..) => Err(problems),
        (None, Some(role), Some(logging)) => Ok(Loaded { role, logging }),
        (None, ..) => unreachable!("a value that cannot be read leaves a problem"),
    }
}

fn read_file(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

/// What stands in the file is named by `file:line:column`; what came by flag or environment by its name alone.
fn render(file: Option<&Path>, problems: &Problems) -> String {
    let line = |problem: &Problem| match (problem.at, file) {
        (Some(_), Some(file)) => format!("{}:{problem}", file.display()),
        _ => problem.to_string(),
    };
    format!(
        "the configuration is not valid:\n{}",
        problems.iter().map(line).collect::<Vec<_>>().join("\n")
    )
}

#[cfg(test)]
mod tests;
