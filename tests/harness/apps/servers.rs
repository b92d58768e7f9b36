//! Servers. Each is returned when it listens, on both address families.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::unistd::User;

use crate::apps::script::Script;
use crate::pod::Pod;
use crate::process::Process;

/// nginx; `/` answers with the pod's name, and files put into `<scratch>/www` are served under `/files/`.
pub fn nginx(pod: &Pod, port: u16) -> Result<Process> {
    let (name, scratch) = (pod.name(), pod.scratch().display());
    fs::create_dir_all(pod.scratch().join("www"))?;
    let http = format!(
        "access_log off; default_type text/plain;\n\
         server {{\n\
           listen [::]:{port} ipv6only=off;\n\
           location / {{ return 200 \"{name}\\n\"; }}\n\
           location /files/ {{ alias {scratch}/www/; }}\n\
         }}\n"
    );
    nginx_with(pod, port, &http)
}

/// nginx with this inside its `http` block, which listens on that port.
pub fn nginx_with(pod: &Pod, port: u16, http: &str) -> Result<Process> {
    let dir = pod.scratch().join("nginx");
    fs::create_dir_all(&dir)?;
    let dir = dir.display();
    let config = format!(
        "daemon off; pid {dir}/pid; error_log stderr; worker_processes 1;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
           client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;\n\
           uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n\
           {http}\
         }}\n"
    );
    let file = pod.scratch().join("nginx.conf");
    fs::write(&file, config)?;
    let mut command = pod.command("nginx");
    // Before it reads its configuration it would open the log of the system's own nginx.
    command.arg("-e").arg("stderr").arg("-c").arg(file);
    pod.spawn(command)?.until_listening(port)
}

/// redis-server: says nothing until it is asked.
pub fn redis(pod: &Pod, port: u16) -> Result<Process> {
    let mut command = pod.command("redis-server");
    command.args([
        "--port",
        &port.to_string(),
        "--bind",
        "*",
        "-::*",
        "--protected-mode",
        "no",
    ]);
    command
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(pod.scratch());
    pod.spawn(command)?.until_listening(port)
}

/// The SMTP server aiosmtpd: speaks first, with its greeting.
pub fn smtp(pod: &Pod, port: u16) -> Result<Process> {
    let mut command = Script::Smtp.command(pod)?;
    command.arg(port.to_string());
    pod.spawn(command)?.until_listening(port)
}

/// iperf3, which talks on a control connection and on one more for each stream.
pub fn iperf3_server(pod: &Pod, port: u16) -> Result<Process> {
    let mut command = pod.command("iperf3");
    command.args(["--server", "--forceflush", "--port", &port.to_string()]);
    pod.spawn(command)?.until_listening(port)
}

/// PostgreSQL with a fresh cluster; user `postgres`, no password.
pub fn postgres(pod: &Pod, port: u16) -> Result<Process> {
    let bin = postgres_bin()?;
    let data = pod.scratch().join("postgres");
    fs::create_dir_all(&data)?;
    // It refuses to run as root. `setpriv` and not uid(): that would come before the namespace is entered.
    let user = User::from_name("postgres")?.context("no user postgres; install the package postgresql")?;
    chown(&data, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    let as_postgres = |program: &str| {
        let mut command = pod.command("setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
            .arg(bin.join(program));
        command.arg("-D").arg(&data);
        command
    };
    let mut initdb = as_postgres("initdb");
    initdb.args([
        "--username=postgres",
        "--auth=trust",
        "--no-sync",
        "--no-instructions",
    ]);
    pod.run_within(initdb, crate::wait::SOON)?
        .ok()
        .context("initdb")?;
    fs::write(
        data.join("pg_hba.conf"),
        "host all postgres 0.0.0.0/0 trust\nhost all postgres ::/0 trust\n",
    )?;
    let mut server = as_postgres("postgres");
    server.args(["-p", &port.to_string(), "-h", "*", "-F"]);
    server
        .arg("-c")
        .arg(format!("unix_socket_directories={}", data.display()));
    let mut server = pod.spawn(server)?;
    // It listens before it lets anybody in.
    server.until("is ready", |process| {
        process.log().contains("ready to accept connections")
    })?;
    Ok(server)
}

/// The newest of the versions that Debian keeps side by side, outside the search path.
fn postgres_bin() -> Result<PathBuf> {
    let versions =
        fs::read_dir("/usr/lib/postgresql").context("no PostgreSQL; install the package postgresql")?;
    versions
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse::<u32>().ok())
        .max()
        .map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")))
        .context("/usr/lib/postgresql holds no version")
}
