//! Redis: its client, its benchmark and a replica, which all dial the server, and what the server tells of them.

use std::time::Duration;

use anyhow::Result;
use harness::{apps, wait};

use super::facts::{Facts, lines_with};
use super::same;
use super::world::World;

const PORT: u16 = 6379;

#[test]
fn redis_and_its_tools_show_what_they_show_bare() {
    same("f-redis", |world| {
        let mut facts = Facts::default();
        let _server = apps::redis(&world.server, PORT)?;
        for at in world.at(PORT) {
            let family = if at.is_ipv4() { "IPv4" } else { "IPv6" };
            let cli = |command: &[&str]| apps::redis_cli(&world.client, at, command);
            facts.end(format!("{family}: INCR"), cli(&["INCR", "n"]));
            // Its id and how long it lives differ from run to run; addresses come first.
            facts.end_with(
                format!("{family}: CLIENT INFO"),
                cli(&["CLIENT", "INFO"]),
                |text| {
                    let told = text
                        .split(' ')
                        .filter(|word| word.contains("addr=") || word.starts_with("name="));
                    told.collect::<Vec<_>>().join(" ")
                },
            );
            facts.end(
                format!("{family}: killed by type"),
                cli(&["CLIENT", "KILL", "SKIPME", "no", "TYPE", "normal"]),
            );
            facts.end(format!("{family}: the server quits it"), cli(&["QUIT"]));
            facts.end_with(
                format!("{family}: bulk load"),
                bulk(world, &at.ip().to_string()),
                |text| lines_with(text, &["errors:", "OK"]),
            );
            facts.end(format!("{family}: DBSIZE"), cli(&["DBSIZE"]));
            facts.end_with(
                format!("{family}: redis-benchmark"),
                benchmark(world, &at.ip().to_string()),
                // Without its figures: only which tests came to their end.
                |text| {
                    lines_with(&text.replace('\r', "\n"), &["requests per second", "rror"])
                        .lines()
                        .filter_map(|line| line.split(':').next())
                        .collect::<Vec<_>>()
                        .join("\n")
                },
            );
        }
        Ok(facts)
    });
}

#[test]
fn a_replica_is_known_to_its_master_by_its_own_address() {
    same("f-replica", |world| {
        let mut facts = Facts::default();
        let master = apps::redis(&world.server, PORT)?;
        let replica = apps::redis(&world.client, PORT)?;
        let [own, _] = world.client.addresses();
        let at = world.at(PORT)[0];
        let ask = |command: &[&str]| -> Result<String> {
            apps::redis_cli(&world.client, (own, PORT).into(), command)?.ok()
        };
        apps::redis_cli(
            &world.server,
            at,
            &["CONFIG", "SET", "repl-diskless-sync-delay", "0"],
        )?
        .ok()?;
        apps::redis_cli(&world.server, at, &["SET", "key", "value"])?.ok()?;
        ask(&["REPLICAOF", &at.ip().to_string(), &PORT.to_string()])?;
        wait::until_some("the replica is in step", wait::SOON, || {
            Ok(ask(&["INFO", "replication"])?
                .contains("master_link_status:up")
                .then_some(()))
        })?;
        facts.note("the replica has", ask(&["GET", "key"])?);
        facts.end_with(
            "the master's replicas",
            apps::redis_cli(&world.server, at, &["INFO", "replication"]),
            |text| {
                let line = lines_with(text, &["slave0:"]);
                line.split(",state").next().unwrap_or_default().into()
            },
        );
        drop(master);
        wait::until_some("the replica notices", wait::SOON, || {
            Ok(ask(&["INFO", "replication"])?
                .contains("master_link_status:down")
                .then_some(()))
        })?;
        // It dials again at once, when the dying server may still accept, and then every second.
        let mut replica = replica;
        let told = replica.until_some("dials its dead master", |process| {
            let log = process.log();
            let since = log.split("Connection with master lost").nth(1)?;
            let since = since.split("sync started").nth(2)?;
            since
                .lines()
                .find_map(|line| Some(line.split_once(" # ")?.1.to_owned()))
        });
        facts.note(
            "the replica of a dead master",
            told.unwrap_or_else(|error| format!("{error:#}")),
        );
        Ok(facts)
    });
}

#[test]
fn redis_cli_is_told_the_truth_about_dead_addresses() {
    same("f-redis-dead", |world| {
        let mut facts = Facts::default();
        for (label, address) in world.dead() {
            // redis-cli has no time-out for connects.
            if label != "silent" {
                facts.end(label, apps::redis_cli(&world.client, address, &["PING"]));
            }
        }
        Ok(facts)
    });
}

fn bulk(world: &World, host: &str) -> Result<harness::Output> {
    let script = "i=0; while [ $i -lt 20000 ]; do echo \"SET key:$i $i\"; i=$((i+1)); done | redis-cli -h \"$0\" --pipe";
    world.client.run("sh", ["-c", script, host])
}

fn benchmark(world: &World, host: &str) -> Result<harness::Output> {
    let mut command = world.client.command("redis-benchmark");
    command.args([
        "-h",
        host,
        "-q",
        "-n",
        "2000",
        "-c",
        "50",
        "-P",
        "4",
        "-t",
        "ping,set,lpush,mset",
    ]);
    world.client.run_within(command, Duration::from_secs(30))
}
