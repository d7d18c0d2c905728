//! `margay wg`: keys as wg(8) makes them, and files of wg-quick(8) there and back.

mod common;

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{Running, get};
use control::server::Limits;

const PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
const PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
const PEER: &str = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";

fn margay(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_margay"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who does not read is refused for another reason.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn good(arguments: &[&str], input: &str) -> (String, String) {
    let output = margay(arguments, input);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, complaint) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {complaint}");
    (out, complaint)
}

fn bad(arguments: &[&str], input: &str) -> String {
    let output = margay(arguments, input);
    assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn keys_are_made_and_derived() {
    assert_eq!(
        good(&["wg", "pubkey"], &format!("{PRIVATE}\n")).0,
        format!("{PUBLIC}\n")
    );
    let (one, other) = (good(&["wg", "genkey"], "").0, good(&["wg", "genkey"], "").0);
    assert_ne!(one, other);
    assert_eq!((one.len(), good(&["wg", "genpsk"], "").0.len()), (45, 45));
    assert_eq!(good(&["wg", "pubkey"], &one).0.len(), 45);
    for input in ["", "nonsense\n", &PRIVATE[1..]] {
        let said = bad(&["wg", "pubkey"], input);
        assert!(said.contains("holds no key; expected a key: 44 characters"), "{said}");
        assert!(!said.contains("nonsense"));
    }
}

fn file() -> String {
    format!(
        "[Interface]\nAddress = 10.9.0.2/24, fd00:9::2/64\nPrivateKey = {PRIVATE}\nListenPort = 51000\nMTU = 1400\n\
         DNS = 10.9.0.1\nPostUp = echo %i\n\n[Peer]\n# hub\nPublicKey = {PEER}\nPresharedKey = {PRIVATE}\n\
         AllowedIPs = 10.9.0.0/24, fd00:9::/64\nEndpoint = 192.0.2.1:51820\nPersistentKeepalive = 25\n\n\
         [Peer]\nPublicKey = {PUBLIC}\nAllowedIPs = 10.8.0.1/32\n"
    )
    .replace(PUBLIC, "SElbLmXZVcsIwLZIk+1dbcCE1RBlCgFXTLSvEkSg6Tk=")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_file_goes_in_and_comes_out_again() {
    let running = Running::start(Limits::default());
    let folder = running.folder.path();
    let (conf, keys) = (folder.join("wg0.conf"), folder.join("keys"));
    std::fs::write(&conf, file()).unwrap();
    let import = ["wg", "import", text(&conf), "--out", text(&keys)];
    let (yaml, warnings) = good(&import, "");
    assert!(
        !yaml.contains(PRIVATE) && !warnings.contains(PRIVATE),
        "keys go to files alone"
    );
    assert!(
        warnings.contains("line 6: DNS was left out") && warnings.contains("line 7: PostUp"),
        "{warnings}"
    );
    for key in ["wg0.key", "wg0-hub.psk"] {
        let path = keys.join(key);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{PRIVATE}\n"));
    }
    // The same once more finds its keys there, and applies what it would print.
    let socket = ["--socket", text(&running.socket)];
    let (applied, _) = good(&[&import[..], &["--apply"], &socket].concat(), "");
    assert_eq!(
        applied,
        "WireguardInterface/wg0 created\nWireguardPeer/hub created\nWireguardPeer/wg0-2 created\n"
    );
    let (_, resources) = get(&running.socket, "/v1/resources");
    assert_eq!(resources["items"][0]["status"]["publicKey"], PUBLIC);
    let (exported, _) = good(&[&["wg", "export", "wg0"][..], &socket].concat(), "");
    assert!(!exported.contains(PRIVATE), "{exported}");
    assert!(
        exported.contains(&format!(
            "PostUp = wg set %i private-key {}",
            text(&keys.join("wg0.key"))
        )),
        "{exported}"
    );
    // And back: the same resources.
    let (again, _) = good(&["wg", "import", "-", "--name", "wg0", "--out", text(&keys)], &exported);
    assert_eq!(again, yaml);
    // A name of a key that a shell would take for a command is not handed to wg-quick.
    let odd = keys.join("a;b.key");
    std::fs::copy(keys.join("wg0.key"), &odd).unwrap();
    let changed = yaml.replace(text(&keys.join("wg0.key")), text(&odd));
    good(&[&["apply", "-f", "-"][..], &socket].concat(), &changed);
    let refused = bad(&[&["wg", "export", "wg0"][..], &socket].concat(), "");
    assert!(
        refused.contains("a;b.key` has a name that a shell takes apart"),
        "{refused}"
    );
    let missing = bad(&[&["wg", "export", "wg7"][..], &socket].concat(), "");
    assert!(missing.contains("WireguardInterface/wg7 does not exist"), "{missing}");
}

#[test]
fn what_cannot_be_imported_is_named_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("wg0.conf");
    std::fs::write(&conf, file().replace("MTU = 1400", "MTU = big")).unwrap();
    let said = bad(&["wg", "import", text(&conf)], "");
    assert!(said.contains("wg0.conf, line 5: MTU is `big`"), "{said}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(bad(&["wg", "import", "/no/such/file"], "").contains("cannot read /no/such/file"));
    assert!(bad(&["wg", "import", "-"], &file()).contains("--name"));
    assert!(bad(&["wg", "import", text(&conf), "--name", "A"], &file()).contains("line 5"));
    std::fs::write(&conf, file()).unwrap();
    assert!(bad(&["wg", "import", text(&conf), "--name", "A"], "").contains("`A` is not a name"));
    // Another key there stays.
    std::fs::write(folder.path().join("wg0.key"), PEER).unwrap();
    let said = bad(&["wg", "import", text(&conf)], "");
    assert!(said.contains("cannot write a key") && said.contains("--out"), "{said}");
    assert_eq!(std::fs::read_to_string(folder.path().join("wg0.key")).unwrap(), PEER);
}

/// The page shows resources that can be applied as they stand, and explains every field of them.
#[test]
fn the_page_shows_what_can_be_applied() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/wireguard.md");
    let page = std::fs::read_to_string(page).unwrap();
    let fences = page
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let folder = tempfile::tempdir().unwrap();
    for key in ["wg0.key", "laptop.psk"] {
        std::fs::write(folder.path().join(key), PRIVATE).unwrap();
    }
    // The branch's key is the one that belongs to the key above.
    let yaml = fences
        .collect::<Vec<_>>()
        .join("---\n")
        .replace("/etc/margay/keys", text(folder.path()));
    let yaml = yaml.replace(PUBLIC, "SElbLmXZVcsIwLZIk+1dbcCE1RBlCgFXTLSvEkSg6Tk=");
    let documents = control::resource::read(&[control::resource::Source::file("wireguard.md", yaml)]).unwrap();
    assert_eq!(documents.len(), 3);
    for document in &documents {
        let value = serde_json::to_value(&document.resource).unwrap();
        for field in value["spec"].as_object().unwrap().keys() {
            assert!(page.contains(&format!("| `{field}` |")), "{field}");
        }
    }
    let request = control::store::Request::Apply(documents);
    let plan = control::store::Store::default()
        .plan(request)
        .unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(plan.changes.len(), 3);
}
