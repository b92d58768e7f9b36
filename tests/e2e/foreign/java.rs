//! The clients of a JVM: plain and non-blocking sockets, which it opens for both families at once, and both of its
//! HTTP clients.

use super::names::{PORT, ask, source, who};
use super::same;

#[test]
fn a_jvm_sees_what_it_sees_bare() {
    same("f-java", |world| {
        let _server = who(&world.server, PORT)?;
        ask(world, "java", |java| {
            // Compiled by the JVM itself, each time.
            java.args(["-XX:TieredStopAtLevel=1", "-Xshare:auto"])
                .arg(source("Client.java"));
        })
    });
}
