//! Which packets are allowed, by ordered rules in ordered tiers.
//!
//! Will hold the rules and their semantics, the sets of addresses they name, the compiled lookup (portable and SIMD)
//! and the node `classify`. Nothing is here yet: packets are forwarded without policy.
