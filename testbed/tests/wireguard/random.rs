//! Random packets through a tunnel come out as they went in, but for their hops.

use proptest::prelude::*;

use super::World;
use super::gateway::{MTU, Settings, host};
use super::paths::{header, hopped, pass};

#[derive(Clone, Debug)]
struct Any {
    is_v4: bool,
    back: bool,
    class: u8,
    hops: u8,
    protocol: u8,
    payload: Vec<u8>,
}

fn any() -> impl Strategy<Value = Any> {
    // Protocols without a header that `parse` knows: any payload is right.
    let protocol = prop_oneof![Just(47u8), Just(50), Just(89), Just(253)];
    let payload = prop::collection::vec(any_byte(), 0..usize::from(MTU) - 40);
    (any_bool(), any_bool(), any_byte(), 3..=255u8, protocol, payload).prop_map(
        |(is_v4, back, class, hops, protocol, payload)| Any {
            is_v4,
            back,
            class,
            hops,
            protocol,
            payload,
        },
    )
}

fn any_byte() -> impl Strategy<Value = u8> {
    proptest::arbitrary::any::<u8>()
}

fn any_bool() -> impl Strategy<Value = bool> {
    proptest::arbitrary::any::<bool>()
}

impl Any {
    fn packet(&self) -> Vec<u8> {
        let (from, to) = if self.back { (2, 1) } else { (1, 2) };
        let mut packet = testbed::packets::ip(
            host(from, self.is_v4),
            host(to, self.is_v4),
            self.protocol,
            self.hops,
            &self.payload,
        );
        if self.is_v4 {
            packet[1] = self.class;
            testbed::packets::fix_v4(&mut packet);
        } else {
            (packet[0], packet[1]) = (0x60 | self.class >> 4, self.class << 4);
        }
        assert!(packet.len() <= usize::from(MTU) && packet.len() >= header(self.is_v4));
        packet
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_goes_in_comes_out(outer in any_bool(), all in prop::collection::vec(any(), 1..200)) {
        let mut world = World::established(outer, Settings::default());
        for (from, to) in [(1, 2), (2, 1)] {
            let sent: Vec<Vec<u8>> = all.iter().filter(|one| one.back == (from == 2)).map(Any::packet).collect();
            let expected: Vec<Vec<u8>> = sent.iter().map(|packet| hopped(packet.clone(), 2)).collect();
            prop_assert!(pass(&mut world, from, to, &sent) == expected, "{:?}", world.drops());
        }
    }
}
