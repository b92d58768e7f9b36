//! How the two halves of a case agree: messages over a unix socket, which no test is about.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use socket2::Socket;

use crate::case::Family;
use crate::facts::Facts;
use crate::stream;
use crate::world::World;

/// The longest message: all facts of a half.
const LONGEST: usize = 64 << 10;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// The first one: which case to run.
    Begin(Begin),
    /// This has happened here; with a number, where one is needed.
    Word(String, u64),
    /// The last one of each half.
    End(Facts),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Begin {
    pub(crate) case: String,
    pub(crate) family: Family,
    pub(crate) world: World,
    pub(crate) patience: Duration,
}

/// The other half.
#[derive(Debug)]
pub(crate) struct Peer {
    socket: Socket,
    early: VecDeque<(String, u64)>,
    ended: Option<Facts>,
}

impl Peer {
    /// The socket keeps messages apart (SOCK_SEQPACKET).
    pub(crate) fn new(socket: Socket) -> Self {
        Self {
            socket,
            early: VecDeque::new(),
            ended: None,
        }
    }

    pub(crate) fn tell(&mut self, word: &str) -> Result<()> {
        self.tell_number(word, 0)
    }

    pub(crate) fn tell_number(&mut self, word: &str, number: u64) -> Result<()> {
        self.send(&Message::Word(word.into(), number))
    }

    /// Waits until the other half says so. It does not wait for one that has ended.
    pub(crate) fn hear(&mut self, word: &str) -> Result<u64> {
        loop {
            if let Some(at) = self.early.iter().position(|(early, _)| early == word) {
                return Ok(self.early.remove(at).map_or(0, |(_, number)| number));
            }
            if self.ended.is_some() {
                bail!("never heard '{word}'");
            }
            self.take()?;
        }
    }

    /// The first message.
    pub(crate) fn begin(&mut self) -> Result<Begin> {
        match self.receive()? {
            Message::Begin(begin) => Ok(begin),
            other => bail!("a conversation begins with {other:?}"),
        }
    }

    pub(crate) fn send(&mut self, message: &Message) -> Result<()> {
        self.socket
            .send(&serde_json::to_vec(message)?)
            .context("send to the other half")?;
        Ok(())
    }

    /// Waits for the other half's end.
    pub(crate) fn end(&mut self) -> Result<Facts> {
        loop {
            if let Some(facts) = self.ended.take() {
                return Ok(facts);
            }
            self.take()?;
        }
    }

    fn take(&mut self) -> Result<()> {
        match self.receive()? {
            Message::Word(word, number) => self.early.push_back((word, number)),
            Message::End(facts) => self.ended = Some(facts),
            Message::Begin(begin) => bail!("a second beginning, of {}", begin.case),
        }
        Ok(())
    }

    fn receive(&self) -> Result<Message> {
        let mut bytes = vec![0; LONGEST];
        match stream::recv(&self.socket, &mut bytes) {
            Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)).context("the other half is gone"),
            Ok(n) => Ok(serde_json::from_slice(&bytes[..n])?),
            Err(error) => Err(error).context("receive from the other half"),
        }
    }
}
