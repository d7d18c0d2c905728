//! Longest-prefix match for IPv4 (`u32`) and IPv6 (`u128`) to an id of 24 bits.
//!
//! A trie of 8-bit strides whose nodes are run-length compressed (a bitmap of 256 bits says where runs start, then one
//! word a run), under a direct array for the first 16 bits once a table has more than a thousand routes. One control
//! thread changes tables in place; readers take no locks and never wait. A node that was unlinked is used again only
//! when every worker has passed a quiescent state ([`crate::qsbr`]).
//!
//! Leaves carry the length of their prefix, so an addition needs no covering route; a removal finds it in a hash table
//! that only the control thread has. A change copies or edits nodes and publishes each with one release store; when the
//! memory is full it changes nothing and says so ([`Full`]).

mod arena;
mod key;
mod lookup;
mod node;
mod pages;
mod pool;
mod rib;
mod table;

pub use arena::Pages;
pub use key::Key;
pub use lookup::View;
pub use pool::{Full, Pool};
pub use table::Table;

/// The id that means "no route"; ids of routes are below it.
pub const NO_ROUTE: u32 = 0xff_ffff;
