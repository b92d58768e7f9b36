//! curl against nginx: what both print and log of a connection, and how curl falls back when an address fails.

use std::fs;

use anyhow::Result;
use harness::{Output, Process, apps, wait};
use nix::sys::signal::Signal;

use super::facts::{Facts, lines_with, without_number_after};
use super::same;
use super::world::{CLOSED, World, silent, unreachable};

const HTTP: u16 = 8080;
const HTTP2: u16 = 8081;
const HTTPS: u16 = 8443;

/// What curl tells of a transfer, on a line of its own.
const TOLD: &str = "\n%{http_code} connects=%{num_connects} remote=%{remote_ip} %{remote_port} exit=%{exitcode} \
                    %{errormsg}\n";

#[test]
fn curl_and_nginx_see_what_they_see_bare() {
    same("f-curl", |world| {
        let mut facts = Facts::default();
        let nginx = server(world)?;
        for (at, port) in world.at(HTTP).into_iter().zip(["21000", "21001"]) {
            let family = if at.is_ipv4() { "IPv4" } else { "IPv6" };
            let mut fact = |what: &str, output| facts.end(format!("{family}: {what}"), output);
            let url = apps::url(at);
            let ask = |args: &[&str], path: &str| curl(world, &[args, &[&format!("{url}{path}")]].concat());
            fact("GET", ask(&[], ""));
            fact(
                "two GETs on one connection",
                ask(&[&url, "--next", "-sw", TOLD], ""),
            );
            fact("GET of 20 MB", bulk_comes_whole(world, &url));
            fact(
                "POST of 20 MB",
                ask(&["-o", "answer", "--data-binary", "@got"], "sink"),
            );
            fact("allowed by its address", ask(&[], "near"));
            fact("who is it", ask(&[], "who"));
            fact("who is it, on a chosen port", ask(&["--local-port", port], "who"));
            fact(
                "who is it, on a chosen interface",
                ask(&["--interface", "eth0"], "who"),
            );
            fact("TCP fast open", ask(&["--tcp-fastopen"], ""));
            fact("closed without an answer", ask(&[], "close"));
            facts.note(
                format!("{family}: the sockets that both ends see"),
                sockets(world, &format!("{url}who"))?,
            );
        }
        for (label, port, option) in [
            ("HTTP/2", HTTP2, "--http2-prior-knowledge"),
            ("TLS", HTTPS, "--insecure"),
        ] {
            let scheme = if port == HTTPS { "https" } else { "http" };
            let url = format!("{scheme}://{}/", world.at(port)[1]);
            facts.end(label, curl(world, &[option, &url]));
        }
        facts.note("what nginx logged", log_of(world, nginx)?);
        Ok(facts)
    });
}

#[test]
fn curl_is_told_the_truth_about_dead_addresses() {
    same("f-curl-dead", |world| {
        let mut facts = Facts::default();
        let _nginx = server(world)?;
        for (label, address) in world.dead() {
            let url = apps::url(address);
            facts.end_with(
                label,
                curl(world, &["-v", "--connect-timeout", "1", &url]),
                attempts,
            );
        }
        let [ipv4, ipv6] = world.at(HTTP).map(|at| at.ip());
        let closed = world.outside.ipv4();
        for (label, list) in [
            ("refused, then alive", format!("{closed},{ipv4}")),
            (
                "refused by IPv6, then alive",
                format!("[{}],{ipv4}", world.outside.ipv6()),
            ),
            (
                "unreachable, then alive",
                format!("{},{ipv4}", unreachable(false)),
            ),
            (
                "unreachable by IPv6, then alive",
                format!("[{}],{ipv4}", unreachable(true)),
            ),
            ("silent, then alive", format!("{},{ipv4}", silent(false))),
            (
                "silent, then alive by IPv6",
                format!("{},[{ipv6}]", silent(false)),
            ),
            (
                "two dead, then alive",
                format!("{closed},{},{ipv4}", unreachable(false)),
            ),
        ] {
            let resolve = format!("web:{HTTP}:{list}");
            let url = format!("http://web:{HTTP}/");
            // It gives the first of two half of that, and looks at the second a second later.
            let args = ["-v", "--connect-timeout", "4", "--resolve", &resolve, &url];
            facts.end_with(format!("a list: {label}"), curl(world, &args), attempts);
        }
        let resolve = format!("web:{CLOSED}:{closed},{ipv4}");
        let url = format!("http://web:{CLOSED}/");
        facts.end_with(
            "a list: all refused",
            curl(world, &["-v", "--resolve", &resolve, &url]),
            attempts,
        );
        Ok(facts)
    });
}

fn curl(world: &World, args: &[&str]) -> Result<Output> {
    let base = [
        "-q",
        "--noproxy",
        "*",
        "-sS",
        "-g",
        "--max-time",
        "20",
        "-w",
        TOLD,
    ];
    world.client.run("curl", base.iter().chain(args))
}

fn bulk_comes_whole(world: &World, url: &str) -> Result<Output> {
    let mut output = curl(world, &["-o", "got", &format!("{url}bulk")])?;
    let whole = fs::read(world.client.scratch().join("got"))? == bulk();
    output.stdout += if whole { "whole" } else { "not what was sent" };
    Ok(output)
}

/// What each end sees of one connection, and whether it is the same connection.
fn sockets(world: &World, url: &str) -> Result<String> {
    let own = "%{local_ip} %{local_port} %{remote_ip} %{remote_port}";
    let told = curl(world, &["-w", own, url])?.stdout;
    // A listener for both families sees IPv4 as mapped.
    let told = told.replace("::ffff:", "");
    let (server, client) = told.split_once('\n').unwrap_or_default();
    let same = server == client;
    Ok(format!("nginx {server}\ncurl  {client}\none connection: {same}"))
}

/// The trace of curl's attempts, without how long they took.
fn attempts(text: &str) -> String {
    let told = [
        "*   Trying",
        "* connect to",
        "* Connected to",
        "* Failed",
        "* Recv",
        "* Empty",
        "* Connection timed",
        "* After",
        "* Immediate",
        "curl: ",
        "exit=",
    ];
    let lines = lines_with(text, &told);
    let lines = without_number_after(&lines, " after ");
    without_number_after(&lines, "After ")
}

fn server(world: &World) -> Result<Process> {
    let pod = &world.server;
    let www = pod.scratch().join("www");
    fs::create_dir_all(&www)?;
    fs::write(www.join("bulk"), bulk())?;
    let openssl = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=web -keyout key.pem -out \
                   cert.pem";
    pod.run("openssl", openssl.split_whitespace())?.ok()?;
    let (www, scratch) = (www.display(), pod.scratch().display());
    let [client4, client6] = world.client.addresses();
    let http = format!(
        "default_type text/plain; client_max_body_size 0; reset_timedout_connection on;\n\
         log_format seen '$remote_addr $remote_port to $server_addr $server_port: $request $status $request_length';\n\
         access_log {scratch}/access.log seen;\n\
         server {{\n\
           listen [::]:{HTTP} ipv6only=off;\n\
           listen [::]:{HTTP2} ipv6only=off http2;\n\
           listen [::]:{HTTPS} ipv6only=off ssl http2;\n\
           ssl_certificate {scratch}/cert.pem; ssl_certificate_key {scratch}/key.pem;\n\
           location / {{ return 200 hello; }}\n\
           location /who {{ return 200 \"$remote_addr $remote_port $server_addr $server_port\\n\"; }}\n\
           location /near {{ root {www}; try_files /none @near; allow {client4}; allow {client6}; deny all; }}\n\
           location @near {{ return 200 near; }}\n\
           location /bulk {{ root {www}; }}\n\
           location /sink {{ proxy_pass http://unix:{scratch}/sink; }}\n\
           location /close {{ return 444; }}\n\
         }}\n\
         server {{ listen unix:{scratch}/sink; access_log off; location / {{ return 200 $content_length; }} }}\n"
    );
    apps::nginx_with(pod, HTTP, &http)
}

fn log_of(world: &World, mut nginx: Process) -> Result<String> {
    nginx.signal(Signal::SIGQUIT)?;
    nginx.wait(wait::SOON)?;
    Ok(fs::read_to_string(world.server.scratch().join("access.log"))?)
}

fn bulk() -> Vec<u8> {
    (0..20_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}
