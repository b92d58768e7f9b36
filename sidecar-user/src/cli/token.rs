//! `token create`, `list` and `revoke`: what the CA's state directory says about tokens, printed.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::Subcommand;
use serde_json::json;

use super::state_dir::StateDir;
use super::table::{Table, since, until};
use crate::issuer::token::{self, Listed, Request};
use crate::issuer::write_secret;
use crate::model::SpiffeId;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Makes a bootstrap token that stands for one identity, and prints it or writes it to a file
    ///
    /// The CA keeps only its hash, so the token cannot be shown again.
    Create {
        #[command(flatten)]
        state: StateDir,
        /// Such as spiffe://cluster.local/ns/demo/sa/client
        #[arg(long, value_name = "SPIFFE-ID")]
        identity: SpiffeId,
        /// By which `list` shows it and `revoke` knows it [default: its id]
        #[arg(long, value_name = "NAME")]
        label: Option<String>,
        /// How long it is good, such as 90d [default: until it is revoked]
        #[arg(long, value_name = "DURATION", value_parser = life)]
        expires: Option<Duration>,
        /// Writes it to this file, which only its owner can read, instead of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Lists all tokens by label and identity, with their age; never the tokens themselves
    List {
        #[command(flatten)]
        state: StateDir,
        /// One JSON list, for programs
        #[arg(long)]
        json: bool,
    },
    /// Makes a token worthless, at once; certificates that it has brought live on to their end
    Revoke {
        #[command(flatten)]
        state: StateDir,
        /// As `list` shows it
        #[arg(value_name = "LABEL|ID")]
        token: String,
    },
}

pub(super) fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Create {
            state,
            identity,
            label,
            expires,
            out,
        } => {
            let request = Request {
                identity,
                label,
                life: expires,
            };
            create(&state.dir, &request, out.as_deref())
        }
        Verb::List { state, json } => list(&token::list(&state.dir)?, json, SystemTime::now()),
        Verb::Revoke { state, token: name } => {
            let gone = token::revoke(&state.dir, &name)?;
            println!("revoked {} ({}) of {}", gone.label, gone.id, gone.identity);
            Ok(())
        }
    }
}

/// Without a file the token stands alone on standard output, so that a pipe can take it.
fn create(state_dir: &Path, request: &Request, out: Option<&Path>) -> anyhow::Result<()> {
    let made = token::create(state_dir, request, SystemTime::now())?;
    let Some(path) = out else {
        println!("{}", *made.secret);
        return Ok(());
    };
    write_secret(path, &format!("{}\n", *made.secret)).or_else(|error| {
        // A token that nobody has is of no use to anybody but whoever guesses.
        token::revoke(state_dir, &made.id).context("the token that could not be written stays; revoke it")?;
        Err(error.into())
    })
}

fn list(tokens: &[Listed], as_json: bool, now: SystemTime) -> anyhow::Result<()> {
    if as_json {
        let stamp = |time: Option<SystemTime>| time.map(|t| humantime::format_rfc3339_seconds(t).to_string());
        let all: Vec<_> = tokens
            .iter()
            .map(|token| {
                json!({
                    "id": token.id,
                    "label": token.label,
                    "identity": token.identity,
                    "created": stamp(token.created),
                    "expires": stamp(token.expires),
                })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    let mut table = Table::new(["LABEL", "ID", "IDENTITY", "AGE", "EXPIRES"]);
    for token in tokens {
        table.row([
            token.label.clone(),
            token.id.clone(),
            token.identity.to_string(),
            token
                .created
                .map_or("unknown".to_owned(), |time| since(time, now)),
            token.expires.map_or("never".to_owned(), |time| until(time, now)),
        ]);
    }
    print!("{table}");
    Ok(())
}

fn life(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(life) if life.is_zero() => {
            Err("it would never be good; write a number with its unit: 12h, 90d".into())
        }
        Ok(life) => Ok(life),
        Err(_) => Err("write a number with its unit: 12h, 90d".into()),
    }
}
