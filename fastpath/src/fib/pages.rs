//! Which lines of the region are free: pages of 64 lines, each a bit mask, listed by their longest free run.

/// The most lines a node has: 36 bytes of header and 256 words.
pub(super) const NODE_LINES_MAX: usize = 17;
/// Lines in a page.
pub(super) const PAGE_LINES: usize = 64;

const NIL: u32 = u32::MAX;

/// A page: its free lines, its longest run of them (counted up to the largest node), and its place in the list of those
/// with the same.
struct Page {
    free: u64,
    run: u8,
    previous: u32,
    next: u32,
}

/// The pages in use, in the order of their addresses, of at most a fixed number.
pub(super) struct PageList {
    pages: Vec<Page>,
    pages_max: usize,
    /// First page of each list, by longest free run.
    heads: [u32; NODE_LINES_MAX + 1],
}

impl PageList {
    pub fn new(pages_max: usize) -> PageList {
        PageList {
            pages: vec![],
            pages_max,
            heads: [NIL; NODE_LINES_MAX + 1],
        }
    }

    /// Pages ever used.
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// The first of `lines` free lines in a row, at most as many as a node has.
    pub fn take(&mut self, lines: usize) -> Option<u32> {
        let page = match self.heads[lines..].iter().find(|head| **head != NIL) {
            Some(page) => *page,
            None => self.open()?,
        };
        let free = self.pages[page as usize].free;
        let at = find_run(free, lines);
        self.set_free(page, free & !(((1 << lines) - 1) << at));
        Some(page * PAGE_LINES as u32 + at)
    }

    /// The first line of `pages` whole pages in a row. They are not given back.
    pub fn take_whole(&mut self, pages: usize) -> Option<u32> {
        let first = self.pages.len();
        if first + pages > self.pages_max {
            return None;
        }
        // In no list: they never have a free run.
        self.pages.extend((0..pages).map(|_| Page {
            free: 0,
            run: 0,
            previous: NIL,
            next: NIL,
        }));
        Some((first * PAGE_LINES) as u32)
    }

    /// Takes back what `take` gave.
    pub fn give(&mut self, line: u32, lines: usize) {
        let (page, at) = (line / PAGE_LINES as u32, line % PAGE_LINES as u32);
        let given = ((1 << lines) - 1) << at;
        let free = self.pages[page as usize].free;
        debug_assert!(free & given == 0, "lines given back twice");
        self.set_free(page, free | given);
    }

    fn open(&mut self) -> Option<u32> {
        if self.pages.len() == self.pages_max {
            return None;
        }
        let page = self.pages.len() as u32;
        self.pages.push(Page {
            free: !0,
            run: NODE_LINES_MAX as u8,
            previous: NIL,
            next: NIL,
        });
        self.link(page);
        Some(page)
    }

    fn set_free(&mut self, page: u32, free: u64) {
        let run = longest_run(free);
        self.pages[page as usize].free = free;
        if run != self.pages[page as usize].run {
            self.unlink(page);
            self.pages[page as usize].run = run;
            self.link(page);
        }
    }

    fn link(&mut self, page: u32) {
        let head = &mut self.heads[usize::from(self.pages[page as usize].run)];
        let next = std::mem::replace(head, page);
        if next != NIL {
            self.pages[next as usize].previous = page;
        }
        let page = &mut self.pages[page as usize];
        (page.previous, page.next) = (NIL, next);
    }

    fn unlink(&mut self, page: u32) {
        let Page {
            previous, next, run, ..
        } = self.pages[page as usize];
        match previous {
            NIL => self.heads[usize::from(run)] = next,
            previous => self.pages[previous as usize].next = next,
        }
        if next != NIL {
            self.pages[next as usize].previous = previous;
        }
    }
}

fn longest_run(free: u64) -> u8 {
    let (mut starts, mut run) = (free, 0);
    while starts != 0 && run < NODE_LINES_MAX as u8 {
        starts &= starts >> 1;
        run += 1;
    }
    run
}

/// The first bit of `lines` set bits in a row, of which there are some.
fn find_run(free: u64, lines: usize) -> u32 {
    (1..lines).fold(free, |starts, k| starts & free >> k).trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn lines_are_taken_once_and_fill_every_page() {
        let mut list = PageList::new(8);
        let mut taken = HashSet::new();
        let mut nodes = vec![];
        for lines in (1..=NODE_LINES_MAX).cycle() {
            let Some(line) = list.take(lines) else { break };
            nodes.push((line, lines));
            assert!((line..line + lines as u32).all(|line| line < 512 && taken.insert(line)));
        }
        while list.take(1).is_some_and(|line| taken.insert(line)) {}
        assert_eq!(taken.len(), 512, "single lines fill what is left");
        assert_eq!(list.take_whole(1), None);
        for (line, lines) in nodes {
            list.give(line, lines);
            assert_eq!(list.take(lines), Some(line), "the only run that long");
        }
        assert_eq!(list.take(1), None);
    }
}
