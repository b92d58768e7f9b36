//! Compiles the BPF programs, so that `datapath` can include the object from `OUT_DIR`.

#[path = "build/bpf.rs"]
mod bpf;

fn main() {
    let package = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = package.parent().expect("a member of the workspace");
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));

    for input in [
        "build",
        "../sidecar-ebpf/src",
        "../sidecar-ebpf/Cargo.toml",
        "../Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={input}");
    }
    for variable in [bpf::OBJECT, bpf::TOOLCHAIN, "PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }

    if let Err(error) = bpf::provide(workspace, &out) {
        for line in error.lines() {
            println!("cargo::error={line}");
        }
    }
}
