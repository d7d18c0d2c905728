//! What the plane is told by an agent: the vocabulary of Calico's Felix, and what follows from it; and what follows from
//! Kubernetes' services.

pub mod encryption;
pub mod felix;
pub mod host_ports;
pub mod policy;
pub mod services;
