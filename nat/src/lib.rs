//! Flows: find, create, translate, balance, expire.
//!
//! Will hold the flow table, connection tracking, source NAT, services with Maglev and the nodes `flows`, `balance`,
//! `translate` and `rewrite`. Nothing is here yet: every packet is routed on its own.
