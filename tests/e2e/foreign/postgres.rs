//! PostgreSQL: what its server sees of clients and decides by it, how psql falls back in a list of hosts, and how a
//! query is cancelled over a second connection.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::{Output, Process, apps, wait};
use nix::sys::signal::Signal;

use super::facts::Facts;
use super::same;
use super::world::{CLOSED, World, silent, unreachable};

const PORT: u16 = 5432;

#[test]
fn postgresql_and_psql_show_what_they_show_bare() {
    same("f-postgres", |world| {
        let mut facts = Facts::default();
        let _server = server(world)?;
        for ip in world.server.addresses() {
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let ask =
                |user: &str, query: &str| psql(world, &format!("host={ip} user={user}"), &["-c", query]);
            let mut fact = |what: &str, output| facts.end(format!("{family}: {what}"), output);
            let who = "select inet_client_addr(), inet_client_port(), inet_server_addr(), inet_server_port()";
            fact("who is it", ask("postgres", who));
            fact(
                "a user for this client's address only",
                ask("near", "select current_user"),
            );
            fact(
                "a user for another's address only",
                ask("far", "select current_user"),
            );
            fact("where it is", ask("postgres", "\\conninfo"));
            let rows = "\\copy (select n, repeat('x', 100) from generate_series(1, 50000) n) to 'rows'";
            fact("a copy to the client", ask("postgres", rows));
            let load = [
                "-c",
                "create temp table t (n int, x text)",
                "-c",
                "\\copy t from 'rows'",
            ];
            let sum = ["-c", "select count(*), sum(n) from t"];
            fact(
                "a copy back, and its sum",
                psql(
                    world,
                    &format!("host={ip} user=postgres"),
                    &[&load[..], &sum[..]].concat(),
                ),
            );
            fact(
                "the server ends it",
                ask("postgres", "select pg_terminate_backend(pg_backend_pid())"),
            );
            fact("cancelled", cancelled(world, &ip.to_string()));
        }
        Ok(facts)
    });
}

#[test]
fn psql_falls_back_in_its_list_of_hosts() {
    same("f-postgres-list", |world| {
        let mut facts = Facts::default();
        let _server = server(world)?;
        let alive = world.server.ipv4().to_string();
        let closed = world.outside.ipv4().to_string();
        let (unreachable4, unreachable6) = (unreachable(false).to_string(), unreachable(true).to_string());
        let silent = silent(false).to_string();
        for (label, hosts, port) in [
            ("refused in the mesh", &[&*alive][..], CLOSED),
            ("refused outside", &[&*closed], PORT),
            ("unreachable", &[&unreachable4], PORT),
            ("unreachable by IPv6", &[&unreachable6], PORT),
            ("silent", &[&silent], PORT),
            ("refused, then alive", &[&closed, &alive], PORT),
            ("unreachable, then alive", &[&unreachable4, &alive], PORT),
            ("unreachable by IPv6, then alive", &[&unreachable6, &alive], PORT),
            ("silent, then alive", &[&silent, &alive], PORT),
            ("all dead", &[&closed, &unreachable4], PORT),
        ] {
            let list = format!(
                "host={} port={port} user=postgres connect_timeout=2 target_session_attrs=read-write",
                hosts.join(",")
            );
            facts.end(label, psql(world, &list, &["-c", "\\conninfo"]));
        }
        let ports = format!("host={alive},{alive} port={CLOSED},{PORT} user=postgres");
        facts.end(
            "a closed port, then alive",
            psql(world, &ports, &["-c", "\\conninfo"]),
        );
        for (label, ip) in [("ready", &alive), ("not ready", &closed)] {
            let args = ["-h", ip, "-p", &PORT.to_string(), "-t", "2"];
            facts.end(
                format!("pg_isready: {label}"),
                world.client.run("pg_isready", args),
            );
        }
        Ok(facts)
    });
}

fn server(world: &World) -> Result<Process> {
    let server = apps::postgres(&world.server, PORT)?;
    let at = world.at(PORT)[0];
    let psql = |query: &str| apps::psql(&world.server, at, query)?.ok();
    psql("create user near")?;
    psql("create user far")?;
    let mut rules = String::from("host all postgres all trust\n");
    for ip in world.client.addresses() {
        let whole = if ip.is_ipv4() { 32 } else { 128 };
        rules += &format!("host all near {ip}/{whole} trust\nhost all far {ip}/{whole} reject\n");
    }
    rules += "host all far all trust\n";
    fs::write(world.server.scratch().join("postgres/pg_hba.conf"), rules)?;
    psql("select pg_reload_conf()")?;
    wait::until("the rules are in force", wait::SOON, || {
        psql("select count(*) from pg_hba_file_rules where user_name = '{far}'")
            .is_ok_and(|n| n.trim() == "3")
    })?;
    Ok(server)
}

fn psql(world: &World, target: &str, args: &[&str]) -> Result<Output> {
    let target = format!("dbname=postgres sslmode=disable {target}");
    world
        .client
        .run("psql", ["-X", "-t", "-A", &target].iter().chain(args))
}

/// Ctrl-C during a long query: psql asks for it on a connection of its own.
fn cancelled(world: &World, ip: &str) -> Result<Output> {
    let target = format!("dbname=postgres sslmode=disable host={ip} user=postgres");
    let mut command = world.client.command("psql");
    command.args(["-X", &target, "-c", "select pg_sleep(50)"]);
    let mut sleeper = world.client.spawn(command)?;
    let running = "select count(*) from pg_stat_activity where query = 'select pg_sleep(50)'";
    wait::until("the query runs", wait::SOON, || {
        let told = apps::psql(&world.server, world.at(PORT)[0], running);
        told.is_ok_and(|told| told.stdout.trim() == "1")
    })?;
    sleeper.signal(Signal::SIGINT)?;
    let status = sleeper.wait(Duration::from_secs(10)).context("cancelled")?;
    Ok(Output {
        status,
        stdout: sleeper.log(),
        stderr: String::new(),
    })
}
