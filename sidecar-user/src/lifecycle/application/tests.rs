//! Who counts, by files that look like a cgroup's, and the end of the witnesses, by real ones. Needs root for the latter.

use std::process::{Child, Command};

use super::*;

/// A directory tree in the place of a cgroup.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("outrigger-application-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn with(self, below: &str, pids: &[u32]) -> Self {
        let dir = self.0.join(below);
        fs::create_dir_all(&dir).unwrap();
        let lines: Vec<String> = pids.iter().map(|pid| format!("{pid}\n")).collect();
        fs::write(dir.join("cgroup.procs"), lines.concat()).unwrap();
        self
    }

    fn others(&self) -> Option<Witness> {
        others(&self.0, &Own::of_this_process()).unwrap()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn me() -> u32 {
    std::process::id()
}

/// A program that ends when its input does, or is killed on drop.
struct Program(Child);

impl Program {
    fn named(name: &str) -> Self {
        let sleep = Command::new("bash")
            .args(["-c", "exec -a \"$0\" sleep 1000", name])
            .spawn()
            .unwrap();
        Self(sleep)
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

#[test]
fn this_process_alone_is_nobody() {
    let tree = Tree::new("alone").with("", &[me()]);
    assert_eq!(tree.others(), None);
}

#[test]
fn a_neighbour_in_the_same_cgroup_or_below_is_found() {
    let neighbour = Program::named("neighbour");
    let pid = neighbour.0.id();
    let beside = Tree::new("beside").with("", &[me(), pid]);
    assert_eq!(beside.others(), Some(Witness::Process(pid)));
    let below = Tree::new("below")
        .with("", &[me()])
        .with("a", &[])
        .with("a/b", &[pid]);
    assert_eq!(below.others(), Some(Witness::Process(pid)));
}

#[test]
fn what_shares_the_container_of_the_proxy_does_not_count() {
    let shell = Program::named("shell");
    let tree = Tree::new("container")
        .with("", &[])
        .with("sidecar", &[me(), 0, shell.0.id()]);
    assert_eq!(tree.others(), None);
}

#[test]
fn the_program_of_another_container_is_its_cgroup() {
    let tree = Tree::new("nameless")
        .with("", &[])
        .with("sidecar", &[me()])
        .with("app", &[0]);
    assert_eq!(tree.others(), Some(Witness::Cgroup(tree.0.join("app"))));
    let tree = Tree::new("blind").with("", &[me(), 0]);
    assert_eq!(tree.others(), Some(Witness::Nameless));
}

#[test]
fn the_same_program_as_ours_is_no_application() {
    // A process of its own that has not called exec yet, as long as it waits for its input.
    let own = Own::of_this_process();
    assert!(own.is(me()) && own.program.is_some());
    let other = Program::named("other");
    assert!(!own.is(other.0.id()));
    assert!(!own.is(0));
}

#[tokio::test]
async fn the_last_program_s_end_is_told_once_there_was_one() {
    let mut neighbour = Program::named("last");
    let tree = Tree::new("follow").with("", &[me()]);
    let (tell, mut told) = watch::channel(Application::Unseen);
    let following = tokio::spawn(follow_application(tree.0.clone(), tell));
    let tree = tree.with("", &[me(), neighbour.0.id()]);
    told.wait_for(|told| *told == Application::Here).await.unwrap();
    let tree = tree.with("", &[me()]);
    assert_eq!(
        *told.borrow(),
        Application::Here,
        "nobody has to count while it lives"
    );
    neighbour.end();
    told.wait_for(|told| *told == Application::Gone).await.unwrap();
    following.await.unwrap();
    drop(tree);
}

/// As of a container of another PID namespace.
#[tokio::test]
async fn a_cgroup_tells_when_it_has_become_empty() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields[2] == "cgroup2")
        .map(|fields| PathBuf::from(fields[1]))
        .unwrap();
    let cgroup = mount.join(format!("outrigger-application-{}", me()));
    fs::create_dir(&cgroup).unwrap();
    let mut program = Program::named("inside");
    fs::write(cgroup.join("cgroup.procs"), program.0.id().to_string()).unwrap();
    let limit = Duration::from_secs(20);
    let ended = async {
        let witness = Witness::Cgroup(cgroup.clone());
        let end = witness.end();
        tokio::pin!(end);
        tokio::select! {
            biased;
            ended = &mut end => panic!("it lives: {ended:?}"),
            () = tokio::task::yield_now() => {}
        }
        program.end();
        tokio::time::timeout(limit, end).await
    };
    let ended = ended.await;
    fs::remove_dir(&cgroup).unwrap();
    ended.expect("it is told").unwrap();
}
