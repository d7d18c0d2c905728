//! The data plane with threads of its own and ports of driver `memory`: for what happens at the same time.

use std::sync::Arc;

use control::intent::Intent;
use control::plane::{DataPlane, PlaneOptions};
use control::program::services::Place;
use control::resource::{Source, read, read_keys};
use control::store::Request;
use fastpath::port::memory::MemoryEnd;
use fastpath::worker::Idle;

use crate::Error;
use crate::plane::{FLOWS, FRAMES, failed, refused};

/// A plane that runs, and its resources.
pub struct Running {
    plane: Arc<DataPlane>,
    intent: Intent,
}

impl Running {
    /// A plane of one worker with these resources. It is pinned to `core` and never sleeps, where one is named.
    pub fn new(yaml: &str, core: Option<usize>) -> Result<Self, Error> {
        let options = PlaneOptions {
            flows: FLOWS,
            frames: FRAMES,
            cores: vec![core],
            idle: if core.is_some() { Idle::Spin } else { Idle::Adaptive },
            place: Place::default(),
        };
        let plane = Arc::new(DataPlane::start(&options).map_err(|error| failed(&error))?);
        let this = Self {
            intent: Intent::new(plane.clone()),
            plane,
        };
        this.apply(yaml)?;
        Ok(this)
    }

    /// Applies resources, as `margay apply` does: they are in force when this returns.
    pub fn apply(&self, yaml: &str) -> Result<(), Error> {
        let documents = read(&[Source::file("resources.yaml", yaml)]).map_err(|refusal| refused(&refusal))?;
        self.carry_out(Request::Apply(documents))
    }

    /// Deletes resources, as `margay delete` does.
    pub fn delete(&self, yaml: &str) -> Result<(), Error> {
        let named = read_keys(&[Source::file("resources.yaml", yaml)]).map_err(|refusal| refused(&refusal))?;
        self.carry_out(Request::Delete(named))
    }

    fn carry_out(&self, request: Request) -> Result<(), Error> {
        self.intent.carry_out(request).map_err(|refusal| refused(&refusal))?;
        Ok(())
    }

    /// The plane itself. When it goes, so does what runs.
    pub fn plane(&self) -> &DataPlane {
        &self.plane
    }

    /// The other end of a port's cable.
    pub fn end(&self, port: &str) -> MemoryEnd {
        let end = self.plane.memory_end(port);
        end.unwrap_or_else(|| panic!("there is no port `{port}` of driver memory"))
    }
}
