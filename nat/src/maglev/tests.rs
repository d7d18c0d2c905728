use super::*;
use proptest::prelude::*;

fn backend(n: u32) -> Backend {
    Backend {
        id: sip([7, 7], &[u64::from(n)]),
        number: n,
        weight: 1,
    }
}

fn owners(maglev: &mut Maglev) -> Vec<u32> {
    maglev.table().slots().to_vec()
}

/// Slots of each backend.
fn shares(maglev: &mut Maglev, backends: usize) -> Vec<usize> {
    let mut shares = vec![0; backends];
    owners(maglev).into_iter().for_each(|owner| shares[owner as usize] += 1);
    shares
}

/// Root mean square of the deviation, and the largest, as parts of the mean.
fn deviation(shares: &[usize]) -> (f64, f64) {
    let mean = shares.iter().sum::<usize>() as f64 / shares.len() as f64;
    let off = shares.iter().map(|share| (*share as f64 / mean - 1.0).abs());
    let square = off.clone().map(|off| off * off).sum::<f64>() / shares.len() as f64;
    (square.sqrt(), off.fold(0.0, f64::max))
}

#[test]
fn backends_have_even_shares() {
    for (count, usual, most) in [
        (1, 0.0, 0.0),
        (3, 0.01, 0.01),
        (64, 0.03, 0.07),
        (100, 0.05, 0.07),
        (256, 0.03, 0.07),
        (257, 0.06, 0.25),
        (10_000, 0.05, 0.25),
    ] {
        let mut maglev = Maglev::new((0..count).map(backend));
        let shares = shares(&mut maglev, count as usize);
        let slots: usize = shares.iter().sum();
        let (square, largest) = deviation(&shares);
        println!("{count}: {square:.4}, at most {largest:.4}, {slots} slots");
        assert!(slots >= 10 * count as usize, "{slots} slots of {count}");
        assert!(
            square <= usual && largest <= most,
            "{count}: {square}, at most {largest}"
        );
    }
}

#[test]
fn one_change_moves_the_slots_of_one() {
    let count = 10_000;
    let mut maglev = Maglev::new((0..count).map(backend));
    let before = owners(&mut maglev);
    let mut beyond = vec![];
    for n in [3, 4_000, 9_999] {
        maglev.remove(backend(n).id);
        let after = owners(&mut maglev);
        let moved = before.iter().zip(&after).filter(|(was, is)| was != is);
        let (own, others): (Vec<_>, Vec<_>) = moved.partition(|(was, _)| **was == n);
        assert!(own.len() > 50 && !after.contains(&n));
        beyond.push(others.len() as f64 / before.len() as f64);
        maglev.set(backend(n));
        assert_eq!(owners(&mut maglev), before, "as if nothing had been");
    }
    println!("moved beyond its own: {beyond:?}");
    assert!(beyond.iter().all(|part| *part <= 0.001), "{beyond:?}");
}

#[test]
fn weights_are_shares() {
    let weights = [1, 2, 3, 10, 0, 100];
    let mut maglev = Maglev::new((0..6).map(|n| Backend {
        weight: weights[n as usize],
        ..backend(n)
    }));
    let total = weights.iter().sum::<u32>() as f64;
    let slots = maglev.table().slots().len();
    for (share, weight) in shares(&mut maglev, 6).into_iter().zip(weights) {
        let wanted = f64::from(weight) / total * slots as f64;
        assert!((share as f64 - wanted).abs() <= 5.0, "{share} for {wanted}");
    }
    // In many rows: each tenth weighs three times as much.
    let heavy = |n: u32| n.is_multiple_of(10);
    let mut maglev = Maglev::new((0..2_000).map(|n| Backend {
        weight: if heavy(n) { 3 } else { 1 },
        ..backend(n)
    }));
    let shares = shares(&mut maglev, 2_000);
    let of_heavy: usize = (0..2_000).filter(|n| heavy(*n)).map(|n| shares[n as usize]).sum();
    let part = of_heavy as f64 / maglev.table().slots().len() as f64;
    assert!((part - 600.0 / 2_400.0).abs() < 0.01, "{part}");
}

#[test]
fn nobody_is_chosen_of_none() {
    let mut maglev = Maglev::new([]);
    assert_eq!(maglev.table().choose(5), None);
    maglev.remove(5);
    maglev.set(backend(1));
    assert!(
        [0, 1 << 32, u64::MAX]
            .iter()
            .all(|hash| maglev.table().choose(*hash) == Some(1))
    );
    maglev.set(Backend {
        weight: 0,
        ..backend(1)
    });
    assert_eq!((maglev.table().choose(5), maglev.is_empty()), (None, true));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

    /// Equal on every node: whatever came and went before, and in which order.
    #[test]
    fn only_who_is_there_counts(
        steps in prop::collection::vec((0u32..300, 0u32..4, any::<bool>()), 0..900),
    ) {
        let mut maglev = Maglev::default();
        let mut there = HashMap::new();
        for (n, weight, asked) in steps {
            let new = Backend { weight, ..backend(n) };
            maglev.set(new);
            there.insert(n, new);
            if asked {
                let _ = maglev.table();
            }
        }
        let mut fresh = Maglev::new(there.values().copied());
        prop_assert_eq!(owners(&mut maglev), owners(&mut fresh));
        let expected = there.values().filter(|backend| backend.weight > 0).count();
        prop_assert_eq!(maglev.len(), expected);
    }
}
