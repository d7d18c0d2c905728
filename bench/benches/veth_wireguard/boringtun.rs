//! The tunnel program that boringtun's authors make of their library: no package has it, and their crate brings more.

use boringtun::device::{DeviceConfig, DeviceHandle};
use std::process::ExitCode;

/// What makes the benchmark this program: it runs itself in a gateway's namespace with this and the name of a device.
pub const FLAG: &str = "--boringtun";

/// Makes a TUN device of that name, and carries packets until it is killed.
pub fn run(device: &str) -> ExitCode {
    match DeviceHandle::new(device, DeviceConfig::default()) {
        Ok(mut handle) => {
            handle.wait();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("boringtun: {error}");
            ExitCode::FAILURE
        }
    }
}
