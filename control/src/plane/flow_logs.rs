//! Flow logs in the plane: a thread of their own adds up what workers report.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use classifier::compiler::Counter;
use classifier::report::{Fate, Stages};

use super::{DataPlane, Shared, State};
use crate::flow_logs::{DecidedPath, Deciders, Limits};

/// How often reports are taken.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks the state only for what has to be asked, and holds it no longer.
struct Asking<'a>(&'a Shared);

impl Deciders for Asking<'_> {
    fn version(&mut self) -> u64 {
        self.0.lock().policy.version()
    }

    fn name(&mut self, stages: &Stages, fate: Fate) -> DecidedPath {
        self.0.lock().policy.name(stages, fate)
    }

    fn credit(&mut self, carried: &[(Counter, u64, u64)]) {
        self.0.lock().credit(carried);
    }
}

/// Starts the thread, which ends with the plane.
pub(super) fn start(shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let shared = shared.clone();
    let (logs, clock) = {
        let state = shared.lock();
        (state.flow_logs.clone(), state.clock)
    };
    let log = move || {
        while !shared.stop.load(Ordering::Relaxed) {
            logs.turn(clock.now_ns(), wall_ms(), &mut Asking(&shared));
            std::thread::park_timeout(PAUSE);
        }
    };
    std::thread::Builder::new().name("flow-logs".to_owned()).spawn(log)
}

fn wall_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_1970.unwrap_or_default().as_millis() as u64
}

impl State {
    fn credit(&mut self, carried: &[(Counter, u64, u64)]) {
        self.policy.set_now_ns(self.now_ns());
        self.policy.credit(carried);
    }

    /// What the thread does, where none runs. The time since 1970 is then that of the plane.
    pub(super) fn log_flows(&mut self) {
        let (logs, now_ns) = (self.flow_logs.clone(), self.now_ns());
        self.policy.set_now_ns(now_ns);
        logs.turn(now_ns, now_ns / 1_000_000, &mut self.policy);
    }
}

impl State {
    /// The last of the flow logs, when no worker tells of more.
    pub(super) fn finish_flow_logs(&mut self) {
        let (logs, now_ns) = (self.flow_logs.clone(), self.now_ns());
        self.policy.set_now_ns(now_ns);
        logs.finish(now_ns, wall_ms(), &mut self.policy);
    }
}

impl DataPlane {
    /// Writes flow logs to a file, too.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_flow_logs(&self, path: &Path) -> io::Result<()> {
        let logs = self.shared.lock().flow_logs.clone();
        logs.write_to(path, Limits::default())
    }
}
