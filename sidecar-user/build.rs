//! Compiles the BPF programs, so that `datapath` can include the object from `OUT_DIR`.

#[path = "build/bpf.rs"]
mod bpf;

fn main() {
    let package = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = package.parent().expect("a member of the workspace");
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));

    // What the dynamic linker adds the program's address to takes 24 bytes each otherwise, 1.5 MB in all. glibc 2.36 reads the short form.
    if std::env::var_os("PROFILE").is_some_and(|profile| profile == "release") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }

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
