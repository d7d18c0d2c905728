//! Skipping a test by name, with a sentence, where the machine cannot run it.

use std::io::Write;

/// Says why namespaces cannot be made here, or nothing when they can.
pub fn need_root() -> Option<String> {
    (!rustix::process::geteuid().is_root()).then(|| "needs root to make network namespaces".to_owned())
}

/// Names the programs that are missing here, or nothing when all are there.
pub fn need_programs(programs: &[&str]) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let missing: Vec<_> = programs
        .iter()
        .copied()
        .filter(|name| !folders.iter().any(|f| f.join(name).exists()))
        .collect();
    (!missing.is_empty()).then(|| format!("needs {}; testbed/install-deps.sh installs it", missing.join(", ")))
}

/// Writes `skipped NAME: REASON` to standard error, past the capture of the test harness.
///
/// NAME is the running test's: the harness names a test's thread after it.
pub fn announce(reason: &str) {
    let thread = std::thread::current();
    let line = format!("skipped {}: {reason}\n", thread.name().unwrap_or("main"));
    // Nobody to tell when standard error is closed.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Leaves the test, saying why: `skip!("needs a NIC")`, or `skip!(return Ok(()), "needs a NIC")` where a test returns a value.
#[macro_export]
macro_rules! skip {
    (return $value:expr, $($reason:tt)+) => {{
        $crate::skip::announce(&format!($($reason)+));
        return $value;
    }};
    ($($reason:tt)+) => {{
        $crate::skip::announce(&format!($($reason)+));
        return;
    }};
}

/// Leaves a test that returns nothing unless it runs as root and has the programs: `need!("ping", "iperf3")`.
#[macro_export]
macro_rules! need {
    ($($program:expr),* $(,)?) => {
        if let Some(reason) = $crate::need_root().or_else(|| $crate::need_programs(&["ip", "ethtool", $($program),*])) {
            $crate::skip!("{reason}");
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_and_a_present_one_is_not() {
        let reason = need_programs(&["sh", "no-such-program"]).expect("one is missing");
        assert!(
            reason.contains("no-such-program") && !reason.contains("sh,"),
            "{reason}"
        );
        assert_eq!(need_programs(&["sh"]), None);
    }

    #[test]
    fn skipping_leaves_with_the_value() {
        fn test() -> Result<u8, String> {
            skip!(return Ok(7), "the {} of skipping", "test");
        }
        assert_eq!(test(), Ok(7));
    }
}
