//! The socket asked by a stranger who knows nothing but its OpenAPI document: schemathesis, from PyPI.

use std::io::{Read, Write, copy};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use control::server::Limits;

use crate::common::{PORTS, Running, apply, get};

/// What each answer is held against.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
    response_headers_conformance,unsupported_method,allow_header_conformance";

/// Where there is something to be found.
const SETTINGS: &str = r#"
[parameters]
"path.kind" = ["Port", "ports", "Tier", "GlobalNetworkPolicy", "Prot"]
"path.name" = ["left", "right", "nobody"]
"path.view" = ["ports", "routes", "neighbors", "runtime", "drops", "graph", "workers", "flows", "services", "policies", "wireguard",
  "memory", "flow-logs", "nothing"]
"#;

/// What is followed does not end.
const HOOKS: &str = r#"
import schemathesis

@schemathesis.hook
def before_call(context, case, kwargs):
    if case.query:
        case.query.pop("follow", None)
"#;

/// TCP to a Unix socket, for clients that know nothing else.
struct Forwarder {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    fn start(socket: PathBuf) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::<AtomicBool>::default();
        let theirs = stop.clone();
        let thread = std::thread::spawn(move || {
            for client in listener.incoming() {
                if theirs.load(Ordering::Relaxed) {
                    return;
                }
                // Either may have gone already.
                if let (Ok(client), Ok(server)) = (client, UnixStream::connect(&socket)) {
                    let _ = join(client, server);
                }
            }
        });
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It looks when somebody comes.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Carries both ways, in threads that end with the connections.
fn join(client: TcpStream, server: UnixStream) -> std::io::Result<()> {
    let (client_too, server_too) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || carry(client_too, server_too, |server| drop(server.shutdown(Shutdown::Write))));
    std::thread::spawn(move || carry(server, client, |client| drop(client.shutdown(Shutdown::Both))));
    Ok(())
}

fn carry<From: Read, To: Write>(mut from: From, mut to: To, finish: impl FnOnce(&To)) {
    let _ = copy(&mut from, &mut to);
    finish(&to);
}

/// The program, from the path or from where testbed/install-deps.sh puts it.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")));
    let own = cache.map(|cache| cache.join("margay/schemathesis/bin"));
    let folders = own.into_iter().chain(std::env::split_paths(&path));
    folders
        .map(|folder| folder.join("schemathesis"))
        .find(|program| program.exists())
}

#[test]
fn whatever_the_document_allows_is_answered_as_the_document_says() {
    let Some(program) = program() else {
        eprintln!("skipped: needs schemathesis; testbed/install-deps.sh installs it");
        return;
    };
    let running = Running::start(Limits::default());
    assert_eq!(apply(&running.socket, PORTS).0, 200);
    let forwarder = Forwarder::start(running.socket.clone());
    let folder = running.folder.path();
    let settings = folder.join("schemathesis.toml");
    std::fs::write(&settings, SETTINGS).unwrap();
    std::fs::write(folder.join("hooks.py"), HOOKS).unwrap();
    let origin = format!("http://{}", forwarder.address);
    let output = Command::new("timeout")
        .arg("300")
        .arg(program)
        .arg("--config-file")
        .arg(settings)
        .args([
            "run",
            &format!("{origin}/v1/openapi.json"),
            "--url",
            &origin,
            "--no-color",
        ])
        // What is captured does not end, either.
        .args(["--exclude-path", "/v1/capture", "--checks", CHECKS])
        .args([
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            "10",
            "--seed",
            "1",
        ])
        .args(["--request-timeout", "60", "--continue-on-failure"])
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("passed"), "{said}");
    assert_eq!(get(&running.socket, "/v1/health").0, 200);
}
