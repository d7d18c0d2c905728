//! Sets against a list of members, and what happens when their memory is full.

use classifier::packet::{Packet, VECTOR};
use classifier::program::ChainId;
use classifier::rule::{IpVersion, SetId};
use classifier::sets::{Capacity, Change, Class, Kind, Member, SetError, Sets};
use fastpath::meta::Endpoint;
use fastpath::qsbr::Qsbr;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Numbers that look random (xorshift64*), the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % end
    }

    fn address(&mut self) -> IpAddr {
        match self.below(2) {
            0 => Ipv4Addr::from(0x0a00_0000 + (self.below(4) * 256 + self.below(8)) as u32).into(),
            _ => Ipv6Addr::from((0x2001_0db8 << 96) + (u128::from(self.below(4)) << 64) + u128::from(self.below(8)))
                .into(),
        }
    }

    fn network(&mut self) -> IpNet {
        match self.address() {
            IpAddr::V4(address) => {
                let length = [0, 8, 22, 24, 29, 30, 31, 32, 32, 32][self.below(10) as usize];
                Ipv4Net::new_assert(address, length).trunc().into()
            }
            IpAddr::V6(address) => {
                let length = [0, 32, 62, 64, 65, 125, 127, 128, 128, 128][self.below(10) as usize];
                Ipv6Net::new_assert(address, length).trunc().into()
            }
        }
    }

    fn change(&mut self, sets: &[SetId]) -> Change {
        Change {
            set: sets[self.below(sets.len() as u64) as usize],
            member: Member::Network(self.network()),
            present: self.below(5) < 3,
        }
    }
}

fn new(prefix_bytes: usize, class_bytes: usize) -> (Sets, Arc<Qsbr>) {
    let qsbr = Arc::new(Qsbr::new(1));
    let capacity = Capacity {
        prefix_bytes,
        class_bytes,
    };
    (Sets::new(capacity, qsbr.clone()).unwrap(), qsbr)
}

/// Compares what every address in use is in with the list.
fn check(sets: &Sets, names: &[SetId], model: &HashSet<(SetId, IpNet)>) {
    let v4 = (0..64u32).map(|i| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + i / 8 * 256 + i % 8)));
    let v6 = (0..64u128).map(|i| IpAddr::from(Ipv6Addr::from((0x2001_0db8 << 96) + ((i / 8) << 64) + i % 8)));
    let addresses: Vec<IpAddr> = v4.chain(v6).collect();
    let packets: Vec<Packet> = addresses.iter().map(|address| from(*address)).collect();
    let (view, mut classes) = (sets.view(), [[Class::default(); 2]; VECTOR]);
    view.resolve(&packets, &mut classes);
    for (address, [source, target]) in addresses.iter().zip(classes) {
        for set in names {
            let wanted = model
                .iter()
                .any(|(name, network)| name == set && network.contains(address));
            assert_eq!(view.memory().has(source, set.0), wanted, "{address} in {set:?}");
        }
        assert!(view.memory().has(target, 0) && !view.memory().has(target, 9999));
    }
}

fn from(address: IpAddr) -> Packet {
    let end = match address {
        IpAddr::V4(address) => Endpoint::v4(address.octets(), 1),
        IpAddr::V6(address) => Endpoint {
            address: address.octets(),
            port: 1,
        },
    };
    Packet {
        source: end,
        target: end,
        protocol: 6,
        version: if address.is_ipv4() {
            IpVersion::V4
        } else {
            IpVersion::V6
        },
        chain: ChainId(1),
    }
}

#[test]
fn an_address_is_in_the_sets_whose_prefixes_hold_it() {
    let (mut sets, qsbr) = new(4 << 20, 4 << 20);
    let names: Vec<SetId> = (0..70).map(|_| sets.create(Kind::Networks).unwrap()).collect();
    let mut numbers = Numbers(5);
    let mut model = HashSet::new();
    qsbr.online(0);
    for round in 0..600 {
        let changes: Vec<Change> = (0..1 + numbers.below(4)).map(|_| numbers.change(&names)).collect();
        sets.apply(&changes).unwrap();
        for change in &changes {
            let Member::Network(network) = change.member else {
                unreachable!()
            };
            match change.present {
                true => model.insert((change.set, network)),
                false => model.remove(&(change.set, network)),
            };
        }
        qsbr.turn(0);
        if round % 10 == 0 {
            check(&sets, &names, &model);
        }
    }
    let gone: Vec<Change> = model
        .drain()
        .map(|(set, network)| Change {
            set,
            member: Member::Network(network),
            present: false,
        })
        .collect();
    sets.apply(&gone).unwrap();
    check(&sets, &names, &model);
    assert_eq!((sets.prefixes(), sets.classes()), (0, 0));
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let (mut sets, _) = new(1 << 20, 1 << 12);
    let names: Vec<SetId> = (0..200).map(|_| sets.create(Kind::Networks).unwrap()).collect();
    let mut numbers = Numbers(9);
    let mut model = HashSet::new();
    let mut refused = 0;
    for _ in 0..400 {
        let changes: Vec<Change> = (0..3)
            .map(|_| Change {
                present: true,
                ..numbers.change(&names)
            })
            .collect();
        match sets.apply(&changes) {
            Ok(()) => model.extend(changes.iter().map(|change| match change.member {
                Member::Network(network) => (change.set, network),
                Member::Port { .. } => unreachable!(),
            })),
            Err(SetError::Full(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        check(&sets, &names, &model);
    }
    assert!(refused > 0, "the memory never was full");
}

#[test]
fn members_of_the_wrong_kind_are_refused() {
    let (mut sets, _) = new(1 << 20, 1 << 12);
    let ports = sets.create(Kind::Ports).unwrap();
    let change = Change {
        set: ports,
        member: Member::Network("10.0.0.0/8".parse().unwrap()),
        present: true,
    };
    assert!(matches!(sets.apply(&[change]), Err(SetError::WrongKind(..))));
    let missing = Change {
        set: SetId(77),
        ..change
    };
    let error = sets.apply(&[missing]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no set SetId(77): create it before its members"
    );
}

#[test]
fn the_members_of_a_removed_set_go_when_no_worker_needs_them() {
    let (mut sets, qsbr) = new(4 << 20, 4 << 20);
    let set = sets.create(Kind::Networks).unwrap();
    let network: IpNet = "10.0.0.0/29".parse().unwrap();
    let change = Change {
        set,
        member: Member::Network(network),
        present: true,
    };
    sets.apply(&[change]).unwrap();
    qsbr.online(0);
    sets.remove(set);
    assert!(!sets.is(set, Kind::Networks));
    assert!(sets.reclaim(), "the worker is in its turn");
    check(&sets, &[set], &HashSet::from([(set, network)]));
    qsbr.turn(0);
    assert!(!sets.reclaim());
    check(&sets, &[set], &HashSet::new());
    assert_eq!(sets.create(Kind::Ports), Ok(set));
}
