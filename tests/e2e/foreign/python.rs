//! Python's clients: sockets over a list of addresses, asyncio's Happy Eyeballs, its HTTP clients.

use super::names::{PORT, ask, source, who};
use super::same;

#[test]
fn python_sees_what_it_sees_bare() {
    same("f-python", |world| {
        let _server = who(&world.server, PORT)?;
        ask(world, "/usr/bin/python3", |python| {
            python.arg(source("client.py"));
        })
    });
}
