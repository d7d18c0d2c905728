//! From YAML to messages, and from messages to who may talk to whom.

mod common;
mod messages;
