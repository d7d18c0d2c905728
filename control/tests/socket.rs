//! The socket itself: what it answers, and clients that do it wrong.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{PORTS, Running, apply, ask, connect, exchange, get, wait_for};
use control::server::{BindError, Limits, Server};
use serde_json::json;

/// Short times, so that tests do not wait; few connections, so that they run out.
fn tight() -> Limits {
    Limits {
        connections: 4,
        header: Duration::from_millis(300),
        body: Duration::from_millis(300),
        stalled_answer: Duration::from_millis(300),
        body_bytes: 1 << 20,
        all_bodies_bytes: 3 << 20,
    }
}

/// Whether the server has hung up, after whatever it may still have said.
fn is_closed(mut stream: UnixStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => matches!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
        ),
    }
}

#[test]
fn applies_and_lists() {
    let running = Running::start(Limits::default());
    let socket = &running.socket;
    let (status, answer) = apply(socket, PORTS);
    let result = |name: &str, change: &str| json!({"kind": "Port", "namespace": null, "name": name, "change": change});
    assert_eq!(
        (status, answer),
        (
            200,
            json!({"results": [result("left", "created"), result("right", "created")]})
        )
    );
    let (status, list) = get(socket, "/v1/resources");
    assert_eq!((status, list["items"].as_array().unwrap().len()), (200, 2));
    let (status, again) = ask(socket, "POST", "/v1/apply", "application/json", &list.to_string());
    assert_eq!(
        (status, again),
        (
            200,
            json!({"results": [result("left", "unchanged"), result("right", "unchanged")]})
        )
    );
    let (status, left) = get(socket, "/v1/resources/ports/left");
    assert_eq!((status, &left), (200, &list["items"][0]));
    let files = json!({"files": [{"name": "x.yaml", "text": PORTS.replace("right0", "left0")}]});
    let (status, refusal) = ask(
        socket,
        "POST",
        "/v1/apply",
        "application/json; charset=utf-8",
        &files.to_string(),
    );
    assert_eq!(status, 422);
    assert_eq!(refusal["document"], "x.yaml document 2, Port/right");
    assert_eq!(refusal["field"], "spec.device");
    let (status, answer) = ask(socket, "POST", "/v1/delete", "text/yaml", PORTS);
    assert_eq!((status, &answer["results"][1]), (200, &result("right", "deleted")));
    assert_eq!(get(socket, "/v1/resources/Port").1["items"], json!([]));
}

#[test]
fn what_is_not_there_is_said_in_a_sentence() {
    let running = Running::start(Limits::default());
    let socket = &running.socket;
    let cases = [
        ("GET", "/v1/pods", 404, "GET /v1/pods is not served"),
        ("POST", "/v1/explain", 400, "the question is not understood"),
        ("GET", "/", 404, "is not served"),
        (
            "GET",
            "/v1/show/pods",
            404,
            "there is no view `pods`; expected one of ports, routes",
        ),
        (
            "GET",
            "/v1/resources/Teir",
            404,
            "there is no kind `Teir`; expected Port, Route, Neighbor, ",
        ),
        ("GET", "/v1/resources/Port/nobody", 404, "Port/nobody does not exist"),
        ("GET", "/v1/resources/Port/%FF", 400, "UTF-8"),
        (
            "GET",
            "/v1/resources?namespace=a&namespace=b",
            400,
            "duplicate field `namespace`",
        ),
        ("DELETE", "/v1/apply", 405, "/v1/apply does not take DELETE"),
        ("POST", "/v1/trace", 400, "the request to trace is not understood"),
        ("POST", "/v1/capture", 400, "the request to capture is not understood"),
    ];
    for (method, path, status, part) in cases {
        let (is, answer) = ask(socket, method, path, "application/json", "");
        assert_eq!(is, status, "{method} {path}: {answer}");
        assert!(
            answer["error"].as_str().unwrap().contains(part),
            "{method} {path}: {answer}"
        );
    }
    let trace = |body: &str| ask(socket, "POST", "/v1/trace", "application/json", body);
    assert_eq!(trace(r#"{"count": 0}"#).0, 422);
    assert_eq!(trace(r#"{"count": 1001}"#).0, 422);
    assert_eq!(trace(r#"{"count": 1000}"#).0, 204);
    assert_eq!(trace(r#"{"count": 1, "filtre": "icmp"}"#).0, 400);
    assert_eq!(trace(r#"{"count": 1, "filter": "nonsense"}"#).0, 422);
    assert_eq!(trace(r#"{"count": 1}"#).0, 204);
    assert_eq!(ask(socket, "POST", "/v1/apply", "text/html", "").0, 415);
    let not_utf8 = b"POST /v1/apply HTTP/1.1\r\nHost: m\r\nConnection: close\r\nContent-Length: 1\r\n\r\n\xff";
    let (status, _, body) = exchange(connect(socket), not_utf8);
    assert_eq!(status, 400);
    assert!(body.contains("is not UTF-8 after 0 bytes"), "{body}");
}

#[test]
fn health_follows_the_plane() {
    let running = Running::start(Limits::default());
    assert_eq!(get(&running.socket, "/v1/health"), (200, json!({"ready": true})));
    running.plane.not_ready.store(true, Ordering::Relaxed);
    let (status, answer) = get(&running.socket, "/v1/health");
    assert_eq!(status, 503);
    assert!(answer["error"].as_str().unwrap().starts_with("not ready"));
}

#[test]
fn metrics_are_on_both_addresses_and_nothing_else_is_on_tcp() {
    let running = Running::start(Limits::default());
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n").into_bytes();
    let tcp = || {
        let stream = TcpStream::connect(running.metrics).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    };
    let (status, head, text) = exchange(tcp(), &ask("/metrics"));
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    for line in [
        "# TYPE margay_port_rx_packets_total counter",
        "margay_port_up{port=\"right\"} 0",
        "margay_port_rx_packets_total{port=\"left\"} 1234567",
        "margay_port_socket_rx_ring_full_total{port=\"left\"} 12",
        "margay_node_packets_total{worker=\"0\",node=\"parse\"} 1000000",
        "margay_drops_total{node=\"hop-limit\",reason=\"expired\",port=\"left\"} 1234",
    ] {
        assert!(text.lines().any(|is| is == line), "{line}\n{text}");
    }
    assert_eq!(exchange(connect(&running.socket), &ask("/metrics")).2, text);
    assert_eq!(exchange(tcp(), &ask("/v1/resources")).0, 404);
}

#[test]
fn connections_are_kept_for_more_requests() {
    let running = Running::start(Limits::default());
    let mut stream = connect(&running.socket);
    for _ in 0..3 {
        stream.write_all(b"GET /v1/health HTTP/1.1\r\nHost: m\r\n\r\n").unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"{\"ready\":true}") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
    }
}

#[test]
fn the_socket_is_for_owner_and_group_and_goes_with_the_server() {
    let mut running = Running::start(Limits::default());
    assert_eq!(
        std::fs::metadata(&running.socket).unwrap().permissions().mode() & 0o777,
        0o660
    );
    let idle = connect(&running.socket);
    running.stop();
    assert!(!running.socket.exists());
    assert!(is_closed(idle));
}

#[test]
fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let running = Running::start(Limits::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let bind = |path: &std::path::Path| Server::bind(path, None, Limits::default());
    let error = bind(&running.socket).err().unwrap();
    assert!(matches!(error, BindError::Taken(_)));
    assert!(
        error
            .to_string()
            .starts_with(&format!("another instance answers on {}", running.socket.display()))
    );
    assert_eq!(get(&running.socket, "/v1/health").0, 200, "the live one was left alone");
    let dead = running.folder.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    assert!(bind(&dead).is_ok());
    let file = running.folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(matches!(bind(&file).err().unwrap(), BindError::NotASocket(_)));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    let taken = Server::bind(
        &running.folder.path().join("new"),
        Some(running.metrics),
        Limits::default(),
    )
    .err()
    .unwrap();
    assert!(taken.to_string().starts_with("cannot listen on 127.0.0.1:"), "{taken}");
}

#[test]
fn a_large_body_is_refused_and_the_next_request_is_not() {
    let running = Running::start(tight());
    let large = "#".repeat(2 << 20);
    let (status, answer) = ask(&running.socket, "POST", "/v1/apply", "application/yaml", &large);
    assert_eq!(status, 413);
    assert_eq!(
        answer["error"],
        "the body of the request is larger than 1.0 MiB; send it in parts"
    );
    let announced = b"POST /v1/apply HTTP/1.1\r\nHost: m\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n";
    assert_eq!(exchange(connect(&running.socket), announced).0, 413);
    let mut chunked =
        b"POST /v1/apply HTTP/1.1\r\nHost: m\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..32 {
        chunked.extend_from_slice(b"10000\r\n");
        chunked.extend_from_slice(&[b'#'; 0x10000]);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(exchange(connect(&running.socket), &chunked).0, 413);
    assert_eq!(apply(&running.socket, PORTS).0, 200);
}

#[test]
fn the_default_limit_is_that_of_the_interface() {
    let limit = 64 << 20;
    assert_eq!(Limits::default().body_bytes, limit);
    let running = Running::start(Limits::default());
    let padded = |length: usize| format!("{PORTS}{}", " ".repeat(length - PORTS.len()));
    let fits = ask(&running.socket, "POST", "/v1/apply", "application/json", &padded(limit));
    assert_eq!(fits.0, 422, "it is read to the end, and is not JSON");
    let exceeds = ask(
        &running.socket,
        "POST",
        "/v1/apply",
        "application/json",
        &padded(limit + 1),
    );
    assert_eq!(exceeds.0, 413);
}

#[test]
fn slow_headers_bodies_and_idle_connections_are_cut_off() {
    let running = Running::start(tight());
    let silent = connect(&running.socket);
    let mut half_header = connect(&running.socket);
    half_header.write_all(b"GET /v1/health HT").unwrap();
    let mut idle = connect(&running.socket);
    idle.write_all(b"GET /v1/health HTTP/1.1\r\nHost: m\r\n\r\n").unwrap();
    assert!(is_closed(silent) && is_closed(half_header) && is_closed(idle));
    let half_body = b"POST /v1/apply HTTP/1.1\r\nHost: m\r\nContent-Length: 100\r\n\r\nkind: Po";
    let (status, _, body) = exchange(connect(&running.socket), half_body);
    assert_eq!(status, 408);
    assert!(body.contains("did not come within 0.3 s"), "{body}");
    assert_eq!(get(&running.socket, "/v1/health").0, 200);
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let running = Running::start(tight());
    let many: String = (0..5_000)
        .map(|n| format!("{{apiVersion: margay/v1, kind: Route, metadata: {{name: r{n}}}, spec: {{destination: 10.{}.{}.0/24, via: [{{drop: true}}]}}}}\n---\n", n / 256, n % 256))
        .collect();
    assert_eq!(apply(&running.socket, &many).0, 200);
    let mut stream = connect(&running.socket);
    // More than the buffers of a socket hold, several times over.
    for _ in 0..20 {
        stream
            .write_all(b"GET /v1/resources HTTP/1.1\r\nHost: m\r\n\r\n")
            .unwrap();
    }
    wait_for("hanging up", || stream.write_all(b"GET / HTTP/1.1\r\n\r\n").is_err());
    assert_eq!(get(&running.socket, "/v1/health").0, 200);
}

#[test]
fn a_flood_of_silent_connections_blocks_nobody() {
    // Nobody is cut off for slowness here: only making room helps.
    let limits = Limits {
        header: Duration::from_secs(60),
        body: Duration::from_secs(60),
        ..tight()
    };
    let running = Running::start(limits);
    let mut flood = Vec::new();
    for round in 0..50 {
        let mut stream = connect(&running.socket);
        if round % 2 == 0 {
            stream
                .write_all(b"POST /v1/apply HTTP/1.1\r\nHost: m\r\nContent-Length: 100\r\n\r\nkind")
                .unwrap();
        }
        flood.push(stream);
        if round % 10 == 9 {
            assert_eq!(get(&running.socket, "/v1/health").0, 200);
        }
    }
    assert!(is_closed(flood.swap_remove(0)), "the oldest made room");
}

fn apply_held(running: &Running) -> std::thread::JoinHandle<(u16, serde_json::Value)> {
    running.plane.hold(true);
    let socket = running.socket.clone();
    let working = std::thread::spawn(move || apply(&socket, PORTS));
    wait_for("applying", || running.plane.applying.load(Ordering::Relaxed));
    working
}

#[test]
fn reading_goes_on_while_the_plane_is_busy() {
    let running = Running::start(Limits::default());
    let working = apply_held(&running);
    for _ in 0..20 {
        assert_eq!(get(&running.socket, "/v1/resources").1["items"], json!([]));
        assert_eq!(get(&running.socket, "/v1/show/ports").0, 200);
    }
    running.plane.hold(false);
    assert_eq!(working.join().unwrap().0, 200);
    assert_eq!(
        get(&running.socket, "/v1/resources").1["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn a_request_in_the_works_is_not_pushed_out() {
    let running = Running::start(Limits {
        connections: 1,
        ..Limits::default()
    });
    let working = apply_held(&running);
    for _ in 0..20 {
        let (status, answer) = get(&running.socket, "/v1/health");
        assert_eq!(
            (status, answer),
            (503, json!({"error": "too many requests at once; try again soon"}))
        );
    }
    running.plane.hold(false);
    assert_eq!(working.join().unwrap().0, 200);
    assert_eq!(get(&running.socket, "/v1/health").0, 200);
}

#[test]
fn nonsense_is_answered_or_hung_up_on() {
    let running = Running::start(tight());
    for nonsense in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n",
    ] {
        let mut stream = connect(&running.socket);
        stream.write_all(nonsense).unwrap();
        assert!(is_closed(stream));
    }
    let mut header = b"GET /v1/health HTTP/1.1\r\nX: ".to_vec();
    header.resize(4 << 20, b'x');
    let mut stream = connect(&running.socket);
    // It may hang up before the end.
    let _ = stream.write_all(&header);
    assert!(is_closed(stream));
    assert_eq!(get(&running.socket, "/v1/health").0, 200);
}
