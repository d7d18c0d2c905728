//! Writes `bench/results/DATE-PROCESSOR.md` and its chart from what the benchmarks found. `make bench` ends with it.

use bench::chart::{Panel, draw};
use bench::machine::Machine;
use bench::report::{Row, rows_file};
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

/// Cycles a packet of FD.io VPP (August 2026) with its packet generator and huge pages, measured earlier on a machine
/// of 2 vCPU AMD EPYC (Zen 4, time-stamp counter 2.596 GHz).
const VPP: &[(&str, f64)] = &[
    ("IPv4, 1 route, one flow, vectors of 256", 55.0),
    ("IPv4, 1 route, 64 K destinations", 59.0),
    ("IPv4, 500 K routes, random destinations", 262.0),
    ("IPv4, 1 route, one flow, vectors of 16", 173.0),
    ("IPv4, 1 route, one flow, vectors of 1", 1961.0),
];
const VPP_NAME: &str = "VPP (earlier)";

fn main() -> ExitCode {
    match write_report() {
        Ok(path) => {
            println!("{path}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("report: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn write_report() -> Result<String, String> {
    let file = rows_file();
    let text = std::fs::read_to_string(&file)
        .map_err(|error| format!("{}: {error}; run the benchmarks first", file.display()))?;
    let rows: Vec<Row> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{}: {error}", file.display()))?;
    let machine = Machine::this();
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/results"));
    let name = format!("{}-{}", machine.date, machine.slug());
    let write = |extension: &str, content: String| {
        let path = folder.join(format!("{name}.{extension}"));
        std::fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))
    };
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    write("svg", draw(&panels(&rows)))?;
    write("md", markdown(&machine, &rows, &name))?;
    Ok(format!("bench/results/{name}.md"))
}

fn markdown(machine: &Machine, rows: &[Row], name: &str) -> String {
    let mut text = format!(
        "# How fast, {}\n\n{}, {} cores, time-stamp counter {:.0} MHz, Linux {}; huge pages: {}; load average at the end: {}.\n\n\
         Figures are medians, with minimum and maximum of many runs. Machines are shared, and preemption counts as cycles, \
         so compare within one run. VPP's figures are FD.io VPP's (August 2026), measured earlier on this machine type.\n\n\
         ![Ours beside the peers']({name}.svg)\n",
        machine.date,
        machine.processor,
        machine.cores,
        machine.tsc_mhz,
        machine.kernel,
        machine.huge_pages,
        machine.load
    );
    let mut tables: Vec<&str> = vec![];
    for row in rows {
        if !tables.contains(&row.table.as_str()) {
            tables.push(&row.table);
        }
    }
    for table in tables {
        let _ = write!(
            text,
            "\n## {table}\n\n| what | measure | median (minimum-maximum) | VPP, earlier |\n| --- | --- | --- | --- |\n"
        );
        for row in rows.iter().filter(|row| row.table == table) {
            let peer = peer(row).map_or_else(String::new, |cycles| cycles.to_string());
            let _ = writeln!(text, "| {} | {} | {} | {peer} |", row.scenario, row.measure, row.value);
        }
    }
    text
}

/// VPP's figure for the same.
fn peer(row: &Row) -> Option<f64> {
    let same = |known: &&(&str, f64)| row.table == "In the graph" && known.0 == row.scenario;
    VPP.iter().find(same).map(|known| known.1)
}

fn panels(rows: &[Row]) -> Vec<Panel> {
    let graph = |small: bool| Panel {
        title: format!(
            "Forwarding in the graph{}: cycles a packet, less is better (VPP: earlier, this machine type)",
            if small { ", small vectors" } else { "" }
        ),
        groups: rows
            .iter()
            .filter(|row| small == (row.scenario.ends_with("of 16") || row.scenario.ends_with("of 1")))
            .filter_map(|row| {
                let ours = ("Margay".to_owned(), row.value.median);
                Some((row.scenario.clone(), vec![ours, (VPP_NAME.to_owned(), peer(row)?)]))
            })
            .collect(),
    };
    let mut panels = vec![graph(false), graph(true)];
    for (title, unit) in [
        (
            "Over veth: 60-byte UDP forwarded, M packets/s (more is better)",
            "forwarded, M packets/s",
        ),
        (
            "Over veth: TCP of one connection without offloads, Gbit/s (more is better)",
            "Gbit/s",
        ),
        (
            "Over veth: ping through an idle router, microseconds (less is better)",
            "microseconds",
        ),
    ] {
        let figures = rows.iter().filter_map(|row| {
            let who = row.measure.strip_suffix(unit)?.strip_suffix(", ")?;
            Some((who.to_owned(), row.value.median))
        });
        let figures: Vec<_> = figures.collect();
        if !figures.is_empty() {
            panels.push(Panel {
                title: title.to_owned(),
                groups: vec![(String::new(), figures)],
            });
        }
    }
    panels
}
