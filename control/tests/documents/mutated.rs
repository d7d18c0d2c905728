//! Documents broken at random: each is read or refused in one sentence; none stops the process.

use std::panic::catch_unwind;

use control::resource::{Source, read};

/// One document of each language that is parsed inside a document: addresses, ports, selectors, keys, durations.
const SEEDS: &[&str] = &[
    r#"{apiVersion: margay/v1, kind: Port, metadata: {name: left, labels: {side: left}}, spec: {device: left0, mtu: 1500, addresses: [10.1.0.1/24, "fd00:1::1/64"]}}"#,
    r#"{apiVersion: margay/v1, kind: Route, metadata: {name: r}, spec: {destination: 10.20.0.0/16, via: [{gateway: 10.2.0.2}, {gateway: 10.2.0.3, weight: 2}]}}"#,
    r#"{apiVersion: margay/v1, kind: Neighbor, metadata: {name: n}, spec: {port: left, address: 10.2.0.2, mac: "02:00:00:00:00:02"}}"#,
    r#"apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: { name: web }
spec:
  order: 10.5
  selector: has(role) && role in {'web', "app"} && !(tier == 'db' || all())
  types: [Ingress, Egress]
  ingress:
    - action: Allow
      protocol: TCP
      source: { selector: "env not in {'dev'}", notNets: [10.0.0.0/8] }
      destination: { ports: [80, "8000:8080"] }
  egress:
    - action: Deny
      protocol: ICMP
      icmp: { type: 8, code: 0 }
"#,
    r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: db, namespace: shop }
spec:
  podSelector: { matchLabels: { role: db }, matchExpressions: [{ key: env, operator: NotIn, values: [dev] }] }
  policyTypes: [Ingress]
  ingress:
    - from:
        - ipBlock: { cidr: 172.17.0.0/16, except: [172.17.1.0/24] }
        - namespaceSelector: { matchLabels: { team: a } }
      ports: [{ protocol: TCP, port: 6379, endPort: 6400 }]
"#,
];

/// What parsers have stumbled over before.
const TOKENS: &[&str] = &[
    "",
    "\n",
    "---\n",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "'",
    "\"",
    "&a ",
    "*a",
    "<<: ",
    "!!binary ",
    "? ",
    "|\n",
    "\t",
    "\0",
    "\u{feff}",
    "é",
    "null",
    "~",
    "true",
    "-1",
    "0",
    "65536",
    "4294967296",
    "18446744073709551616",
    "1e999",
    ".nan",
    "0x",
    "::/129",
    "0.0.0.0/0",
    "/33",
    "a.yaml",
    "kind: Port",
    "&&",
    "||",
    "!",
    "(",
    "((((((((((((((((",
    "in {",
    "has(",
];

/// Few enough to be quick in a debug build.
const ROUNDS: usize = 3000;

/// Marsaglia's xorshift: the same documents in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

#[test]
fn a_document_broken_at_random_is_read_or_refused_in_one_sentence() {
    let mut random = Random(0x6d61_7267_6179);
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let mut bytes = SEEDS[round % SEEDS.len()].as_bytes().to_vec();
        for _ in 0..1 + random.below(2) {
            mutate(&mut bytes, &mut random);
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let sources = vec![Source::file("a.yaml", text.as_str())];
        match catch_unwind(|| read(&sources).map(|_| ())) {
            Ok(Ok(())) => accepted += 1,
            Ok(Err(refusal)) => {
                refused += 1;
                let error = &refusal.error;
                assert!(!error.is_empty() && !error.contains('\n'), "{error:?}\nfrom: {text}");
                let document = refusal.document.as_deref().unwrap_or_default();
                assert!(
                    error.starts_with(document),
                    "{error:?} does not name {document:?}\nfrom: {text}"
                );
            }
            Err(_) => panic!("reading panicked\nfrom: {text:?}"),
        }
    }
    // A mutator that breaks everything, or nothing, would test little.
    assert!(
        accepted > ROUNDS / 100 && refused > ROUNDS / 4,
        "{accepted} read, {refused} refused"
    );
}

/// One change: a byte, a token, a piece gone, a piece twice, or another document's end.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len());
    let end = (at + 1 + random.below(24)).min(bytes.len());
    match random.below(6) {
        0 if at < end => bytes[at] ^= 1 << random.below(8),
        1 => {
            bytes.splice(at..at, TOKENS[random.below(TOKENS.len())].bytes());
        }
        2 if at < end => {
            bytes.splice(at..end, TOKENS[random.below(TOKENS.len())].bytes());
        }
        3 if at < end => {
            bytes.drain(at..end);
        }
        4 if at < end => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => {
            let other = SEEDS[random.below(SEEDS.len())].as_bytes();
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.below(other.len())..]);
        }
    }
}
