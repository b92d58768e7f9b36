//! The maps of the programs, with the types of their keys and values. The only place that calls bpf(2) for the contents of
//! maps.
//!
//! The kernel reads and writes as many bytes as a map says, and takes their place from us: with other sizes it would write over
//! whatever comes after. So a [`Map`] exists only where both sizes are those of its types. Arrays that are read again and again
//! are mapped: `session/mapped.rs`.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use sidecar_ebpf::abi;

use super::Error;
use super::sys::{self, MapInfo, bpf, descriptor};

const BPF_MAP_CREATE: i32 = 0;
const BPF_MAP_LOOKUP_ELEM: i32 = 1;
const BPF_MAP_UPDATE_ELEM: i32 = 2;
const BPF_MAP_DELETE_ELEM: i32 = 3;
const BPF_MAP_GET_NEXT_KEY: i32 = 4;
/// Of hash maps and arrays, since 5.6.
const BPF_MAP_LOOKUP_BATCH: i32 = 24;

/// Of a map with a value for each CPU the kernel answers all of them at once, however large one is said to be.
const PER_CPU: [u32; 4] = [5, 6, 10, 21];

/// Cheap to clone.
#[derive(Debug)]
pub(super) struct Map<K, V> {
    name: &'static str,
    fd: Arc<OwnedFd>,
    types: PhantomData<fn(K) -> V>,
}

/// A map could not be read or written. Becomes the error of whoever has asked.
#[derive(Debug)]
pub(super) struct Failed {
    map: &'static str,
    source: io::Error,
}

impl From<Failed> for Error {
    fn from(Failed { map, source }: Failed) -> Self {
        Self::MapIo { map, source }
    }
}

impl From<Failed> for io::Error {
    fn from(failed: Failed) -> Self {
        failed.source
    }
}

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Self {
            name: self.name,
            fd: self.fd.clone(),
            types: PhantomData,
        }
    }
}

impl<K: Pod, V: Pod> Map<K, V> {
    /// Refuses a map whose keys or values are of other sizes than the types.
    pub(super) fn new(name: &'static str, fd: Arc<OwnedFd>) -> Result<Self, Error> {
        let info = sys::map_info(fd.as_fd()).map_err(|source| Error::MapIo { map: name, source })?;
        let (wanted, found) = (
            [size_of::<K>(), size_of::<V>()],
            [info.key_size, info.value_size].map(|size| size as usize),
        );
        if wanted != found || PER_CPU.contains(&info.kind) {
            return Err(Error::MapShape {
                map: name,
                wanted,
                found,
            });
        }
        Ok(Self {
            name,
            fd,
            types: PhantomData,
        })
    }

    /// By its pin.
    pub(super) fn pinned(name: &'static str, pin: &Path) -> Result<Self, Error> {
        let fd = sys::open_pin(pin).map_err(Error::path("pinned map", pin))?;
        Self::new(name, Arc::new(fd))
    }

    pub(super) fn set(&self, key: &K, value: &V) -> Result<(), Failed> {
        let value = &raw const *value as u64;
        bpf(BPF_MAP_UPDATE_ELEM, &mut self.element(key, value))
            .map(drop)
            .map_err(|source| self.failed(source))
    }

    /// `None`: there is no such key.
    pub(super) fn get(&self, key: &K) -> Result<Option<V>, Failed> {
        let mut value = V::zeroed();
        let asked = bpf(BPF_MAP_LOOKUP_ELEM, &mut self.element(key, &raw mut value as u64));
        Ok(self.found(asked)?.map(|_| value))
    }

    /// False: there was no such key.
    pub(super) fn remove(&self, key: &K) -> Result<bool, Failed> {
        let removed = bpf(BPF_MAP_DELETE_ELEM, &mut self.element(key, 0));
        Ok(self.found(removed)?.is_some())
    }

    /// Removes what is not to be kept. Of what comes and goes meanwhile some may be missed.
    pub(super) fn retain(&self, keep: impl Fn(&K) -> bool) -> Result<(), Failed> {
        for key in self.keys()?.iter().filter(|key| !keep(key)) {
            self.remove(key)?;
        }
        Ok(())
    }

    /// One by one, as every kind of map can be asked.
    pub(super) fn keys(&self) -> Result<Vec<K>, Failed> {
        let mut keys: Vec<K> = Vec::new();
        let mut next = K::zeroed();
        loop {
            let last = keys.last().map_or(0, |key| &raw const *key as u64);
            let mut attr = Element {
                key: last,
                value: &raw mut next as u64,
                ..self.element(&next, 0)
            };
            match self.found(bpf(BPF_MAP_GET_NEXT_KEY, &mut attr))? {
                Some(_) => keys.push(next),
                None => return Ok(keys),
            }
        }
    }

    /// How many entries there are, as far as `most`.
    pub(super) fn count(&self, most: usize) -> Result<usize, Failed> {
        let (mut last, mut next) = (K::zeroed(), K::zeroed());
        for count in 0..most {
            let mut attr = Element {
                // Without a key it is the first.
                key: if count == 0 { 0 } else { &raw const last as u64 },
                value: &raw mut next as u64,
                ..self.element(&last, 0)
            };
            if self.found(bpf(BPF_MAP_GET_NEXT_KEY, &mut attr))?.is_none() {
                return Ok(count);
            }
            last = next;
        }
        Ok(most)
    }

    /// One by one. An entry that goes meanwhile is left out.
    pub(super) fn entries(&self) -> Result<Vec<(K, V)>, Failed> {
        let mut entries = Vec::new();
        for key in self.keys()? {
            if let Some(value) = self.get(&key)? {
                entries.push((key, value));
            }
        }
        Ok(entries)
    }

    /// Those of a hash map that has at most `most` entries, asked for at once.
    pub(super) fn keys_at_once(&self, most: usize) -> Result<Vec<K>, Failed> {
        let entries = self.entries_at_once(most)?;
        Ok(entries.into_iter().map(|(key, _)| key).collect())
    }

    /// Also of an array.
    pub(super) fn entries_at_once(&self, most: usize) -> Result<Vec<(K, V)>, Failed> {
        let (mut keys, mut values) = (vec![K::zeroed(); most], vec![V::zeroed(); most]);
        let mut after = 0_u32;
        let mut attr = Batch {
            before: 0,
            after: &raw mut after as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(most).expect("maps are small"),
            map: descriptor(self.fd.as_fd()),
            element_flags: 0,
            flags: 0,
        };
        // Not found: the end was reached, which is what was wanted.
        self.found(bpf(BPF_MAP_LOOKUP_BATCH, &mut attr))?;
        keys.truncate(attr.count as usize);
        Ok(keys.into_iter().zip(values).collect())
    }

    /// Whoever calls keeps the key and the value alive.
    fn element(&self, key: &K, value: u64) -> Element {
        Element {
            map: descriptor(self.fd.as_fd()),
            reserved: 0,
            key: &raw const *key as u64,
            value,
            flags: 0,
        }
    }

    fn found<T>(&self, asked: io::Result<T>) -> Result<Option<T>, Failed> {
        match asked {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.failed(source)),
        }
    }

    fn failed(&self, source: io::Error) -> Failed {
        Failed {
            map: self.name,
            source,
        }
    }
}

/// A ring buffer of its own.
pub(super) fn ring(bytes: u32) -> io::Result<OwnedFd> {
    const BPF_MAP_TYPE_RINGBUF: u32 = 27;
    create(abi::map::RINGS, [BPF_MAP_TYPE_RINGBUF, 0, 0, bytes, 0])
}

/// A map of that name, of which the kernel keeps 15 bytes, and with that type, those sizes of key and value, that many
/// entries, and those flags.
pub(super) fn create(name: &str, shape: [u32; 5]) -> io::Result<OwnedFd> {
    Creation::of(name, shape).create()
}

/// A map like one of that name, whose types are those with the same numbers in this BTF.
pub(super) fn create_like(name: &str, info: &MapInfo, btf: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let shape = [
        info.kind,
        info.key_size,
        info.value_size,
        info.max_entries,
        info.flags,
    ];
    let mut creation = Creation::of(name, shape);
    // Of some kinds the kernel takes no types.
    if info.btf != 0 {
        creation.btf = descriptor(btf);
        creation.types = info.types;
    }
    creation.create()
}

/// An array of one value that no program may write, and nobody else either.
pub(super) fn constant<T: Pod>(name: &'static str, value: &T) -> Result<Arc<OwnedFd>, Error> {
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    const BPF_F_RDONLY_PROG: u32 = 1 << 7;
    const BPF_MAP_FREEZE: i32 = 22;
    let fail = |source| Error::MapIo { map: name, source };
    let sizes = [size_of::<u32>(), size_of::<T>()].map(|size| size as u32);
    let shape = [BPF_MAP_TYPE_ARRAY, sizes[0], sizes[1], 1, BPF_F_RDONLY_PROG];
    let made = Arc::new(create(name, shape).map_err(fail)?);
    Map::new(name, made.clone())?.set(&0_u32, value)?;
    bpf(BPF_MAP_FREEZE, &mut descriptor(made.as_fd())).map_err(fail)?;
    Ok(made)
}

/// Of a name as much as the kernel keeps of a map's or a program's, with its end.
pub(super) fn shown(name: &str) -> [u8; 16] {
    let mut shown = [0; 16];
    shown[..15]
        .iter_mut()
        .zip(name.bytes())
        .for_each(|(to, byte)| *to = byte);
    shown
}

/// What BPF_MAP_CREATE is told.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Creation {
    shape: [u32; 5],
    inner_map: u32,
    numa_node: u32,
    name: [u8; 16],
    device: u32,
    btf: u32,
    types: [u32; 2],
}

impl Creation {
    fn of(name: &str, shape: [u32; 5]) -> Self {
        Self {
            shape,
            name: shown(name),
            ..Self::zeroed()
        }
    }

    fn create(mut self) -> io::Result<OwnedFd> {
        bpf(BPF_MAP_CREATE, &mut self).map(sys::owned)
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Element {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Batch {
    before: u64,
    after: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}
