//! From the validated configuration to the words that the programs read. Pure.

use std::net::IpAddr;

use bytemuck::Zeroable;
use sidecar_ebpf::abi::{ABI_VERSION, MAX_ADDRESSES, MAX_OPEN_PORTS, Settings};
use sidecar_ebpf::addr::{Ip, Port};

use super::{Config, Error};

pub(super) fn settings(config: &Config) -> Result<Settings, Error> {
    let mut settings = Settings {
        abi: ABI_VERSION,
        strict: config.strict.into(),
        outbound_port: Port::new(config.outbound_port),
        inbound_port: Port::new(config.inbound_port),
        ..Settings::zeroed()
    };
    let ports = config.open_ports.iter().map(|port| Port::new(*port));
    fill("open ports", &mut settings.open_ports, MAX_OPEN_PORTS, ports)?;
    let addresses = config.pod_addresses.iter().map(|ip| kernel_ip(*ip));
    fill("pod addresses", &mut settings.addresses, MAX_ADDRESSES, addresses)?;
    Ok(settings)
}

fn fill<T>(
    field: &'static str,
    slots: &mut [T],
    max: usize,
    values: impl ExactSizeIterator<Item = T>,
) -> Result<(), Error> {
    let given = values.len();
    if given > max {
        return Err(Error::TooMany { field, given, max });
    }
    slots
        .iter_mut()
        .zip(values)
        .for_each(|(slot, value)| *slot = value);
    Ok(())
}

fn kernel_ip(ip: IpAddr) -> Ip {
    Ip::from_octets(match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    })
}
