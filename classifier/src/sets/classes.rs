//! Classes: the distinct combinations of sets that addresses are in, each kept once.

use super::memory::{HEADER, LINE, Memory, NONE, port_word};
use super::{Entry, Full};
use fastpath::fib::NO_ROUTE;
use fastpath::qsbr::Qsbr;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

/// A combination of sets, and how many prefixes have it.
struct Used {
    entries: Arc<[Entry]>,
    prefixes: usize,
}

/// Control's end of the class memory.
pub(super) struct Classes {
    memory: Arc<Memory>,
    qsbr: Arc<Qsbr>,
    by_entries: HashMap<Arc<[Entry]>, u32>,
    used: HashMap<u32, Used>,
    /// Lines ever used.
    touched: usize,
    /// Free runs, by the power of two of lines that they have.
    free: Vec<Vec<u32>>,
    /// Runs that a worker may still see, with the stamp they have to wait for.
    waiting: VecDeque<(u64, u32, u8)>,
    none: Arc<[Entry]>,
    /// What a change under way gave up: kept until it ends, so that it can be taken back without new memory.
    held: Option<Vec<u32>>,
}

impl Classes {
    /// With room for `bytes`.
    pub fn new(bytes: usize, qsbr: Arc<Qsbr>) -> io::Result<Classes> {
        // A line's number is an id of a route table.
        let lines = (bytes / (4 * LINE)).clamp(64, NO_ROUTE as usize);
        let memory = Memory::new(lines)?;
        // The class of addresses in no set: a bitmap with the set of all addresses.
        memory.write(NONE, [1, 0, 1].into_iter());
        Ok(Classes {
            memory: Arc::new(memory),
            qsbr,
            by_entries: HashMap::new(),
            used: HashMap::new(),
            touched: 1,
            free: vec![vec![]; 32],
            waiting: VecDeque::new(),
            none: Arc::new([]),
            held: None,
        })
    }

    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Combinations in use.
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// Bytes ever used.
    pub fn touched_bytes(&self) -> usize {
        self.touched * 4 * LINE
    }

    /// What the class at `line` is made of, in order.
    pub fn entries(&self, line: u32) -> &Arc<[Entry]> {
        self.used.get(&line).map_or(&self.none, |used| &used.entries)
    }

    /// The class of `entries`, which are in order; one more prefix has it.
    pub fn acquire(&mut self, entries: &[Entry]) -> Result<u32, Full> {
        if entries.is_empty() {
            return Ok(NONE);
        }
        if let Some(line) = self.by_entries.get(entries) {
            if let Some(used) = self.used.get_mut(line) {
                used.prefixes += 1;
            }
            return Ok(*line);
        }
        let line = self.store(entries)?;
        let entries: Arc<[Entry]> = entries.into();
        self.by_entries.insert(entries.clone(), line);
        self.used.insert(line, Used { entries, prefixes: 1 });
        Ok(line)
    }

    /// Opens a change: what is released is held until it ends.
    pub fn begin(&mut self) {
        self.held = Some(vec![]);
    }

    /// Ends a change.
    pub fn end(&mut self) {
        for line in self.held.take().unwrap_or_default() {
            self.release(line);
        }
    }

    /// One prefix less has the class at `line`; readers see it no more once their turns are over.
    pub fn release(&mut self, line: u32) {
        if let Some(held) = &mut self.held {
            return held.push(line);
        }
        let Some(used) = self.used.get_mut(&line) else { return };
        used.prefixes -= 1;
        if used.prefixes == 0 {
            let power = power(shape(&used.entries).2);
            self.by_entries.remove(&used.entries);
            self.used.remove(&line);
            self.waiting.push_back((self.qsbr.stamp(), line, power));
            // Asking every worker costs a cache miss each, so not every time.
            if self.waiting.len() >= 32 {
                self.reclaim();
            }
        }
    }

    /// Takes back what no worker can still see.
    pub fn reclaim(&mut self) {
        let safe = self.qsbr.safe();
        while let Some((_, line, power)) = self.waiting.pop_front_if(|(stamp, ..)| *stamp <= safe) {
            self.free[usize::from(power)].push(line);
        }
    }

    fn store(&mut self, entries: &[Entry]) -> Result<u32, Full> {
        let (bitmap, ports, words) = shape(entries);
        let line = self.allocate(power(words))?;
        let mut bits = vec![0u32; bitmap];
        bits[0] = 1;
        for entry in entries {
            bits[entry.set as usize / 32] |= 1 << (entry.set % 32);
        }
        let with_port = entries.iter().filter_map(|entry| Some((entry.set, entry.port?)));
        let listed = with_port.flat_map(|(set, (protocol, port))| [set, port_word(protocol, port)]);
        let header = [bitmap as u32, ports as u32];
        self.memory.write(line, header.into_iter().chain(bits).chain(listed));
        Ok(line)
    }

    fn allocate(&mut self, power: u8) -> Result<u32, Full> {
        let at = usize::from(power);
        if self.free[at].is_empty() && self.waiting.len() >= 32 {
            self.reclaim();
        }
        if let Some(line) = self.free[at].pop() {
            return Ok(line);
        }
        let lines = 1 << power;
        let limit = self.memory.lines().min(NO_ROUTE as usize);
        if self.touched + lines > limit {
            self.reclaim();
            let bytes = self.memory.lines() * 4 * LINE;
            return self.free[at].pop().ok_or(Full { bytes });
        }
        self.touched += lines;
        Ok((self.touched - lines) as u32)
    }
}

/// Words of the bitmap, entries with ports, and words in all, of a class of `entries`.
fn shape(entries: &[Entry]) -> (usize, usize, usize) {
    let highest = entries.last().map_or(0, |entry| entry.set);
    let bitmap = highest as usize / 32 + 1;
    let ports = entries.iter().filter(|entry| entry.port.is_some()).count();
    (bitmap, ports, HEADER + bitmap + 2 * ports)
}

/// The power of two of lines that `words` words take.
fn power(words: usize) -> u8 {
    words.div_ceil(LINE).next_power_of_two().trailing_zeros() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(set: u32) -> Entry {
        Entry { set, port: None }
    }

    #[test]
    fn a_combination_is_kept_once_and_waits_before_its_memory_is_used_again() {
        let qsbr = Arc::new(Qsbr::new(1));
        let mut classes = Classes::new(0, qsbr.clone()).unwrap();
        let line = classes.acquire(&[entry(3), entry(40)]).unwrap();
        assert_eq!(classes.acquire(&[entry(3), entry(40)]), Ok(line));
        let class = classes.memory.class(line);
        assert_eq!(
            [0, 2, 3, 40, 41, 4000].map(|set| classes.memory.has(class, set)),
            [true, false, true, true, false, false]
        );
        qsbr.online(0);
        classes.release(line);
        assert_eq!(classes.len(), 1);
        classes.release(line);
        assert_eq!(classes.len(), 0);
        classes.reclaim();
        assert_ne!(classes.acquire(&[entry(5)]), Ok(line), "the worker's turn is not over");
        qsbr.turn(0);
        classes.reclaim();
        assert_eq!(classes.acquire(&[entry(6)]), Ok(line));
    }

    #[test]
    fn a_full_memory_says_so_and_stays_as_it_was() {
        let mut classes = Classes::new(0, Arc::new(Qsbr::new(0))).unwrap();
        let mut lines = vec![];
        let full = loop {
            match classes.acquire(&[entry(1 + lines.len() as u32)]) {
                Ok(line) => lines.push(line),
                Err(full) => break full,
            }
        };
        assert!(full.to_string().contains("bytes"), "{full}");
        let count = classes.len();
        assert_eq!(count, lines.len());
        classes.release(lines[0]);
        assert!(
            classes.acquire(&[entry(2000)]).is_err(),
            "a long bitmap needs more lines"
        );
        assert_eq!(
            classes.acquire(&[entry(400)]).is_ok(),
            lines.len() >= 400 || classes.len() == count
        );
    }

    #[test]
    fn ports_are_found_among_many() {
        let mut classes = Classes::new(1 << 16, Arc::new(Qsbr::new(0))).unwrap();
        let entries: Vec<Entry> = (1..50)
            .flat_map(|set| {
                [80, 443, 8080].map(|port| Entry {
                    set,
                    port: Some((6, port)),
                })
            })
            .collect();
        let line = classes.acquire(&entries).unwrap();
        let (memory, class) = (&classes.memory, classes.memory.class(line));
        for set in 0..60 {
            for port in [79, 80, 443, 444, 8080, 65_535] {
                let want = (1..50).contains(&set) && [80, 443, 8080].contains(&port);
                assert_eq!(memory.has_port(class, set, 6, port), want);
                assert!(!memory.has_port(class, set, 17, port));
            }
        }
    }
}
