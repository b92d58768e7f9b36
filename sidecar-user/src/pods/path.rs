//! What the path of a cgroup says about a pod: its UID, QoS class and container, in the forms of both cgroup drivers of the
//! kubelet; and the path at which a pod is to be expected. Pure: looks at no file system.

use std::path::{Path, PathBuf};

use super::Error;
use super::uid::PodUid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    /// As it stands in paths, where the class of Guaranteed pods has no name.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Guaranteed => None,
            Self::Burstable => Some("burstable"),
            Self::BestEffort => Some("besteffort"),
        }
    }
}

/// Who makes the kubelet's cgroups, and names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// `kubepods/burstable/pod<uid>`
    Cgroupfs,
    /// `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid_>.slice`: the name of a slice begins with that of
    /// the one above it.
    Systemd,
}

impl Driver {
    pub(super) fn of_root(name: &str) -> Self {
        if name.ends_with(".slice") {
            Self::Systemd
        } else {
            Self::Cgroupfs
        }
    }

    /// Where below a `*kubepods*` directory the kubelet puts a pod.
    pub fn directory(self, root: &Path, uid: &PodUid, qos: Qos) -> PathBuf {
        match self {
            Self::Cgroupfs => {
                let above = qos.name().map_or(root.into(), |qos| root.join(qos));
                above.join(format!("pod{uid}"))
            }
            Self::Systemd => {
                let name = root.file_name().unwrap_or_default().to_string_lossy();
                let mut stem = name.trim_end_matches(".slice").to_owned();
                let mut above = root.to_owned();
                if let Some(qos) = qos.name() {
                    stem = format!("{stem}-{qos}");
                    above.push(format!("{stem}.slice"));
                }
                above.join(format!("{stem}-pod{}.slice", uid.as_str().replace('-', "_")))
            }
        }
    }
}

/// What one segment of a path is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Segment<'a> {
    /// The pod's own directory. systemd's names say the class, too.
    Pod {
        uid: PodUid,
        qos: Option<Qos>,
    },
    /// `…-pod<uid_>.slice:cri-containerd:<cid>`: what a runtime with the cgroupfs driver makes of the kubelet's name of a
    /// slice. Holds one container, and is not below the kubelet's directory.
    Joined {
        uid: PodUid,
        qos: Option<Qos>,
        container: &'a str,
    },
    Container(&'a str),
    Other,
}

impl<'a> Segment<'a> {
    pub(super) fn of(name: &'a str) -> Self {
        if let Some((slice, rest)) = name.split_once(':') {
            let container = rest.rsplit(':').next().and_then(container);
            return match (pod(slice), container) {
                (Some((uid, qos)), Some(container)) => Self::Joined { uid, qos, container },
                _ => Self::Other,
            };
        }
        match (pod(name), container(name)) {
            (Some((uid, qos)), _) => Self::Pod { uid, qos },
            (None, Some(container)) => Self::Container(container),
            (None, None) => Self::Other,
        }
    }
}

/// `pod<uid>`, or `<prefix>kubepods[-<qos>]-pod<uid_>.slice`.
fn pod(name: &str) -> Option<(PodUid, Option<Qos>)> {
    // A UID has no such letters.
    let (above, uid) = name.strip_suffix(".slice").unwrap_or(name).rsplit_once("pod")?;
    let uid = uid.parse().ok()?;
    if above.is_empty() {
        return Some((uid, None));
    }
    let above = above.strip_suffix('-')?;
    let class = |qos: Qos| Some((above.strip_suffix(qos.name()?)?.strip_suffix('-')?, qos));
    let (kubepods, qos) = class(Qos::Burstable)
        .or_else(|| class(Qos::BestEffort))
        .unwrap_or((above, Qos::Guaranteed));
    kubepods.ends_with("kubepods").then_some((uid, Some(qos)))
}

/// `<cid>`, or `<runtime>-<cid>.scope`.
pub fn container(name: &str) -> Option<&str> {
    let id = match name.strip_suffix(".scope") {
        Some(scope) => scope.rsplit('-').next()?,
        None => name,
    };
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

/// What the path of a cgroup, or those of a process, say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodPath {
    pub uid: Option<PodUid>,
    pub qos: Option<Qos>,
    pub container: Option<String>,
    /// The pod's own directory: the path up to the segment with the UID. `None` without a UID, and where that segment is
    /// one container's.
    pub directory: Option<String>,
}

impl PodPath {
    /// Of one path, which may begin anywhere, and outside of a cgroup namespace with `..`.
    pub fn parse(path: &str) -> Result<Self, Error> {
        let mut found = Self::default();
        let (mut before, mut end) = ("", 0);
        // Above the pod are containers that are nodes; below it, its container is the first.
        for name in path.split('/') {
            end += name.len();
            match Segment::of(name) {
                Segment::Pod { uid, qos } => {
                    found.enter(path, uid)?;
                    found.qos = qos.or_else(|| class_of(before));
                    found.directory = Some(path[..end].into());
                }
                Segment::Joined { uid, qos, container } => {
                    found.enter(path, uid)?;
                    found.qos = qos;
                    found.container = Some(container.into());
                }
                Segment::Container(id) if found.uid.is_none() || found.container.is_none() => {
                    found.container = Some(id.into());
                }
                Segment::Container(_) | Segment::Other => {}
            }
            before = name;
            end += 1;
        }
        Ok(found)
    }

    fn enter(&mut self, path: &str, uid: PodUid) -> Result<(), Error> {
        self.container = None;
        match self.uid.replace(uid.clone()) {
            Some(first) if first != uid => Err(Error::TwoPods {
                culprit: format!("the cgroup {path}"),
                first,
                second: uid,
            }),
            _ => Ok(()),
        }
    }

    /// Of all lines of `/proc/PID/cgroup`, one for each hierarchy. Those that name no pod say nothing where others do. The
    /// directory is that of the cgroup2 hierarchy.
    pub fn of_process(culprit: &str, lines: &str) -> Result<Self, Error> {
        let mut paths = Vec::new();
        for line in lines.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
                continue;
            };
            let mut path = Self::parse(path)?;
            if !controllers.is_empty() {
                path.directory = None;
            }
            paths.push(path);
        }
        let names_pod = paths.iter().any(|path| path.uid.is_some());
        let mut whole = Self::default();
        for path in paths.into_iter().filter(|path| !names_pod || path.uid.is_some()) {
            let culprit = || format!("what {culprit} is in");
            whole.uid = agree(whole.uid, path.uid).map_err(|(first, second)| Error::TwoPods {
                culprit: culprit(),
                first,
                second,
            })?;
            whole.container =
                agree(whole.container, path.container).map_err(|(first, second)| Error::TwoContainers {
                    culprit: culprit(),
                    first,
                    second,
                })?;
            whole.qos = whole.qos.or(path.qos);
            whole.directory = whole.directory.or(path.directory);
        }
        Ok(whole)
    }
}

fn agree<T: PartialEq>(known: Option<T>, said: Option<T>) -> Result<Option<T>, (T, T)> {
    match (known, said) {
        (Some(first), Some(second)) if first != second => Err((first, second)),
        (known, said) => Ok(known.or(said)),
    }
}

/// By the directory above one of the cgroupfs driver. `None`: it does not show.
fn class_of(above: &str) -> Option<Qos> {
    match above {
        "burstable" => Some(Qos::Burstable),
        "besteffort" => Some(Qos::BestEffort),
        root => root.ends_with("kubepods").then_some(Qos::Guaranteed),
    }
}
