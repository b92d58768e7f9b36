//! FTP: both ends announce their own addresses to each other and refuse data connections from another. vsftpd with
//! curl and lftp, passive and active, by the old commands (PASV, PORT) and the new (EPSV, EPRT).

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Result;
use harness::{Output, Process};

use super::facts::{Facts, lines_with};
use super::same;
use super::world::World;

const PORT: u16 = 21;

#[test]
fn ftp_works_as_it_does_bare_in_every_mode() {
    same("f-ftp", |world| {
        let mut facts = Facts::default();
        let _server = vsftpd(world)?;
        for ip in world.server.addresses() {
            let (family, host) = if ip.is_ipv4() {
                ("IPv4", ip.to_string())
            } else {
                ("IPv6", format!("[{ip}]"))
            };
            for (mode, options) in [
                ("passive, EPSV", &["--no-ftp-skip-pasv-ip"][..]),
                ("passive, PASV", &["--no-ftp-skip-pasv-ip", "--disable-epsv"]),
                ("active, EPRT", &["-P", "-"]),
                ("active, PORT", &["-P", "-", "--disable-eprt"]),
            ] {
                let mut fact = |what: &str, args: &[&str]| {
                    facts.end_with(
                        format!("{family}, {mode}: curl {what}"),
                        curl(world, &[options, args].concat()),
                        exchange,
                    );
                };
                fact("lists", &["-v", &format!("ftp://{host}/pub/")]);
                fact("downloads", &["-o", "got", &format!("ftp://{host}/pub/file")]);
                let name = format!("{family}-{mode}").replace([' ', ','], "");
                fact(
                    "uploads",
                    &["-T", "got", &format!("ftp://{host}/incoming/{name}")],
                );
            }
            for (mode, option) in [("passive", "on"), ("active", "off")] {
                facts.end(format!("{family}, {mode}: lftp"), lftp(world, &host, option));
            }
        }
        facts.note("what vsftpd logged", log_of(world)?);
        facts.note("what vsftpd received", received(world)?);
        Ok(facts)
    });
}

/// vsftpd for anonymous users, on both families; the answers of PASV and EPSV name ports that the kernel chooses.
fn vsftpd(world: &World) -> Result<Process> {
    let pod = &world.server;
    let root = pod.scratch().join("ftp");
    fs::create_dir_all(root.join("pub"))?;
    fs::create_dir_all(incoming(world))?;
    // It gives up its rights, and refuses a root that it could write to.
    fs::set_permissions(incoming(world), fs::Permissions::from_mode(0o777))?;
    fs::write(root.join("pub/file"), "a line of a file\n".repeat(100_000))?;
    fs::write(root.join("pub/line"), "the only line\n")?;
    for file in ["file", "line"] {
        // Listings show it.
        File::open(root.join("pub").join(file))?.set_modified(SystemTime::UNIX_EPOCH)?;
    }
    let (root, log) = (root.display(), log(world));
    // Not from port 20: over IPv6 two destinations that share a port of ::1 cannot be dialled from one source port at
    // once (docs/transparency.md), which is one pair of 4,096. The truth suite asks for one source port.
    let config = format!(
        "listen_ipv6=YES\nlisten_port={PORT}\nbackground=NO\nanonymous_enable=YES\nanon_root={root}\n\
         write_enable=YES\nanon_upload_enable=YES\nanon_umask=022\nno_anon_password=YES\nseccomp_sandbox=NO\n\
         connect_from_port_20=NO\npasv_min_port=33000\npasv_max_port=60000\n\
         xferlog_enable=YES\ndual_log_enable=NO\nlog_ftp_protocol=YES\nvsftpd_log_file={}\n\
         connect_timeout=5\naccept_timeout=5\n",
        log.display()
    );
    let file = pod.scratch().join("vsftpd.conf");
    fs::write(&file, config)?;
    let mut command = pod.command("vsftpd");
    command.arg(file);
    pod.spawn(command)?.until_listening(PORT)
}

fn curl(world: &World, args: &[&str]) -> Result<Output> {
    let base = ["-q", "--noproxy", "*", "-sS", "-g", "--max-time", "8"];
    world.client.run("curl", base.iter().chain(args))
}

/// What curl and vsftpd said to each other, of a verbose curl; else all that it printed.
fn exchange(text: &str) -> String {
    if !text.contains("< 220 ") {
        return text.into();
    }
    let lines = lines_with(text, &["< ", "> ", "curl: ", "file", "line"]);
    let lines = lines.lines().map(|line| {
        // The last two numbers of these are a port of the kernel's choice.
        let address = line.contains(" PORT ") || line.contains("< 227 ");
        let parts: Vec<&str> = line.splitn(5, ',').collect();
        if address && parts.len() == 5 {
            format!("{},{},{},{},PORT", parts[0], parts[1], parts[2], parts[3])
        } else {
            line.trim_end().to_owned()
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn lftp(world: &World, host: &str, passive: &str) -> Result<Output> {
    let script = format!(
        "set ftp:passive-mode {passive}; set net:max-retries 1; set net:timeout 5; set net:persist-retries 0; \
         set ftp:fix-pasv-address no; set cmd:fail-exit yes; \
         open ftp://{host}; cls -1 pub; get -O got-{passive} pub/file; mirror --verbose=0 pub mirrored-{passive}; cat pub/line"
    );
    let dir = world.client.scratch();
    let _ = fs::remove_dir_all(dir.join(format!("got-{passive}")));
    let _ = fs::remove_dir_all(dir.join(format!("mirrored-{passive}")));
    fs::create_dir_all(dir.join(format!("got-{passive}")))?;
    let mut command = world.client.command("lftp");
    // Its own directory for settings and history.
    command.args(["--norc", "-c", &script]).env("HOME", dir);
    world.client.run_within(command, harness::wait::SOON)
}

/// Its log, without dates and process numbers, sorted: each session has a process of its own.
fn log_of(world: &World) -> Result<String> {
    let log = fs::read_to_string(log(world))?;
    let told = log
        .lines()
        .filter(|line| line.contains("CONNECT") || line.contains("OK "));
    let mut lines: Vec<String> = told
        .filter_map(|line| {
            let told = line.split_once("] ")?.1;
            // The speed of a transfer comes last.
            let told = told.split(" bytes, ").next().unwrap_or(told);
            Some(told.rsplit_once("] ").map_or(told, |(_, end)| end).to_owned())
        })
        .collect();
    lines.sort();
    let counted: Vec<String> = lines
        .chunk_by(|a, b| a == b)
        .map(|same| format!("{} x {}", same.len(), same[0]))
        .collect();
    Ok(counted.join("\n"))
}

fn received(world: &World) -> Result<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(incoming(world))? {
        let entry = entry?;
        files.push(format!(
            "{} {}",
            entry.file_name().to_string_lossy(),
            entry.metadata()?.len()
        ));
    }
    files.sort();
    Ok(files.join("\n"))
}

fn incoming(world: &World) -> PathBuf {
    world.server.scratch().join("ftp/incoming")
}

fn log(world: &World) -> PathBuf {
    world.server.scratch().join("vsftpd.log")
}
