//! The words that the programs read: from the validated configuration, and changed while they run.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytemuck::Zeroable;
use sidecar_ebpf::abi::control::Word;
use sidecar_ebpf::abi::{
    ABI_VERSION, Device, MAX_ADDRESSES, MAX_DEVICES, MAX_OPEN_PORTS, MAX_SHARDS, Settings,
};
use sidecar_ebpf::addr::Port;

use super::super::ip::kernel_ip;
use super::super::map::Map;
use super::super::{Config, Error, Netns};
use super::control::Control;
use super::mapped::Mapped;

/// Changes single words of the settings in force. The programs see a word before or after, never in between.
#[derive(Clone, Debug)]
pub(in super::super) struct Switches {
    writer: Writer,
    /// What the programs read now.
    in_force: Mapped<Settings>,
    state: Arc<Mutex<State>>,
}

/// By which this process writes.
#[derive(Clone, Debug)]
pub(super) enum Writer {
    Map(Map<u32, Settings>),
    /// Where it may not call bpf(2).
    Control(Control),
}

#[derive(Debug)]
struct State {
    settings: Settings,
    pen: Pen,
}

/// Who may write the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pen {
    /// Not this process yet: what changes is kept for the moment when it may.
    Waiting,
    Held,
    /// Not this process any more, unless it takes the pen back.
    Laid,
    /// Another process, for good.
    Given,
}

/// Whether this process serves the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    Ours,
    /// Another proxy is taking the pod over: its programs may be attached already. It has it, or this process goes on.
    Changing,
    /// Another proxy has the pod.
    Lost,
}

/// The right to change the settings of a pod that another process has installed, which goes from one proxy to the next.
/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct WriteRight(Switches);

impl WriteRight {
    pub(super) fn new(switches: Switches) -> Self {
        Self(switches)
    }

    /// Writes nothing any more, so that another proxy may.
    pub fn lay_down(&self) {
        self.0.lay_down();
    }

    /// Another proxy has it, for good.
    pub fn give(&self) {
        self.0.give();
    }

    /// False: the settings in force are another proxy's, and so is the right.
    pub fn take_back(&self) -> bool {
        let mut state = self.0.lock();
        let is_ours = self.0.current().epoch == state.settings.epoch;
        if is_ours {
            state.pen = Pen::Held;
        }
        is_ours
    }
}

impl Switches {
    /// Writes nothing until [`Self::begin`].
    pub(super) fn new(writer: Writer, in_force: Mapped<Settings>, settings: Settings) -> Self {
        Self {
            writer,
            in_force,
            state: Arc::new(Mutex::new(State {
                settings,
                pen: Pen::Waiting,
            })),
        }
    }

    /// Of programs that are attached: their settings are this process's to change from now on.
    pub(super) fn in_force(writer: Writer, in_force: Mapped<Settings>) -> Self {
        let made = Self::new(writer, in_force.clone(), in_force.get(0));
        made.lock().pen = Pen::Held;
        made
    }

    /// Those in force are this process's own: whoever has attached the programs has written them for it.
    pub(super) fn renew(&self) {
        let mut state = self.lock();
        state.settings = self.current();
        state.pen = Pen::Held;
    }

    /// As this process has written them, or is going to.
    pub(in super::super) fn wanted(&self) -> Settings {
        self.lock().settings
    }

    /// Writes all of the settings, after a last change, and each change from now on.
    pub(in super::super) fn begin(&self, change: impl FnOnce(&mut Settings)) -> Result<(), Error> {
        let mut state = self.lock();
        let mut settings = state.settings;
        change(&mut settings);
        match &self.writer {
            Writer::Map(map) => map.set(&0, &settings)?,
            // All of the settings are the installer's to write.
            Writer::Control(_) => return Err(Error::Superseded),
        }
        *state = State {
            settings,
            pen: Pen::Held,
        };
        Ok(())
    }

    /// Writes nothing any more from the moment that this returns: another process will.
    pub(in super::super) fn lay_down(&self) {
        self.lock().pen = Pen::Laid;
    }

    /// Another process has the pod, and has said so.
    pub(in super::super) fn give(&self) {
        self.lock().pen = Pen::Given;
    }

    /// Refuses once another proxy has taken the pod over: its settings are not ours to write.
    pub(super) fn change(&self, change: impl FnOnce(&mut Settings)) -> Result<(), Error> {
        let mut state = self.lock();
        let mut changed = state.settings;
        change(&mut changed);
        match state.pen {
            Pen::Waiting => {}
            Pen::Held => self.write(&state.settings, &changed)?,
            Pen::Laid | Pen::Given => return Err(Error::Superseded),
        }
        state.settings = changed;
        Ok(())
    }

    fn write(&self, before: &Settings, changed: &Settings) -> Result<(), Error> {
        let control = match &self.writer {
            Writer::Map(map) => {
                return match self.current().epoch == changed.epoch {
                    true => Ok(map.set(&0, changed)?),
                    false => Err(Error::Superseded),
                };
            }
            Writer::Control(control) => control,
        };
        // Word by word, as it is made for callers that change one.
        let (before, words) = (words(before), words(changed));
        let different = words.into_iter().zip(before).filter(|(new, old)| new != old);
        // Also where nothing is different the epoch may be.
        let all = [(Word::NONE, 0)].into_iter().chain(different.map(|(new, _)| new));
        for (word, value) in all {
            if !control.change(changed.epoch, word, value)? {
                return Err(Error::Superseded);
            }
        }
        Ok(())
    }

    pub(super) fn ownership(&self) -> Ownership {
        let state = self.lock();
        match state.pen {
            Pen::Held if self.current().epoch != state.settings.epoch => Ownership::Lost,
            Pen::Waiting | Pen::Held => Ownership::Ours,
            Pen::Laid => Ownership::Changing,
            Pen::Given => Ownership::Lost,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked has left what was written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the programs read now: zeros where nobody has written any yet. No system call.
    pub(in super::super) fn current(&self) -> Settings {
        self.in_force.get(0)
    }
}

/// Zeros where nobody has written any yet.
pub(in super::super) fn in_force(map: &Map<u32, Settings>) -> Result<Settings, Error> {
    Ok(map.get(&0)?.unwrap_or_else(Settings::zeroed))
}

/// Of a pod in that network namespace.
pub(in super::super) fn settings(config: &Config, netns: &Netns) -> Result<Settings, Error> {
    let mut settings = Settings {
        abi: ABI_VERSION,
        strict: config.strict.into(),
        netns: netns.cookie()?,
        hbone_port: Port::new(config.hbone_port),
        shards: config.shards.min(MAX_SHARDS) as u16,
        epoch: epoch(),
        ..Settings::zeroed()
    };
    let ports = config.open_ports.iter().map(|port| Port::new(*port));
    fill(
        ("ports are open to outsiders", "open fewer"),
        &mut settings.open_ports,
        MAX_OPEN_PORTS,
        ports,
    )?;
    let addresses = config.pod_addresses.iter().map(|ip| kernel_ip(*ip));
    fill(
        (
            "addresses of the workload were given or found",
            "name those by which others reach it in workload.addresses",
        ),
        &mut settings.addresses,
        MAX_ADDRESSES,
        addresses,
    )?;
    let devices = netns.within(devices)?.map_err(|source| Error::Host {
        what: "the network devices of the pod",
        source,
    })?;
    settings
        .devices
        .iter_mut()
        .zip(devices)
        .for_each(|(slot, device)| *slot = device);
    Ok(settings)
}

/// Whether two settings differ only in words that may change while the programs run. Others are not written over:
/// a program could read half of a changed address.
pub(in super::super) fn same_pod(a: &Settings, b: &Settings) -> bool {
    let lasting = |settings: &Settings| Settings {
        strict: 0,
        first_shard: 0,
        shards: 0,
        hold: 0,
        epoch: 0,
        policy_generation: 0,
        routes: 0,
        app_ports: 0,
        ..*settings
    };
    lasting(a) == lasting(b)
}

/// The words that may change while the programs run, but for the epoch.
fn words(of: &Settings) -> [(Word, u32); 6] {
    [
        (Word::STRICT, of.strict),
        (Word::HOLD, of.hold.into()),
        (
            Word::SHARDS,
            u32::from(of.first_shard) | u32::from(of.shards) << 16,
        ),
        (Word::POLICY_GENERATION, of.policy_generation),
        (Word::ROUTES, of.routes),
        (Word::APP_PORTS, of.app_ports),
    ]
}

/// Takes over what an earlier proxy has found out, with the maps that hold it: whether SYNs are held, and whether routes
/// and listeners are known. All of it is zero where the maps are new.
pub(in super::super) fn carry_over(before: &Settings, settings: &mut Settings) {
    settings.hold = before.hold;
    settings.routes = before.routes;
    settings.app_ports = before.app_ports;
}

/// Differs from that of any proxy that has served the pod recently.
fn epoch() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_millis() as u32).max(1)
}

fn devices() -> io::Result<Vec<Device>> {
    let interfaces = nix::net::if_::if_nameindex()?;
    let devices = interfaces.iter().map(|interface| {
        let mut name = [0; 16];
        let bytes = interface.name().to_bytes();
        name[..bytes.len().min(15)].copy_from_slice(&bytes[..bytes.len().min(15)]);
        Device {
            index: interface.index(),
            name,
        }
    });
    Ok(devices.take(MAX_DEVICES).collect())
}

fn fill<T>(
    (field, remedy): (&'static str, &'static str),
    slots: &mut [T],
    max: usize,
    values: impl ExactSizeIterator<Item = T>,
) -> Result<(), Error> {
    let given = values.len();
    if given > max {
        return Err(Error::TooMany {
            field,
            given,
            max,
            remedy,
        });
    }
    slots
        .iter_mut()
        .zip(values)
        .for_each(|(slot, value)| *slot = value);
    Ok(())
}
