//! A question to the agent of the node, and its answer. Knows no order of them.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::grant::{Answer, Request};
use crate::lifecycle::messages::{Message, Messages};

/// Far more than an agent takes, which loads a program for each session.
const ANSWER: Duration = Duration::from_secs(10);

pub(super) fn done((answer, _): (Answer, Vec<OwnedFd>)) -> anyhow::Result<()> {
    match answer {
        Answer::Done => Ok(()),
        _ => bail!("the agent answers what this version does not understand"),
    }
}

pub(super) fn say(
    agent: &Messages,
    request: &Request,
    descriptors: &[BorrowedFd<'_>],
) -> anyhow::Result<(Answer, Vec<OwnedFd>)> {
    agent
        .send(&serde_json::to_vec(request)?, descriptors)
        .context("the agent of this node has ended")?;
    let answer = agent
        .receive(Some(ANSWER))
        .context("the agent of this node does not answer")?;
    let Message { text, descriptors } = answer.context("the agent of this node has ended")?;
    match serde_json::from_slice(&text).context("the agent answers what this version does not understand")? {
        Answer::Refused { why } => bail!("the agent of this node refuses: {why}"),
        answer => Ok((answer, descriptors)),
    }
}
