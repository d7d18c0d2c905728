//! The peer: a C program beside this file, built against DPDK where that is installed.

use bench::report::record;
use bench::spread::Spread;
use std::path::PathBuf;
use std::process::Command;

/// Measures lookups of keys as long as ours and of 16 bytes; says why not, where it cannot.
pub fn measure(table: &str, connections: u32) {
    let found = build().and_then(|program| run(&program, connections));
    match found {
        Err(reason) => println!("skipped rte_hash: {reason}"),
        Ok(rows) => {
            for (bytes, value) in rows {
                let scenario = format!("DPDK rte_hash, keys of {bytes} bytes, {} keys", 2 * connections);
                record(table, &scenario, "cycles a lookup", value);
            }
        }
    }
}

fn build() -> Result<PathBuf, String> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/flows/rte_hash.c");
    let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("rte_hash");
    let flags = output(Command::new("pkg-config").args(["--cflags", "--libs", "libdpdk"]))
        .map_err(|_| "no DPDK; bench/install-peers.sh brings it".to_owned())?;
    let mut compiler = Command::new("cc");
    compiler
        .args(["-O3", "-march=native", source, "-o"])
        .arg(&program)
        .args(flags.split_whitespace());
    output(&mut compiler).map(|_| program)
}

/// Cycles of each run by the length of keys: the program prints lines of both.
fn run(program: &PathBuf, connections: u32) -> Result<Vec<(u32, Spread)>, String> {
    let text = output(Command::new(program).arg((2 * u64::from(connections)).to_string()))?;
    let rows = text.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<f64>);
        let bytes = numbers.next()?.ok()? as u32;
        let cycles: Vec<f64> = numbers.collect::<Result<_, _>>().ok()?;
        (!cycles.is_empty()).then(|| (bytes, Spread::of(cycles)))
    });
    Ok(rows.collect())
}

fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name}: {}", said.lines().last().unwrap_or("failed")))
}
