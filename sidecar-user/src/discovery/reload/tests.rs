//! A registry that changes on disk in every way that files change. What is in it is `file/tests.rs`.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// A directory of its own for each test, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "outrigger-reload-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("registry.yaml")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn world(ip: &str) -> String {
    format!("workloads:\n- {{uid: w, namespace: n, workloadIps: [{ip}]}}\n")
}

fn replace(file: &Path, text: &str) {
    let temporary = file.with_extension("new");
    fs::write(&temporary, text).unwrap();
    fs::rename(temporary, file).unwrap();
}

/// A followed file, and what was published last.
struct Followed {
    feed: Feed,
    task: JoinHandle<()>,
}

impl Followed {
    fn start(file: &Path) -> Self {
        let (feed, follow) = watch(&Config {
            file: file.to_owned(),
        })
        .unwrap();
        Self {
            feed,
            task: tokio::spawn(follow),
        }
    }

    async fn sees(&mut self, ip: &str) -> Arc<Snapshot> {
        let ip = ip.parse().unwrap();
        let found = self
            .feed
            .snapshots
            .wait_for(|s| s.workload_by_address(ip).is_some());
        timeout(LIMIT, found)
            .await
            .expect("the change is not seen")
            .unwrap()
            .clone()
    }

    async fn status(&mut self, wanted: impl Fn(&Status) -> bool) -> Status {
        let found = self.feed.status.wait_for(wanted);
        timeout(LIMIT, found)
            .await
            .expect("the status does not come")
            .unwrap()
            .clone()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[test]
fn a_missing_or_bad_file_at_start_is_an_error_that_names_it() {
    let scratch = Scratch::new();
    let config = Config { file: scratch.file() };
    let start = || watch(&config).map(|(feed, _)| feed).unwrap_err().to_string();
    assert!(start().contains("registry.yaml"));
    fs::write(&config.file, "workloads:\n- nam: x\n").unwrap();
    assert!(
        start().contains("registry.yaml:2:3: `workloads[0].nam`: unknown field"),
        "{}",
        start()
    );
}

#[tokio::test]
async fn an_atomic_rename_is_followed_again_and_again() {
    let scratch = Scratch::new();
    fs::write(scratch.file(), world("10.0.0.1")).unwrap();
    let mut followed = Followed::start(&scratch.file());
    assert_eq!(followed.sees("10.0.0.1").await.generation, 1);
    for n in 2..5 {
        replace(&scratch.file(), &world(&format!("10.0.0.{n}")));
        assert_eq!(followed.sees(&format!("10.0.0.{n}")).await.generation, n);
    }
}

#[tokio::test]
async fn a_write_in_place_is_followed() {
    let scratch = Scratch::new();
    fs::write(scratch.file(), world("10.0.0.1")).unwrap();
    let mut followed = Followed::start(&scratch.file());
    fs::write(scratch.file(), world("10.0.0.2")).unwrap();
    followed.sees("10.0.0.2").await;
}

#[tokio::test]
async fn a_config_map_swap_is_followed() {
    let scratch = Scratch::new();
    let version = |name: &str, ip: &str| {
        let directory = scratch.0.join(name);
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("registry.yaml"), world(ip)).unwrap();
    };
    version("..1", "10.0.0.1");
    symlink("..1", scratch.0.join("..data")).unwrap();
    symlink("..data/registry.yaml", scratch.file()).unwrap();
    let mut followed = Followed::start(&scratch.file());
    for (name, ip) in [("..2", "10.0.0.2"), ("..3", "10.0.0.3")] {
        version(name, ip);
        symlink(name, scratch.0.join("..tmp")).unwrap();
        fs::rename(scratch.0.join("..tmp"), scratch.0.join("..data")).unwrap();
        followed.sees(ip).await;
    }
}

#[tokio::test]
async fn a_write_through_a_link_into_another_directory_is_followed() {
    let (scratch, elsewhere) = (Scratch::new(), Scratch::new());
    fs::write(elsewhere.file(), world("10.0.0.1")).unwrap();
    symlink(elsewhere.file(), scratch.file()).unwrap();
    let mut followed = Followed::start(&scratch.file());
    replace(&elsewhere.file(), &world("10.0.0.2"));
    followed.sees("10.0.0.2").await;
}

#[tokio::test]
async fn a_bad_file_keeps_the_last_good_one() {
    let scratch = Scratch::new();
    fs::write(scratch.file(), world("10.0.0.1")).unwrap();
    let mut followed = Followed::start(&scratch.file());
    replace(
        &scratch.file(),
        "workloads:\n- {namespace: n, workloadIps: [nonsense]}\n",
    );
    let status = followed.status(|s| s.error.is_some()).await;
    assert_eq!((status.generation, status.failures), (1, 1));
    let error = status.error.unwrap();
    assert!(
        error.contains("registry.yaml:2:32: `workloads[0].workloadIps[0]`"),
        "{error}"
    );
    assert_eq!(followed.sees("10.0.0.1").await.generation, 1);
    replace(&scratch.file(), &world("10.0.0.2"));
    followed.sees("10.0.0.2").await;
    assert_eq!(followed.status(|s| s.error.is_none()).await.generation, 2);
}

#[tokio::test]
async fn an_emptied_file_keeps_the_last_good_one() {
    let scratch = Scratch::new();
    fs::write(scratch.file(), world("10.0.0.1")).unwrap();
    let mut followed = Followed::start(&scratch.file());
    fs::write(scratch.file(), "").unwrap();
    let status = followed.status(|s| s.error.is_some()).await;
    assert!(status.error.unwrap().contains("the registry is empty"));
    followed.sees("10.0.0.1").await;
}

#[tokio::test]
async fn an_unchanged_text_is_no_new_generation() {
    let scratch = Scratch::new();
    fs::write(scratch.file(), world("10.0.0.1")).unwrap();
    let mut followed = Followed::start(&scratch.file());
    replace(&scratch.file(), "broken: [");
    followed.status(|s| s.error.is_some()).await;
    // The same text as at first: the error goes away, and nothing else happens.
    replace(&scratch.file(), &world("10.0.0.1"));
    let status = followed.status(|s| s.error.is_none()).await;
    assert_eq!((status.generation, status.failures), (1, 1));
    assert_eq!(followed.feed.snapshots.borrow().generation, 1);
}

#[tokio::test]
async fn a_file_that_is_deleted_and_made_anew_is_followed() {
    let scratch = Scratch::new();
    fs::write(scratch.file(), world("10.0.0.1")).unwrap();
    let mut followed = Followed::start(&scratch.file());
    fs::remove_file(scratch.file()).unwrap();
    let status = followed.status(|s| s.error.is_some()).await;
    assert!(status.error.unwrap().contains("cannot read the registry"));
    fs::write(scratch.file(), world("10.0.0.2")).unwrap();
    followed.sees("10.0.0.2").await;
}

#[tokio::test]
async fn a_directory_that_is_deleted_and_made_anew_is_followed() {
    let scratch = Scratch::new();
    let directory = scratch.0.join("etc");
    let file = directory.join("registry.yaml");
    fs::create_dir(&directory).unwrap();
    fs::write(&file, world("10.0.0.1")).unwrap();
    let mut followed = Followed::start(&file);
    for ip in ["10.0.0.2", "10.0.0.3"] {
        fs::remove_dir_all(&directory).unwrap();
        followed.status(|s| s.error.is_some()).await;
        fs::create_dir(&directory).unwrap();
        fs::write(&file, world(ip)).unwrap();
        followed.sees(ip).await;
    }
}

#[tokio::test]
async fn open_connections_are_still_counted_after_a_reload() {
    let scratch = Scratch::new();
    fs::write(scratch.file(), world("10.0.0.1")).unwrap();
    let mut followed = Followed::start(&scratch.file());
    let before = followed.sees("10.0.0.1").await;
    let ip = "10.0.0.1".parse().unwrap();
    let open = before.workload_by_address(ip).unwrap().1.enter();
    replace(&scratch.file(), &world("10.0.0.2"));
    let after = followed.sees("10.0.0.2").await;
    let load = after.workload_by_address("10.0.0.2".parse().unwrap()).unwrap().1;
    assert_eq!(load.open(), 1, "the same uid is the same workload");
    drop(open);
    assert_eq!(load.open(), 0);
}
