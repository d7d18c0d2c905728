//! The program against a real server on a real socket.

mod common;

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering;

use common::{PORTS, Running};
use control::server::Limits;
use serde_json::Value;

fn margay(running: &Running, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_margay"));
    command
        .args(arguments)
        .env("MARGAY_SOCKET", &running.socket)
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    command
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn good(running: &Running, arguments: &[&str]) -> String {
    let output = margay(running, arguments).output().unwrap();
    let complaint = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(output.status.success(), "{arguments:?}: {complaint}");
    assert_eq!(complaint, "", "{arguments:?}");
    out(&output)
}

/// The exit code and the one line on stderr.
fn bad(running: &Running, arguments: &[&str]) -> (i32, String) {
    let output = margay(running, arguments).output().unwrap();
    assert_eq!(out(&output), "", "{arguments:?}");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn with_input(mut command: Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn apply_get_delete() {
    let running = Running::start(Limits::default());
    let folder = running.folder.path();
    std::fs::create_dir(folder.join("d")).unwrap();
    std::fs::write(folder.join("d/ports.yaml"), PORTS).unwrap();
    std::fs::write(folder.join("d/notes.txt"), "not a document").unwrap();
    let json = r#"{"apiVersion":"margay/v1","kind":"Route","metadata":{"name":"r"},
                  "spec":{"destination":"10.9.0.0/16","via":[{"gateway":"10.2.0.2"},{"gateway":"10.2.0.3","weight":2}]}}"#;
    std::fs::write(folder.join("d/r.json"), json).unwrap();
    let d = folder.join("d").display().to_string();
    assert_eq!(
        good(&running, &["apply", "-f", &d]),
        "Port/left created\nPort/right created\nRoute/r created\n"
    );
    let again = with_input(
        margay(&running, &["apply", "-f", "-", "-f", &format!("{d}/r.json")]),
        PORTS,
    );
    assert_eq!(
        out(&again),
        "Port/left unchanged\nPort/right unchanged\nRoute/r unchanged\n"
    );

    let expected = "NAME  DESTINATION  VRF      VIA\nr     10.9.0.0/16  default  10.2.0.2, 10.2.0.3 (weight 2)\n";
    assert_eq!(good(&running, &["get", "routes"]), expected);
    let yaml = good(&running, &["get", "Port", "-o", "yaml"]);
    assert!(
        yaml.starts_with("apiVersion: margay/v1\nkind: Port\nmetadata:\n  name: left\nspec:\n  device: left0\n"),
        "{yaml}"
    );
    let unchanged = with_input(margay(&running, &["apply", "-f", "-"]), &yaml);
    assert_eq!(out(&unchanged), "Port/left unchanged\nPort/right unchanged\n");
    let list: Value = serde_json::from_str(&good(&running, &["get", "ports", "-A", "-o", "json"])).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    assert_eq!(good(&running, &["get", "neighbors"]), "no neighbors applied\n");

    let answer: Value = serde_json::from_str(&good(&running, &["delete", "route", "r", "-o", "json"])).unwrap();
    assert_eq!(answer["results"][0]["change"], "deleted");
    assert_eq!(
        good(&running, &["delete", "-f", &format!("{d}/ports.yaml")]),
        "Port/left deleted\nPort/right deleted\n"
    );
}

#[test]
fn show_and_trace() {
    let running = Running::start(Limits::default());
    for view in [
        "ports",
        "routes",
        "neighbors",
        "runtime",
        "drops",
        "graph",
        "workers",
        "memory",
    ] {
        let table = good(&running, &["show", view]);
        assert!(!table.contains('\u{1b}'), "no colours in a pipe: {table}");
        let json = good(&running, &["show", view, "-o", "json"]);
        let value: Value = serde_json::from_str(&json).unwrap();
        assert!(value.is_object() || value.is_array());
        let yaml: Value = serde_saphyr::from_str(&good(&running, &["show", view, "-o", "yaml"])).unwrap();
        assert_eq!(yaml, value);
    }
    assert!(good(&running, &["show", "graph", "-o", "json"]).contains("digraph"));
    assert!(good(&running, &["trace", "show"]).starts_with("no packet traced yet"));
    assert_eq!(
        good(
            &running,
            &["trace", "add", "--count", "5", "host", "10.1.0.2", "and", "icmp"]
        ),
        ""
    );
    assert_eq!(
        *running.plane.traced.lock().unwrap(),
        Some((5, "host 10.1.0.2 and icmp".to_owned()))
    );
    assert!(good(&running, &["trace", "show"]).starts_with("Packet 1: in by left"));
    assert_eq!(good(&running, &["trace", "clear"]), "");
    assert_eq!(*running.plane.traced.lock().unwrap(), None);
    let (code, complaint) = bad(&running, &["trace", "add", "--count", "5", "nonsense"]);
    assert_eq!(
        (code, complaint.as_str()),
        (1, "error: `nonsense` is not a pcap-filter expression\n")
    );
    assert!(good(&running, &["version"]).starts_with("margay "));
}

#[test]
fn colours_can_be_had_and_refused() {
    let running = Running::start(Limits::default());
    let ports = |variable: &str| {
        out(&margay(&running, &["show", "ports"])
            .env(variable, "1")
            .output()
            .unwrap())
    };
    assert!(ports("CLICOLOR_FORCE").contains('\u{1b}'));
    assert!(!ports("NO_COLOR").contains('\u{1b}'));
}

#[test]
fn connections_are_shown_and_deleted() {
    let running = Running::start(Limits::default());
    assert!(good(&running, &["show", "flows", "tcp", "port", "80", "--sort", "packets"]).starts_with("no connections"));
    assert_eq!(good(&running, &["show", "flows", "host", "10.1.0.2", "--all"]), "");
    assert_eq!(
        good(&running, &["flows", "delete", "host", "10.1.0.2"]),
        "0 connections deleted\n"
    );
    let json = good(&running, &["flows", "delete", "--all", "-o", "json"]);
    assert_eq!(
        serde_json::from_str::<Value>(&json).unwrap(),
        serde_json::json!({"deleted": 0})
    );
    let wrong: &[(&[&str], i32, &str)] = &[
        (&["flows", "delete"], 2, "required arguments were not provided"),
        (&["flows", "delete", "--all", "tcp"], 2, "cannot be used with"),
        (
            &["flows", "delete", "hst"],
            1,
            "error: `hst` is not understood; expected",
        ),
        (&["show", "flows", "hst"], 1, "error: `hst` is not understood; expected"),
        (
            &["show", "ports", "tcp"],
            2,
            "error: a filter, --sort, --all and --follow are for `margay show flows`; `ports` is shown whole",
        ),
    ];
    for (arguments, code, sentence) in wrong {
        let (exit, complaint) = bad(&running, arguments);
        assert_eq!(exit, *code, "{arguments:?}: {complaint}");
        assert!(complaint.contains(sentence), "{arguments:?}: {complaint}");
    }
}

#[test]
fn failures_are_one_sentence_and_a_code() {
    let running = Running::start(Limits::default());
    let missing = running.folder.path().join("missing.yaml").display().to_string();
    let broken = running.folder.path().join("broken.yaml").display().to_string();
    std::fs::write(&broken, PORTS.replace("left0", "a/b")).unwrap();
    let empty = running.folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["apply", "-f", &missing], 1, "cannot read"),
        (
            &["apply", "-f", empty.to_str().unwrap()],
            1,
            "holds no .yaml, .yml or .json file",
        ),
        (
            &["apply", "-f", &broken],
            1,
            "broken.yaml document 1, Port/left, field spec.device: ",
        ),
        (
            &["get", "Prot"],
            2,
            "there is no kind `Prot`; expected Port, Route, Neighbor, ",
        ),
        (&["get", "port", "nobody"], 1, "Port/nobody does not exist"),
        (&["get", "port", "../../show/ports"], 1, "does not exist"),
        (
            &["delete", "port", "nobody"],
            1,
            "Port/nobody does not exist, so it cannot be deleted",
        ),
        (
            &["show", "ports", "--socket", "/nowhere/margay.sock"],
            1,
            "cannot reach /nowhere/margay.sock: no such file; is `margay run` running?",
        ),
    ];
    for (arguments, code, part) in cases {
        let (is, complaint) = bad(&running, arguments);
        assert_eq!(is, *code, "{arguments:?}: {complaint}");
        assert!(
            complaint.contains(part) && complaint.starts_with("error: "),
            "{arguments:?}: {complaint}"
        );
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
    for arguments in [
        &["frobnicate"][..],
        &["apply"],
        &["delete"],
        &["delete", "port"],
        &["show", "pods"],
        &["trace", "add"],
        &["run", "--frames", "x"],
    ] {
        let (code, complaint) = bad(&running, arguments);
        assert_eq!(code, 2, "{arguments:?}: {complaint}");
    }
    running.plane.refuse.store(true, Ordering::Relaxed);
    let refused = with_input(margay(&running, &["apply", "-f", "-"]), PORTS);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(refused.stderr).unwrap(),
        "error: device left0 does not exist; `ip link` lists what there is\n"
    );
}

#[test]
fn rules_that_nothing_matches_are_found() {
    let running = Running::start(Limits::default());
    let all = good(&running, &["show", "policies"]);
    assert!(
        all.contains("12,345") && all.contains("3 s ago") && all.contains("never"),
        "{all}"
    );
    let unused = good(&running, &["show", "policies", "--unused", "7d"]);
    assert!(!unused.contains("12,345") && unused.contains("ingress 1"), "{unused}");
    let longer = good(&running, &["show", "policies", "--unused", "11d"]);
    assert!(longer.starts_with("every rule"), "{longer}");
    let json: Value =
        serde_json::from_str(&good(&running, &["show", "policies", "--unused", "7d", "-o", "json"])).unwrap();
    assert_eq!(json[0]["rules"][0]["rule"], 1);
    let (code, complaint) = bad(&running, &["show", "policies", "--unused", "7"]);
    assert!(
        code == 2 && complaint.contains("expected a number and a unit"),
        "{complaint}"
    );
    let (code, complaint) = bad(&running, &["show", "ports", "--since", "5m"]);
    assert_eq!(code, 2, "{complaint}");
    assert!(complaint.contains("margay show flow-logs"), "{complaint}");
    let (code, complaint) = bad(&running, &["show", "ports", "--unused", "7d"]);
    assert!(code == 2 && complaint.contains("margay show policies"), "{complaint}");
}

#[test]
fn policies_are_recommended_from_flows_and_said_where_there_are_none() {
    let running = Running::start(Limits::default());
    let text = good(&running, &["recommend", "-n", "shop"]);
    assert!(text.contains("no flow was allowed yet"), "{text}");
    let json: Value = serde_json::from_str(&good(&running, &["recommend", "-o", "json"])).unwrap();
    assert_eq!(json["policies"], serde_json::json!([]));
    let (code, complaint) = bad(&running, &["recommend", "-n", "No Name"]);
    assert!(code == 1 && complaint.contains("is not a name"), "{complaint}");
}

#[test]
fn a_dead_socket_is_said_to_be_one() {
    let running = Running::start(Limits::default());
    let dead = running.folder.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    let (code, complaint) = bad(&running, &["show", "ports", "--socket", dead.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(
        complaint.contains("nobody answers; start `margay run` again"),
        "{complaint}"
    );
}

#[test]
fn a_closed_output_is_silent() {
    let running = Running::start(Limits::default());
    let mut command = margay(&running, &["show", "ports", "--watch"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn help_offers_what_there_is() {
    let running = Running::start(Limits::default());
    let help = good(&running, &["show", "--help"]);
    assert!(
        help.contains("runtime") && help.contains("wireguard") && help.contains("policies") && !help.contains("pods"),
        "{help}"
    );
    let help = good(&running, &["--help"]);
    for command in [
        "run", "apply", "delete", "get", "show", "flows", "trace", "capture", "wg", "version",
    ] {
        assert!(help.contains(command), "{help}");
    }
}

#[test]
fn top_prints_without_a_terminal_when_asked() {
    let running = Running::start(Limits::default());
    let printed = good(&running, &["top", "--batch", "-n", "2", "--interval", "0.1"]);
    assert_eq!(printed.matches("margay    connections").count(), 2, "{printed}");
    for word in ["rx packet/s", "worker", "dropped", "left", "right"] {
        assert!(printed.contains(word), "no {word} in:\n{printed}");
    }
    let (code, sentence) = bad(&running, &["top"]);
    assert_eq!(code, 2);
    assert!(sentence.contains("--batch prints instead"), "{sentence}");
    assert_eq!(bad(&running, &["top", "--batch", "--interval", "0"]).0, 2);
}

#[test]
fn shells_complete_and_pages_are_written() {
    let running = Running::start(Limits::default());
    for shell in ["bash", "zsh", "fish"] {
        assert!(good(&running, &["completion", shell]).contains("margay"), "{shell}");
    }
    let script = good(&running, &["completion", "bash"])
        + "COMP_WORDS=(margay sho); COMP_CWORD=1; _margay margay sho margay; echo \"${COMPREPLY[@]}\"";
    let completed = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert_eq!(out(&completed).trim(), "show");
    assert!(good(&running, &["man"]).contains(".TH margay 1"));
    let folder = running.folder.path().join("man");
    std::fs::create_dir(&folder).unwrap();
    good(&running, &["man", folder.to_str().unwrap()]);
    let page = std::fs::read_to_string(folder.join("margay-show.1")).unwrap();
    assert!(
        page.contains(".TH margay-show 1") && page.contains("policies"),
        "{page}"
    );
    let (code, sentence) = bad(&running, &["man", "/nowhere/at/all"]);
    assert_eq!(code, 1);
    assert!(sentence.contains("cannot write /nowhere/at/all/margay.1"), "{sentence}");
}
