//! From YAML to messages, and from messages to who may talk to whom.

mod calico;
mod common;
mod incremental;
mod messages;
mod recipes;
mod selectors;
mod services;
mod stars;
mod verdict;
