//! Captures: one at a time, armed on every worker.

use std::sync::Weak;
use std::time::{Duration, SystemTime};

use fastpath::capture::{Capture, Catch};
use fastpath::worker::Command;

use super::State;
use super::trace::filter;
use crate::capture::{CaptureRequest, Capturing, Scene};
use crate::refusal::Refusal;

/// The capture that somebody reads, if there is one.
#[derive(Default)]
pub(super) struct Armed(Weak<()>);

impl State {
    /// Arms a capture; `disarm` is called when it ends, and has to call [`State::disarm_capture`].
    pub(super) fn arm_capture(
        &mut self,
        request: &CaptureRequest,
        disarm: impl FnOnce() + Send + 'static,
    ) -> Result<Capturing, Refusal> {
        if self.armed.0.strong_count() > 0 {
            return Err(Refusal::new(
                "a capture is running already; end it first, or give it a --count",
            ));
        }
        if request.count == Some(0) {
            return Err(Refusal::new("cannot capture 0 packets; expected at least 1"));
        }
        // One program for each worker, for it is not shared.
        let filters = self.workers.handles.iter().map(|_| filter(&request.filter));
        let mut filters = filters.collect::<Result<Vec<_>, _>>()?;
        let catch = Catch::new(request.count.unwrap_or(u64::MAX));
        let capturing = Capturing::new(catch.clone(), self.scene(), disarm);
        self.armed = Armed(capturing.reader());
        self.workers.ask_all(|| {
            let filter = filters.pop().flatten();
            Command::Capture(Some(Capture::new(request.place.into(), filter, catch.clone())))
        });
        Ok(capturing)
    }

    /// Ends the capture.
    pub(super) fn disarm_capture(&mut self) {
        self.armed = Armed::default();
        self.workers.ask_all(|| Command::Capture(None));
    }

    fn scene(&self) -> Scene {
        let stages = self.workers.handles.first().map(|handle| handle.stages.clone());
        let since_1970 = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let ports = &self.interfaces.current().ports;
        Scene {
            ports: ports
                .iter()
                .map(|port| port.as_ref().map(|port| port.name.clone()))
                .collect(),
            stages: stages.unwrap_or_else(|| [].into()),
            epoch: since_1970.saturating_sub(Duration::from_nanos(self.now_ns())),
        }
    }
}
