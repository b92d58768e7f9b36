//! nginx as a proxy of its own in the client's pod: how it moves on in its list of upstreams, and what it logs of
//! those that fail.

use anyhow::Result;
use harness::{Process, apps, wait};
use nix::sys::signal::Signal;

use super::facts::{Facts, lines_with};
use super::same;
use super::world::{CLOSED, World, unreachable};

const PROXY: u16 = 8000;
const UPSTREAM: u16 = 8080;

#[test]
fn nginx_moves_on_when_an_upstream_fails() {
    same("f-nginx", |world| {
        let mut facts = Facts::default();
        let _upstream = apps::nginx(&world.server, UPSTREAM)?;
        let proxy = proxy(world)?;
        for (name, _) in upstreams(world) {
            let url = format!("http://127.0.0.1:{PROXY}/{name}");
            // POST, because nginx repeats it elsewhere only if it never left: not after a reset.
            for args in [&["-i", &url][..], &["-i", "-d", "once", &url]] {
                let told = world.client.run(
                    "curl",
                    ["-q", "--noproxy", "*", "-sS", "--max-time", "20"]
                        .iter()
                        .chain(args),
                );
                let method = if args.contains(&"-d") { "POST" } else { "GET" };
                facts.end_with(format!("{method}: {name}"), told, |text| {
                    lines_with(text, &["HTTP/1.1", "X-Tried", "server-1", "curl: "])
                });
            }
        }
        facts.note("what the proxy logged", log_of(proxy)?);
        Ok(facts)
    });
}

/// By name: a list of servers, in the order that nginx asks them.
fn upstreams(world: &World) -> Vec<(&'static str, Vec<String>)> {
    let alive = world.at(UPSTREAM)[0].to_string();
    let closed = |ip: std::net::IpAddr| std::net::SocketAddr::new(ip, CLOSED).to_string();
    let refused = closed(world.server.ipv4().into());
    let outside = closed(world.outside.ipv6().into());
    let unreachable = closed(unreachable(false));
    vec![
        ("refused-then-alive", vec![refused.clone(), alive.clone()]),
        ("outside-then-alive", vec![outside.clone(), alive.clone()]),
        ("unreachable-then-alive", vec![unreachable, alive]),
        ("all-dead", vec![refused, outside]),
    ]
}

fn proxy(world: &World) -> Result<Process> {
    let mut http = String::from("access_log off;\n");
    let mut locations = String::new();
    for (name, servers) in upstreams(world) {
        // Only the first is asked of its own accord, the others when it fails.
        let servers: Vec<String> = servers
            .iter()
            .enumerate()
            .map(|(n, server)| {
                format!(
                    "server {server} max_fails=0{};",
                    if n == 0 { "" } else { " backup" }
                )
            })
            .collect();
        http += &format!("upstream {name} {{ {} }}\n", servers.join(" "));
        locations += &format!("location /{name} {{ proxy_pass http://{name}; }}\n");
    }
    http += &format!(
        "server {{ listen 127.0.0.1:{PROXY}; add_header X-Tried \"$upstream_addr = $upstream_status\" always;\n{locations}}}\n"
    );
    apps::nginx_with(&world.client, PROXY, &http)
}

/// Its error log, without times and process numbers.
fn log_of(mut proxy: Process) -> Result<String> {
    proxy.signal(Signal::SIGQUIT)?;
    proxy.wait(wait::SOON)?;
    let log = proxy.log();
    let lines = log.lines().filter(|line| line.contains("upstream"));
    let told = lines.filter_map(|line| Some(line.split_once(" [")?.1.split_once("*")?.1.split_once(' ')?.1));
    Ok(told.collect::<Vec<_>>().join("\n"))
}
