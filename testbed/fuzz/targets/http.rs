//! The socket: whatever comes, each answer has a status that is the client's fault or none, and the next client is served.

#[path = "../../../control/tests/common/mod.rs"]
mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use common::{Running, connect, get};
use control::server::Limits;

use super::Run;

/// How long an answer that does not end is read: captures and connections go on as long as the client wants.
const ENDLESS: Duration = Duration::from_millis(100);

/// Sets it up.
pub fn start() -> Run {
    let running = Running::start(Limits::default());
    Box::new(move |input| {
        // Names are asked for at a resolver, and files are read: neither is the socket's doing.
        if [&b"Wireguard"[..], b"File"].iter().any(|word| contains(input, word)) {
            return;
        }
        let mut stream = connect(&running.socket);
        stream.set_read_timeout(Some(ENDLESS)).unwrap();
        // It may have hung up already.
        let _ = stream.write_all(input);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = vec![];
        if let Err(error) = stream.read_to_end(&mut answer) {
            let expected = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::WouldBlock];
            assert!(expected.contains(&error.kind()), "{error}");
        }
        if !answer.is_empty() {
            // 100 goes before the answer.
            let status = answer.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
            let is_fine = status.is_some_and(|status| (b"100".as_slice()..=b"499").contains(&status));
            assert!(is_fine, "{}", answer.escape_ascii());
        }
        assert_eq!(get(&running.socket, "/v1/health").0, 200);
    })
}

fn contains(input: &[u8], word: &[u8]) -> bool {
    input.windows(word.len()).any(|window| window == word)
}
