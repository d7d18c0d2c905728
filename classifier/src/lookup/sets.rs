//! What the portable lookup asks of the sets of one packet.

use crate::sets::{Class, Memory};

/// The sets of source and target.
pub type Memberships<'a> = [Membership<'a>; 2];

/// The sets one address is in.
#[derive(Clone, Copy)]
pub enum Membership<'a> {
    /// Those of a class.
    Of(&'a Memory, Class),
    /// This one, and the set of all addresses.
    Only(u32),
}

impl Membership<'_> {
    /// Whether the address is in `set`; every one is in set 0.
    #[inline(always)]
    pub fn has(&self, set: u32) -> bool {
        match self {
            Membership::Of(memory, class) => memory.has(*class, set),
            Membership::Only(only) => set == 0 || set == *only,
        }
    }
}
