//! TAP: a network device made for a port, which a host (or a container, in its network namespace) uses as its own.
//!
//! The host's kernel may hand over up to 64 KiB in one piece and leave checksums to the device, and takes packets the same
//! way. [`Cut`] makes packets of such pieces on their way in, [`Joint`] joins those of one vector on their way out; both
//! are pure. What is joined was in one vector: none waits for more.
//!
//! Each piece costs a system call and a copy in the kernel. That is what TAP costs; large pieces spread it.

mod cut;
mod device;
mod join;
mod queue;
mod segment;
mod vnet;

pub use cut::{Cut, Uncuttable};
pub use device::{Device, OpenError, Options, within};
pub use join::{JOINED_MAX, Joint};
pub use queue::TapQueue;
pub use vnet::{Bundle, VNET_HEADER, VnetHeader};
