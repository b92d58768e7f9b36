//! The client's side of the program: runs every case against the server and prints the facts in the cases' order.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::case::{self, Case, Family};
use crate::facts::{self, Facts};
use crate::half::Half;
use crate::peer::{Begin, Message, Peer};
use crate::world::World;

/// How long the two halves wait for each other's messages; longer than all that one half may wait for.
pub(crate) const TALK: Duration = Duration::from_secs(300);

pub(crate) fn run(control: &Path, world: &World, jobs: usize, patience: u64, only: &[String]) -> Result<()> {
    let patience = Duration::from_secs(patience);
    let wanted = |title: &str| only.is_empty() || only.iter().any(|part| title.contains(part));
    let all: Vec<(&Case, Family)> = case::all()
        .flat_map(|case| case.families.iter().map(move |family| (case, *family)))
        .filter(|(case, family)| wanted(&title(case, *family)))
        .collect();
    let todo = Mutex::new(all.iter().enumerate());
    let printer = Printer::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1))
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let next = todo.lock().ok().and_then(|mut todo| todo.next());
                        let Some((place, (case, family))) = next else {
                            return Ok(());
                        };
                        let title = title(case, *family);
                        let lines = one(control, world, patience, case, *family).with_context(|| title)?;
                        printer.print(place, lines);
                    }
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

fn title(case: &Case, family: Family) -> String {
    format!("{}/{family}", case.name)
}

fn one(
    control: &Path,
    world: &World,
    patience: Duration,
    case: &Case,
    family: Family,
) -> Result<Vec<String>> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.set_read_timeout(Some(TALK))?;
    socket
        .connect(&SockAddr::unix(control)?)
        .with_context(|| format!("reach the server at {}", control.display()))?;
    let mut peer = Peer::new(socket);
    peer.send(&Message::Begin(Begin {
        case: case.name.into(),
        family,
        world: world.clone(),
        patience,
    }))?;
    let port = u16::try_from(peer.hear("listening")?)?;
    let mut facts = Facts::default();
    facts.port(port, "listener");
    let mut half = Half {
        family,
        facts,
        peer,
        world: world.clone(),
        patience,
        at: (world.server(family), port).into(),
        listener: None,
    };
    if let Err(error) = (case.client)(&mut half) {
        half.facts.say("stopped", format_args!("{error:#}"));
    }
    half.peer.send(&Message::End(Facts::default()))?;
    let server = half.peer.end()?;
    Ok(facts::lines(world, &title(case, family), half.facts, server))
}

/// Cases end in any order.
#[derive(Default)]
struct Printer {
    waiting: Mutex<(usize, BTreeMap<usize, Vec<String>>)>,
}

impl Printer {
    fn print(&self, place: usize, lines: Vec<String>) {
        let Ok(mut waiting) = self.waiting.lock() else {
            return;
        };
        let (next, held) = &mut *waiting;
        held.insert(place, lines);
        while let Some(lines) = held.remove(next) {
            for line in lines {
                println!("{line}");
            }
            *next += 1;
        }
    }
}
