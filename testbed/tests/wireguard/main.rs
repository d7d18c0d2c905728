//! Tunnels in the product's own graph, in simulated time and without root: what goes in at one end comes out at the
//! other, once, in order and unchanged, and nothing else does.

mod capture;
mod errors;
mod gateway;
mod hostile;
mod paths;
mod random;
mod sessions;

use gateway::{Gateway, SECOND, Settings, mac, outside};

/// Gateways on one wire.
pub(crate) struct World {
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) now: u64,
    /// Every frame that was on the wire.
    pub(crate) wire: Vec<Vec<u8>>,
}

impl World {
    /// Gateways 1 to `count`, who do not know each other.
    pub(crate) fn of(count: u8, settings: Settings) -> Self {
        Self {
            gateways: (1..=count).map(|number| Gateway::new(number, settings)).collect(),
            now: SECOND,
            wire: vec![],
        }
    }

    /// Gateways 1 and 2; only 1 knows where the other is. `is_v4` is outside.
    pub(crate) fn pair(is_v4: bool) -> Self {
        Self::pair_with(is_v4, Settings::default())
    }

    pub(crate) fn pair_with(is_v4: bool, settings: Settings) -> Self {
        let mut world = Self::of(2, settings);
        world.gateways[0].add(2, Some(outside(2, is_v4)), &[]);
        world.gateways[1].add(1, None, &[]);
        world
    }

    /// A pair that has a session, and a wire on which nothing was seen yet.
    pub(crate) fn established(is_v4: bool, settings: Settings) -> Self {
        let mut world = Self::pair_with(is_v4, settings);
        for inner in [true, false] {
            world.gateways[0].send(&paths::packet(1, 2, inner, 100));
        }
        world.settle();
        assert_eq!(world.gateways[1].received().len(), 2, "{:?}", world.drops());
        world.wire.clear();
        world
    }

    /// Turns all of them and carries frames until nothing moves.
    pub(crate) fn settle(&mut self) {
        for _ in 0..1000 {
            let mut moved = 0;
            for gateway in &mut self.gateways {
                moved += gateway.turn(self.now);
            }
            moved += self.carry();
            if moved == 0 {
                return;
            }
        }
        panic!("they do not come to rest");
    }

    /// Takes what is on the wire to whom it is sent to.
    pub(crate) fn carry(&mut self) -> usize {
        let frames = self.frames();
        for frame in &frames {
            let target = self
                .gateways
                .iter()
                .find(|gateway| frame[..6] == mac(gateway.number, 1));
            target.expect("it is sent to a gateway").hear(frame);
        }
        frames.len()
    }

    /// Takes frames off the wire.
    pub(crate) fn frames(&mut self) -> Vec<Vec<u8>> {
        let gateways = self.gateways.iter();
        let frames: Vec<Vec<u8>> = gateways
            .flat_map(|gateway| gateway.outside.receive.try_iter())
            .collect();
        self.wire.extend_from_slice(&frames);
        frames
    }

    pub(crate) fn drops(&self) -> Vec<String> {
        let of = |gateway: &Gateway| format!("{}: {:?}", gateway.number, gateway.drops());
        self.gateways.iter().map(of).collect()
    }
}
