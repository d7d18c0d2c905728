//! Golden captures: each folder of `testbed/golden` holds `resources.yaml` with ports of driver `pcap`, what comes in by
//! them (`PORT.pcap`), and what has to go out (`PORT.out.pcap`). `UPDATE_GOLDEN=1` writes the latter anew, and the inputs
//! that `inputs.rs` makes.

mod inputs;

use std::path::{Path, PathBuf};
use std::time::Duration;

use testbed::{Plane, golden};

/// Long enough for a neighbour that does not answer to fail.
const TIME: Duration = Duration::from_secs(5);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn update() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1")
}

/// Runs the captures of a folder through the plane in a folder of their own, which holds the output then.
fn run(name: &str, work: &Path) {
    let from = folder().join(name);
    for entry in std::fs::read_dir(&from).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        if file.ends_with(".pcap") && !file.ends_with(".out.pcap") {
            std::fs::copy(&path, work.join(file)).unwrap();
        }
    }
    let yaml = std::fs::read_to_string(from.join("resources.yaml")).unwrap();
    // The captures stand beside the resources; the plane wants to know where that is.
    let yaml = yaml.replace("device: ", &format!("device: {}/", work.display()));
    let mut plane = Plane::new(&yaml).unwrap_or_else(|error| panic!("{name}: {error}"));
    plane.settle();
    plane.advance(TIME);
}

#[test]
fn what_goes_out_is_what_it_was() {
    check_inputs();
    let names = inputs::all().into_iter().map(|(name, _)| name.to_owned());
    let present: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names.clone().all(|name| present.contains(&name)),
        "a folder is missing: {present:?}"
    );
    let mut failures = vec![];
    for name in &present {
        let work = tempfile::tempdir().unwrap();
        run(name, work.path());
        let mut outputs = 0;
        for entry in std::fs::read_dir(work.path()).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap().to_owned();
            if !file.ends_with(".out.pcap") {
                continue;
            }
            outputs += 1;
            let expected = folder().join(name).join(&file);
            let came = golden::read(&path).unwrap();
            if update() {
                golden::write(&expected, &came).unwrap();
            }
            let wanted = golden::read(&expected).unwrap_or_default();
            if let Err(difference) = golden::compare(&wanted, &came) {
                failures.push(format!("{}: {difference}", expected.display()));
            }
        }
        assert!(outputs > 0, "{name} has no port of driver pcap");
    }
    assert!(
        failures.is_empty(),
        "{}\nUPDATE_GOLDEN=1 makes it the expected",
        failures.join("\n")
    );
}

/// Checks the inputs that the code makes, or writes them.
fn check_inputs() {
    for (name, ports) in inputs::all() {
        for (port, packets) in ports {
            let path = folder().join(name).join(format!("{port}.pcap"));
            if update() {
                golden::write(&path, &packets).unwrap();
            }
            let there = golden::read(&path).unwrap();
            golden::compare(&packets, &there).unwrap_or_else(|difference| panic!("{name}/{port}: {difference}"));
        }
    }
}
