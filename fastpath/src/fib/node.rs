//! A node: 256 slots, run-length compressed.
//!
//! ```text
//! 0   bitmap, 4 x u64: bit s is set where slot s differs from slot s - 1
//! 32  runs before each of the 4 words, 4 x u8
//! 36  one u32 a run; the first 7 share the header's cache line
//! ```
//! A slot is a child (bit 31, line number) or a leaf (prefix length - 1 in bits 24..31, id in bits 0..24).

use super::arena::{LINE, Place};
use super::pool::{Full, Pool};
use std::sync::atomic::Ordering::Relaxed;

/// Marks a slot that names the line of a node.
pub(super) const CHILD: u32 = 1 << 31;
/// The leaf where there is no route; its length of 1 is no longer than any that could replace it.
pub(super) const NONE: u32 = super::NO_ROUTE;

/// A node written out.
pub(super) type Slots = [u32; 256];

#[inline(always)]
pub(super) fn is_child(slot: u32) -> bool {
    slot & CHILD != 0
}

/// The leaf of a route of `length` 1 to 128.
pub(super) fn leaf(length: u32, id: u32) -> u32 {
    (length - 1) << 24 | id
}

/// The slots that `slot` stands for: those of the node, or the leaf in each.
pub(super) fn expand(pool: &Pool, slot: u32) -> Slots {
    if !is_child(slot) {
        return [slot; 256];
    }
    let runs = pool.memory().runs(slot);
    let mut slots = [0; 256];
    let mut run = usize::MAX;
    for (group, bits) in slots.as_chunks_mut::<64>().0.iter_mut().zip(pool.memory().bitmap(slot)) {
        let bits = bits.load(Relaxed);
        for (i, value) in group.iter_mut().enumerate() {
            run = run.wrapping_add((bits >> i & 1) as usize);
            *value = runs[run & 255].load(Relaxed);
        }
    }
    slots
}

/// Gives up the node `slot` once the change under way is published and readers are past it.
pub(super) fn retire(pool: &mut Pool, slot: u32) {
    let runs: u32 = pool
        .memory()
        .bitmap(slot)
        .iter()
        .map(|bits| bits.load(Relaxed).count_ones())
        .sum();
    pool.retire(slot & !CHILD, lines(runs as usize));
}

/// Makes `old`, a leaf or a node, hold `slots`: the slot to put in its place, which is `old` itself where words of it
/// can be changed where they are. Nothing is visible to readers before the pool publishes.
pub(super) fn store(pool: &mut Pool, old: u32, slots: &Slots) -> Result<u32, Full> {
    let new = compress(slots);
    if new.count == 1 && !is_child(slots[0]) {
        if is_child(old) {
            retire(pool, old);
        }
        return Ok(slots[0]);
    }
    if is_child(old) {
        if has_runs(pool, old, &new.bits) {
            change_words(pool, old, new.runs());
            return Ok(old);
        }
        retire(pool, old);
    }
    let line = pool.allocate(lines(new.count))?;
    let memory = pool.memory();
    let mut before = 0;
    for ((bits, word), rank) in new.bits.iter().zip(memory.bitmap(line)).zip(memory.ranks(line)) {
        word.store(*bits, Relaxed);
        // At most 192 runs are before the last word.
        rank.store(before as u8, Relaxed);
        before += bits.count_ones();
    }
    for (slot, word) in new.runs().iter().zip(memory.runs(line)) {
        word.store(*slot, Relaxed);
    }
    Ok(CHILD | line)
}

/// The word of `node` that the slot has, with what it holds now.
pub(super) fn read(pool: &Pool, node: u32, slot: u8) -> (Place, u32) {
    let place = pool.memory().slot(node, slot);
    (place, pool.memory().word(place).load(Relaxed))
}

struct Compressed {
    bits: [u64; 4],
    words: [u32; 256],
    count: usize,
}

impl Compressed {
    fn runs(&self) -> &[u32] {
        &self.words[..self.count]
    }
}

fn compress(slots: &Slots) -> Compressed {
    let mut node = Compressed {
        bits: [0; 4],
        words: [0; 256],
        count: 0,
    };
    let mut last = !slots[0];
    for (bits, group) in node.bits.iter_mut().zip(slots.as_chunks::<64>().0) {
        for (i, slot) in group.iter().enumerate() {
            let starts = *slot != last;
            // No branch: a repeat is written too, and then overwritten.
            node.words[node.count & 255] = *slot;
            node.count += usize::from(starts);
            *bits |= u64::from(starts) << i;
            last = *slot;
        }
    }
    node
}

fn lines(runs: usize) -> usize {
    (36 + 4 * runs).div_ceil(LINE)
}

fn has_runs(pool: &Pool, node: u32, bits: &[u64; 4]) -> bool {
    pool.memory()
        .bitmap(node)
        .iter()
        .zip(bits)
        .all(|(old, new)| old.load(Relaxed) == *new)
}

/// The same runs: each word alone turns from old to new.
fn change_words(pool: &mut Pool, node: u32, runs: &[u32]) {
    for (i, slot) in runs.iter().enumerate() {
        if pool.memory().runs(node)[i].load(Relaxed) != *slot {
            pool.write(pool.memory().run(node, i as u8), *slot);
        }
    }
}
