//! Compiles the XDP program of ports that leave what they do not claim to the kernel.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "src/port/xdp/claims.bpf.c";

fn main() {
    println!("cargo:rerun-if-changed={SOURCE}");
    let variable = |name| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let object = PathBuf::from(variable("OUT_DIR")).join("claims.bpf.o");
    // Debian keeps the kernel's <asm/types.h> in a folder per architecture, where clang does not look for this target.
    let headers = format!("-I/usr/include/{}-linux-gnu", variable("CARGO_CFG_TARGET_ARCH"));
    let status = Command::new("clang")
        .args([
            "-target", "bpf", "-O2", "-g", "-Wall", "-Werror", &headers, "-c", SOURCE, "-o",
        ])
        .arg(&object)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("clang cannot compile {SOURCE} ({status}): see what it says above"),
        Err(error) => panic!("cannot run clang ({error}): testbed/install-deps.sh installs it"),
    }
}
