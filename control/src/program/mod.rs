//! What the plane is told by an agent: the vocabulary of Calico's Felix, and what follows from it.

pub mod encryption;
pub mod felix;
