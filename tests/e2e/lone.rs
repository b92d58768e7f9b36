//! One pod with a sidecar that may never become ready, beside one outside. Without peers.

use anyhow::Result;
use harness::mesh::registry::Registry;
use harness::mesh::{Control, Options, RegistryFile};
use harness::pod::Pod;
use harness::{Fabric, Sidecar};

/// A pod beside one outside, with a sidecar that cannot become ready.
pub(crate) struct Lone {
    pub(crate) sidecar: Sidecar,
    pub(crate) pod: Pod,
    pub(crate) outside: Pod,
    pub(crate) control: Control,
    _fabric: Fabric,
}

impl Lone {
    pub(crate) fn new(kind: &str, options: &Options) -> Result<Self> {
        let fabric = Fabric::new(kind)?;
        let (pod, outside) = (fabric.pod("server")?, fabric.pod("outside")?);
        let mut registry = Registry::default();
        registry.add_member(&pod, &options.service_account, &[]);
        let registry = RegistryFile::create(fabric.scratch().join("registry.yaml"), registry)?;
        let control = Control::start(&fabric)?;
        let sidecar = Sidecar::start_unready(&pod, &control, &registry, options)?;
        Ok(Self {
            sidecar,
            pod,
            outside,
            control,
            _fabric: fabric,
        })
    }
}
