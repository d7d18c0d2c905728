//! WireGuard on the control core: handshakes a second in both roles, memory a peer, and changes of allowed IPs.
//! `cargo bench -p bench --bench handshake`

use bench::report::record;
use bench::routes::Rng;
use bench::spread::Spread;
use fastpath::fib::{Pages, Pool};
use fastpath::qsbr::Qsbr;
use ipnet::IpNet;
use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wireguard::allowed_ips::AllowedIps;
use wireguard::peer::PeerId;
use wireguard::session::{Ends, Lookup, Notice, single};
use wireguard::tunnel::{Action, Now, PeerConfig, Random, Tunnel};

const TABLE: &str = "WireGuard on the control core";
/// Who asks at a time, and how often each figure is taken.
const ASKERS: usize = 256;
const ROUNDS: u64 = 15;
/// Peers with all the sessions they can have, and allowed IPs.
const PEERS: usize = 1000;
/// Prefixes of a peer.
const PREFIXES: usize = 10;
/// Longer than a session lasts: whoever asked once may ask again.
const PAUSE: Duration = Duration::from_secs(200);

fn main() {
    core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
    handshakes();
    memory();
    allowed_ips();
}

/// SplitMix64, as everywhere here; keys made of it are for measuring only.
struct Numbers(Rng);

impl Random for Numbers {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.0.bits() as u8);
    }
}

/// A host, its tunnel and its worker.
struct Host {
    tunnel: Tunnel,
    lookup: Lookup,
    address: SocketAddr,
}

impl Host {
    fn new(number: usize, peers: usize) -> Self {
        let mut random = Numbers(Rng(number as u64));
        let mut private = [0; 32];
        random.fill(&mut private);
        let tunnel = Tunnel::new(&private, peers, Box::new(random));
        Self {
            lookup: Lookup::new(&tunnel.tables()),
            tunnel,
            address: SocketAddr::new(Ipv4Addr::from_bits(10 << 24 | number as u32).into(), 51820),
        }
    }

    fn add(&mut self, other: &Host, now: Now) -> PeerId {
        let config = PeerConfig {
            public_key: *other.tunnel.public_key(),
            preshared_key: [7; 32].into(),
            endpoint: Some(other.address),
            persistent_keepalive_s: 0,
        };
        self.tunnel.add(&config, now).expect("there is room for it")
    }

    /// The one message that is to be sent.
    fn said(&mut self) -> Vec<u8> {
        let mut said = std::iter::from_fn(|| self.tunnel.poll()).filter_map(|action| match action {
            Action::Send { bytes, .. } => Some(bytes),
            _ => None,
        });
        let message = said.next().expect("something is said");
        assert!(said.next().is_none(), "one message at a time");
        message
    }

    fn ask(&mut self, peer: PeerId, now: Now) -> Vec<u8> {
        self.tunnel.notice(Notice::Wanted(peer), now);
        self.said()
    }

    fn receive(&mut self, message: &[u8], source: SocketAddr, now: Now) -> Vec<u8> {
        self.tunnel
            .receive(message, Ends::to(source), 0, now)
            .expect("it is honest");
        self.said()
    }

    /// The first packet under a session, which lets us use it.
    fn confirm(&mut self, message: &[u8], source: SocketAddr, now: Now) {
        let opened = single::open(&mut self.lookup, message, Ends::to(source), now.ns).expect("it is honest");
        opened
            .notices
            .into_iter()
            .flatten()
            .for_each(|notice| self.tunnel.notice(notice, now));
        while self.tunnel.poll().is_some() {}
    }
}

fn after(elapsed: Duration) -> Now {
    Now {
        ns: elapsed.as_nanos() as u64,
        wall: Duration::from_secs(1_700_000_000) + elapsed,
    }
}

/// A crowd asks one host, again and again.
fn handshakes() {
    let start = after(PAUSE);
    let mut host = Host::new(0, ASKERS);
    let mut crowd: Vec<(Host, PeerId)> = (1..=ASKERS)
        .map(|number| {
            let mut asker = Host::new(number, 1);
            host.add(&asker, start);
            let peer = asker.add(&host, start);
            (asker, peer)
        })
        .collect();
    let (mut asking, mut answering, mut finishing) = (vec![], vec![], vec![]);
    for round in 2..ROUNDS + 2 {
        let now = after(PAUSE * round as u32);
        let (mut asked, mut answered, mut finished) = (vec![], vec![], vec![]);
        asking.push(rate(|| {
            asked.extend(crowd.iter_mut().map(|(asker, peer)| asker.ask(*peer, now)))
        }));
        answering.push(rate(|| {
            let questions = crowd.iter().zip(&asked);
            answered.extend(questions.map(|((asker, _), question)| host.receive(question, asker.address, now)));
        }));
        finishing.push(rate(|| {
            let answers = crowd.iter_mut().zip(&answered);
            finished.extend(answers.map(|((asker, _), answer)| asker.receive(answer, host.address, now)));
        }));
        for ((asker, _), packet) in crowd.iter().zip(&finished) {
            host.confirm(packet, asker.address, now);
        }
    }
    let both = asking
        .iter()
        .zip(&finishing)
        .map(|(asking, finishing)| 1.0 / (1.0 / asking + 1.0 / finishing));
    record(TABLE, "asked and finished", "handshakes a second", Spread::of(both));
    record(TABLE, "answered", "handshakes a second", Spread::of(answering));
}

/// How many a second `work` is done, when it is done for everybody.
fn rate(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    ASKERS as f64 / start.elapsed().as_secs_f64()
}

/// Peers with three sessions each, and one worker that has seen them all. Who asks is dropped again before the next
/// one, so that what the process grew by is the host's.
fn memory() {
    let before = resident();
    let (mut host, start) = (Host::new(0, PEERS), after(PAUSE));
    let mut peers = vec![];
    for number in 1..=PEERS {
        let mut asker = Host::new(number, 1);
        peers.push(host.add(&asker, start));
        let peer = asker.add(&host, start);
        for handshake in 1..=3 {
            let now = after(PAUSE + PAUSE * handshake);
            let question = asker.ask(peer, now);
            let answer = host.receive(&question, asker.address, now);
            let packet = asker.receive(&answer, host.address, now);
            // The third session waits to be used.
            if handshake < 3 {
                host.confirm(&packet, asker.address, now);
            }
        }
    }
    assert!(
        peers
            .iter()
            .all(|peer| host.lookup.peer(*peer).is_some_and(|peer| peer.session().is_some()))
    );
    let each = (resident() - before) / PEERS as f64 / 1024.0;
    record(
        TABLE,
        &format!("{PEERS} peers with three sessions each"),
        "KiB a peer",
        Spread::of([each]),
    );
}

/// Bytes of this process in memory.
fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok());
    pages.expect("Linux says how large a process is") * 4096.0
}

/// A prefix of one peer goes, and another comes, among those of all peers.
fn allowed_ips() {
    let mut pool = Pool::new(64 << 20, Pages::Huge, Arc::new(Qsbr::new(1))).expect("address space");
    let mut allowed = AllowedIps::new(&pool);
    let mut rng = Rng(9);
    let mut prefix = || -> IpNet {
        let bits = rng.wide();
        match bits & 1 {
            0 => IpNet::new_assert(Ipv4Addr::from_bits((bits >> 32) as u32 | 1 << 30).into(), 32),
            _ => IpNet::new_assert(Ipv6Addr::from_bits(bits | 1 << 125).into(), 128),
        }
    };
    let mut all = HashSet::new();
    let mut fresh = || {
        std::iter::repeat_with(&mut prefix)
            .find(|prefix| all.insert(*prefix))
            .expect("endless")
    };
    let mut owned: Vec<Vec<IpNet>> = vec![];
    for peer in 0..PEERS {
        owned.push((0..PREFIXES).map(|_| fresh()).collect());
        allowed
            .set(&mut pool, PeerId(peer as u32), &owned[peer])
            .expect("there is room");
    }
    let mut took = vec![];
    for change in 0..10 * PEERS {
        let peer = change % PEERS;
        owned[peer][change % PREFIXES] = fresh();
        let start = Instant::now();
        allowed
            .set(&mut pool, PeerId(peer as u32), &owned[peer])
            .expect("there is room");
        took.push(start.elapsed().as_secs_f64() * 1e6);
        pool.reclaim();
    }
    let scenario = format!(
        "one of a peer's {PREFIXES} allowed IPs changes, {} in all",
        PEERS * PREFIXES
    );
    record(TABLE, &scenario, "microseconds", Spread::of(took));
    let bytes = pool.used_bytes() as f64 / (PEERS * PREFIXES) as f64;
    record(
        TABLE,
        &format!("{} allowed IPs", PEERS * PREFIXES),
        "bytes each",
        Spread::of([bytes]),
    );
}
