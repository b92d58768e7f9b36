//! SMTP, where the server speaks first: aiosmtpd, which prints who sent what, with curl, msmtp and Python's smtplib.

use std::fs;

use anyhow::Result;
use harness::{Output, Process};

use super::facts::{Facts, lines_with};
use super::same;
use super::world::World;

const PORT: u16 = 2525;

#[test]
fn smtp_clients_and_their_server_show_what_they_show_bare() {
    same("f-smtp", |world| {
        let mut facts = Facts::default();
        let servers = [aiosmtpd(world, "0.0.0.0")?, aiosmtpd(world, "::")?];
        fs::write(world.client.scratch().join("mail"), mail())?;
        for (at, server) in world.at(PORT).into_iter().zip(servers) {
            let family = if at.is_ipv4() { "IPv4" } else { "IPv6" };
            let mut fact = |what: &str, output| {
                facts.end_with(format!("{family}: {what}"), output, |text| {
                    if text.contains("< 220") {
                        lines_with(text, &["< ", "> ", "curl: "])
                    } else {
                        text.into()
                    }
                });
            };
            fact("curl", curl(world, &format!("smtp://{at}/client.demo")));
            let host = format!("--host={}", at.ip());
            let port = format!("--port={PORT}");
            fact(
                "msmtp asks what the server can",
                msmtp(world, &[&host, &port, "--serverinfo"]),
            );
            fact(
                "msmtp sends",
                msmtp(
                    world,
                    &[&host, &port, "--from=a@b", "--domain=client.demo", "c@d"],
                ),
            );
            facts.note(format!("{family}: what the server printed"), received(&server));
        }
        for (label, at) in world.dead() {
            let (host, port) = (format!("--host={}", at.ip()), format!("--port={}", at.port()));
            let output = msmtp(world, &[&host, &port, "--timeout=1", "--serverinfo"]);
            facts.end(format!("msmtp: {label}"), output);
        }
        Ok(facts)
    });
}

/// One a family: its command line takes one address.
fn aiosmtpd(world: &World, address: &str) -> Result<Process> {
    let mut command = world.server.command("/usr/bin/aiosmtpd");
    command.args([
        "-n",
        "-l",
        &format!("{address}:{PORT}"),
        "-c",
        "aiosmtpd.handlers.Debugging",
        "stdout",
    ]);
    command.env("PYTHONUNBUFFERED", "1");
    world.server.spawn(command)?.until_listening(PORT)
}

fn mail() -> String {
    format!(
        "From: a@b\r\nTo: c@d\r\nSubject: bulk\r\n\r\n{}",
        "a line of a mail\r\n".repeat(10_000)
    )
}

fn curl(world: &World, url: &str) -> Result<Output> {
    let args = "-q -sS -v -g --max-time 20 --mail-from a@b --mail-rcpt c@d -T mail --noproxy *";
    world.client.run("curl", args.split(' ').chain([url]))
}

/// Its standard input is the mail.
fn msmtp(world: &World, args: &[&str]) -> Result<Output> {
    let script = ["-c", "exec msmtp --file=/dev/null \"$@\" < mail", "msmtp"];
    world.client.run("sh", script.iter().chain(args))
}

/// How many lines came, and from whom.
fn received(server: &Process) -> String {
    let log = server.log();
    let lines = log.lines().filter(|line| *line == "a line of a mail").count();
    format!(
        "{}\n{lines} lines of mail",
        lines_with(&log, &["X-Peer", "MESSAGE", "rror"])
    )
}
