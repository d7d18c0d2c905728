//! The machine that was measured.

use fastpath::clock;
use std::process::Command;
use std::time::{Duration, Instant};

/// What figures depend on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The day, as in 2026-08-31.
    pub date: String,
    /// Model of the processor.
    pub processor: String,
    /// Cores.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// Megahertz of the time-stamp counter.
    pub tsc_mhz: f64,
    /// What is said of huge pages.
    pub huge_pages: String,
    /// Programs that ran or wanted to, on average over the last 1, 5 and 15 minutes: who else was there.
    pub load: String,
}

impl Machine {
    /// This one. What cannot be found out is called unknown.
    pub fn this() -> Self {
        let date = Command::new("date").arg("+%F").output();
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            load: load.split(' ').take(3).collect::<Vec<_>>().join(", "),
            date: date.map_or_else(
                |_| "undated".to_owned(),
                |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            ),
            processor: line_of("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned()),
            tsc_mhz: tsc_mhz(),
            huge_pages: format!(
                "transparent {}, {} reserved",
                std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
                    .map_or_else(|_| "unknown".to_owned(), |text| chosen(&text)),
                line_of("/proc/meminfo", "HugePages_Total")
            ),
        }
    }

    /// Its processor in letters, digits and hyphens, for a file's name.
    pub fn slug(&self) -> String {
        let lower = self.processor.to_lowercase();
        let words = lower.split(|letter: char| !letter.is_ascii_alphanumeric());
        words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
    }
}

/// What follows the colon on the line that starts so.
fn line_of(file: &str, start: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(start));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
}

/// The word in brackets.
fn chosen(text: &str) -> String {
    let word = text.split(['[', ']']).nth(1);
    word.unwrap_or("unknown").to_owned()
}

fn tsc_mhz() -> f64 {
    let (start, before) = (Instant::now(), clock::cycles());
    std::thread::sleep(Duration::from_millis(200));
    let cycles = clock::cycles() - before;
    cycles as f64 / start.elapsed().as_micros() as f64
}
