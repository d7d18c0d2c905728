//! Holds the line of the source: short files and functions, dependencies that point down, unsafe code at its address,
//! one version table, nothing left to do. Exceptions carry exact numbers, and only go down.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use toml::{Table, Value};

/// Lines a file may have.
const FILE_LINES: usize = 500;
/// Lines a function may have, from `fn` to its closing brace.
const FUNCTION_LINES: usize = 70;

/// Files that are longer, with the lines they have. Nothing is added here without a reason behind it.
const LONG_FILES: &[(&str, usize)] = &[];
/// Functions that are longer, as `FILE: FUNCTION`, with the lines they have.
const LONG_FUNCTIONS: &[(&str, usize)] = &[];
/// Files that may hold unsafe code, each with the reason.
const UNSAFE_FILES: &[(&str, &str)] = &[
    (
        "classifier/src/lookup/avx2.rs",
        "loads vectors and gathers, where the processor has them",
    ),
    (
        "classifier/src/lookup/avx512.rs",
        "loads vectors and gathers, where the processor has them",
    ),
    (
        "fastpath/src/arena.rs",
        "packets are views into memory that the kernel writes, too",
    ),
    (
        "fastpath/src/batch.rs",
        "lends one packet at a time of frames that the engine holds",
    ),
    ("fastpath/src/clock.rs", "reads the time-stamp counter"),
    ("fastpath/src/fib/arena.rs", "routes change in place under readers"),
    ("fastpath/src/graph.rs", "lends a stage the frames of its inbox"),
    ("fastpath/src/memory.rs", "maps memory and asks for huge pages"),
    (
        "fastpath/src/pool.rs",
        "lends the packet of a frame that the caller holds",
    ),
    ("fastpath/src/port/tap/device.rs", "makes TAP devices by ioctl"),
    (
        "fastpath/src/port/xdp/interface.rs",
        "asks and sets network devices by ioctl",
    ),
    (
        "fastpath/src/port/xdp/claims.rs",
        "loads the program of claims, and its map",
    ),
    ("fastpath/src/port/xdp/program.rs", "loads and attaches the XDP program"),
    ("fastpath/src/port/xdp/ring.rs", "rings shared with the kernel"),
    ("fastpath/src/port/xdp/socket.rs", "AF_XDP sockets through libxdp"),
    ("fastpath/src/port/xdp/umem.rs", "maps the memory of all packets"),
    (
        "fastpath/tests/xdp/main.rs",
        "writes into frames of the driver without the engine",
    ),
    ("fastpath/tests/xdp/net.rs", "enters network namespaces"),
    (
        "nat/src/table/memory.rs",
        "the flow table on huge pages, and prefetching of its lines",
    ),
    (
        "nat/src/table/x86.rs",
        "compares and hashes in vectors, where the processor has them",
    ),
    (
        "wireguard/src/aead/avx2.rs",
        "loads and stores vectors, where the processor has them",
    ),
    (
        "wireguard/src/aead/avx512.rs",
        "loads and stores vectors, where the processor has them",
    ),
    (
        "wireguard/src/aead/constant_time.rs",
        "tells valgrind what is secret, in a test",
    ),
    ("wireguard/tests/aead_guard.rs", "maps pages that must not be touched"),
    ("wireguard/tests/aead_wipe.rs", "searches the stack for secrets"),
];

/// Who may know whom: the arrows of docs/architecture.md. Nobody knows bench and testbed.
const ARROWS: &[(&str, &[&str])] = &[
    ("fastpath", &[]),
    ("classifier", &["fastpath"]),
    ("nat", &["fastpath"]),
    ("wireguard", &["fastpath"]),
    ("control", &["fastpath", "classifier", "nat", "wireguard"]),
    ("bench", &["fastpath", "classifier", "nat", "wireguard", "control"]),
    ("testbed", &["fastpath", "classifier", "nat", "wireguard", "control"]),
];
/// Crates that may test and measure with whatever they like.
const FREE_IN_TESTS: &[&str] = &["bench", "testbed"];

/// Macros that say work is not done.
const UNFINISHED: &[&str] = &["todo", "unimplemented", "dbg"];

#[test]
fn files_and_functions_are_short() {
    let sources = sources();
    assert!(sources.len() >= ARROWS.len(), "only {} files were found", sources.len());
    let files = sources
        .iter()
        .map(|(path, text)| (path.clone(), text.lines().count()))
        .collect();
    let mut functions_found = BTreeMap::new();
    for (path, text) in &sources {
        for (name, lines) in functions(&tokens(path, text)) {
            // Of namesakes in a file the longest counts.
            let longest: &mut usize = functions_found.entry(format!("{path}: {name}")).or_default();
            *longest = lines.max(*longest);
        }
    }
    let mut found = above(&files, FILE_LINES, LONG_FILES);
    found.extend(above(&functions_found, FUNCTION_LINES, LONG_FUNCTIONS));
    none(&found);
}

#[test]
fn unsafe_code_is_where_it_is_listed() {
    let with_unsafe: BTreeMap<String, usize> = sources()
        .into_iter()
        .map(|(path, text)| (path.clone(), count_unsafe(tokens(&path, &text))))
        .filter(|(_, count)| *count > 0)
        .collect();
    let listed = |path: &str| UNSAFE_FILES.iter().any(|(file, _)| *file == path);
    let mut found: Vec<String> = with_unsafe.keys().filter(|path| !listed(path)).cloned().collect();
    found
        .iter_mut()
        .for_each(|path| path.push_str(": unsafe code, and UNSAFE_FILES does not list the file"));
    for (path, reason) in UNSAFE_FILES {
        if !with_unsafe.contains_key(*path) {
            found.push(format!("{path}: no unsafe code any more; take it from UNSAFE_FILES"));
        }
        if reason.is_empty() {
            found.push(format!("{path}: UNSAFE_FILES gives no reason"));
        }
    }
    none(&found);
}

#[test]
fn nothing_is_left_undone() {
    let mut found = Vec::new();
    for (path, text) in sources() {
        unfinished(tokens(&path, &text), &mut |line, what| {
            found.push(format!("{path}:{line}: {what}"))
        });
    }
    none(&found);
}

#[test]
fn dependencies_point_down_and_take_their_versions_from_the_workspace() {
    let mut found = Vec::new();
    for (name, may_know) in ARROWS {
        found.extend(dependency_faults(name, may_know, &manifest(name)));
    }
    none(&found);
}

#[test]
fn the_workspace_rules_every_crate() {
    let root = manifest(".");
    let members: Vec<&str> = root["workspace"]["members"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let mut known: Vec<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    known.sort_unstable();
    let mut sorted = members.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, known, "ARROWS and the members of the workspace differ");
    for lint in ["missing_docs", "unsafe_code", "unsafe_op_in_unsafe_fn"] {
        assert_eq!(
            root["workspace"]["lints"]["rust"][lint].as_str(),
            Some("deny"),
            "{lint}"
        );
    }
    let strays: Vec<_> = members
        .into_iter()
        .filter(|name| !inherits_lints(&manifest(name)))
        .collect();
    assert!(
        strays.is_empty(),
        "without `[lints] workspace = true`: {}",
        strays.join(", ")
    );
}

/// Fails with one line for each thing found.
fn none(found: &[String]) {
    assert!(found.is_empty(), "{} to tidy:\n{}\n", found.len(), found.join("\n"));
}

/// What is above the limit and not excepted, and exceptions that allow more than there is.
fn above(counts: &BTreeMap<String, usize>, limit: usize, exceptions: &[(&str, usize)]) -> Vec<String> {
    let excepted = |name: &str| {
        exceptions
            .iter()
            .find(|(other, _)| *other == name)
            .map(|(_, lines)| *lines)
    };
    let long = counts.iter().filter_map(|(name, &lines)| match excepted(name) {
        None if lines > limit => Some(format!("{name}: {lines} lines, {limit} are allowed")),
        Some(allowed) if lines > allowed => Some(format!("{name}: {lines} lines, and its exception is for {allowed}")),
        Some(_) if lines <= limit => Some(format!("{name}: {lines} lines; its exception has to go")),
        Some(allowed) if lines < allowed => Some(format!("{name}: {lines} lines; its exception goes down to that")),
        _ => None,
    });
    let gone = exceptions.iter().filter(|(name, _)| !counts.contains_key(*name));
    long.chain(gone.map(|(name, _)| format!("{name}: is no more; its exception has to go")))
        .collect()
}

/// Name and lines of each function with a body, wherever it stands, also inside macros.
fn functions(stream: &TokenStream) -> Vec<(String, usize)> {
    let trees: Vec<TokenTree> = stream.clone().into_iter().collect();
    let mut found = Vec::new();
    for (place, tree) in trees.iter().enumerate() {
        if let TokenTree::Group(group) = tree {
            found.extend(functions(&group.stream()));
        }
        let (true, Some(TokenTree::Ident(name))) = (is_word(tree, "fn"), trees.get(place + 1)) else {
            continue; // `fn(` is a type
        };
        let start = tree.span().start().line;
        let end = trees[place..].iter().find_map(|tree| match tree {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(Some(group.span().end().line)),
            TokenTree::Punct(mark) if mark.as_char() == ';' => Some(None), // a declaration
            _ => None,
        });
        if let Some(Some(end)) = end {
            found.push((name.to_string(), end + 1 - start));
        }
    }
    found
}

/// How often `unsafe` is said or allowed. Comments and strings do not count.
fn count_unsafe(stream: TokenStream) -> usize {
    let count = |tree| match tree {
        TokenTree::Group(group) => count_unsafe(group.stream()),
        tree => usize::from(is_word(&tree, "unsafe") || is_word(&tree, "unsafe_code")),
    };
    stream.into_iter().map(count).sum()
}

/// Tells line and kind of each thing that says work is not done: `todo!` and its like, and tests that are ignored.
fn unfinished(stream: TokenStream, tell: &mut impl FnMut(usize, String)) {
    let trees: Vec<TokenTree> = stream.into_iter().collect();
    for (place, tree) in trees.iter().enumerate() {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Ident(word) => {
                let called = trees.get(place + 1).is_some_and(|next| is_mark(next, '!'));
                if called && UNFINISHED.iter().any(|name| word == name) {
                    tell(line, format!("{word}!"));
                }
            }
            TokenTree::Group(group) => {
                let attribute = place > 0 && is_mark(&trees[place - 1], '#');
                if attribute && says(group.stream(), "ignore") {
                    tell(line, "a test that is ignored".to_owned());
                }
                unfinished(group.stream(), tell);
            }
            _ => {}
        }
    }
}

fn says(stream: TokenStream, word: &str) -> bool {
    stream.into_iter().any(|tree| match tree {
        TokenTree::Group(group) => says(group.stream(), word),
        tree => is_word(&tree, word),
    })
}

fn is_word(tree: &TokenTree, word: &str) -> bool {
    matches!(tree, TokenTree::Ident(ident) if ident == word)
}

fn is_mark(tree: &TokenTree, mark: char) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == mark)
}

/// What is wrong with the dependencies of a crate.
fn dependency_faults(name: &str, may_know: &[&str], manifest: &Table) -> Vec<String> {
    let mut found = Vec::new();
    for (kind, dependency, entry) in dependencies(manifest) {
        let ours = ARROWS.iter().any(|(other, _)| *other == dependency);
        let free = kind == "dev-dependencies" && FREE_IN_TESTS.contains(&name);
        if ours && !may_know.contains(&dependency) && !free {
            found.push(format!("{name}/Cargo.toml: {name} must not know {dependency}"));
        }
        let inherited = entry.get("workspace").and_then(Value::as_bool) == Some(true);
        if !inherited || ["version", "git", "path"].iter().any(|key| entry.get(key).is_some()) {
            found.push(format!(
                "{name}/Cargo.toml: say `{dependency}.workspace = true`; versions stand in the workspace"
            ));
        }
    }
    found
}

/// Kind, name and entry of each dependency, also of those for some targets only.
fn dependencies(manifest: &Table) -> Vec<(&str, &str, &Value)> {
    let targets = manifest
        .get("target")
        .and_then(Value::as_table)
        .into_iter()
        .flat_map(Table::values);
    let tables = std::iter::once(manifest).chain(targets.filter_map(Value::as_table));
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    tables
        .flat_map(|table| {
            kinds
                .iter()
                .filter_map(|&kind| Some((kind, table.get(kind)?.as_table()?)))
        })
        .flat_map(|(kind, entries)| entries.iter().map(move |(name, entry)| (kind, name.as_str(), entry)))
        .collect()
}

fn inherits_lints(manifest: &Table) -> bool {
    manifest
        .get("lints")
        .and_then(|lints| lints.get("workspace"))
        .and_then(Value::as_bool)
        == Some(true)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn manifest(folder: &str) -> Table {
    let path = root().join(folder).join("Cargo.toml");
    std::fs::read_to_string(&path)
        .unwrap()
        .parse()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Path from the root and text of every Rust file, but those cargo or git made.
fn sources() -> Vec<(String, String)> {
    let (mut folders, mut files) = (vec![root()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            let made = name == "target" || name.starts_with('.');
            match entry.file_type().unwrap().is_dir() {
                true if !made => folders.push(path),
                false if name.ends_with(".rs") => {
                    let short = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                    files.push((short, std::fs::read_to_string(&path).unwrap()));
                }
                _ => {}
            }
        }
    }
    files.sort();
    files
}

fn tokens(path: &str, text: &str) -> TokenStream {
    text.parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rules themselves, held against what breaks them.
mod rules {
    use super::*;

    #[test]
    fn functions_are_found_and_measured_wherever_they_stand() {
        let source = "
            fn one() {}
            trait T { fn declared(&self); fn given(&self) -> [u8; { 4 }] {
                [0; 4]
            } }
            wrap! { fn inner(call: fn(u8) -> u8)
                where u8: Copy
            {
                // } in a comment
                \"} in a string\";
            } }";
        let expected = [("one", 1), ("given", 3), ("inner", 6)].map(|(name, lines)| (name.to_owned(), lines));
        assert_eq!(functions(&tokens("sample", source)), expected);
    }

    #[test]
    fn exceptions_only_go_down() {
        let counts = |lines| BTreeMap::from([("a.rs".to_owned(), lines)]);
        assert!(above(&counts(500), 500, &[]).is_empty());
        assert!(above(&counts(600), 500, &[("a.rs", 600)]).is_empty());
        let said = |lines, exceptions| above(&counts(lines), 500, exceptions).join("\n");
        assert_eq!(said(501, &[]), "a.rs: 501 lines, 500 are allowed");
        assert_eq!(
            said(601, &[("a.rs", 600)]),
            "a.rs: 601 lines, and its exception is for 600"
        );
        assert_eq!(
            said(599, &[("a.rs", 600)]),
            "a.rs: 599 lines; its exception goes down to that"
        );
        assert_eq!(said(500, &[("a.rs", 600)]), "a.rs: 500 lines; its exception has to go");
        assert_eq!(said(1, &[("b.rs", 600)]), "b.rs: is no more; its exception has to go");
    }

    #[test]
    fn unsafe_is_counted_in_code_only() {
        assert_eq!(
            count_unsafe(tokens("sample", "/* unsafe */ fn f() { \"unsafe\"; } // unsafe")),
            0
        );
        let source = "#![allow(unsafe_code)] m! { unsafe impl Send for X {} } fn f() { unsafe { g() } }";
        assert_eq!(count_unsafe(tokens("sample", source)), 3);
    }

    #[test]
    fn unfinished_work_is_found() {
        let source =
            "// todo!()\n#[ignore]\nfn f() { todo!() }\n#[cfg_attr(x, ignore = \"slow\")]\nfn todo() { m!(dbg!(1)) }";
        let mut found = Vec::new();
        unfinished(tokens("sample", source), &mut |line, what| found.push((line, what)));
        let ignored = "a test that is ignored".to_owned();
        assert_eq!(
            found,
            [
                (2, ignored.clone()),
                (3, "todo!".to_owned()),
                (4, ignored),
                (5, "dbg!".to_owned())
            ]
        );
    }

    #[test]
    fn dependencies_that_break_the_rules_are_named() {
        let faults = |text: &str| dependency_faults("nat", &["fastpath"], &text.parse().unwrap()).join("\n");
        assert_eq!(
            faults("[dependencies]\nfastpath.workspace = true\nlibc = { workspace = true, features = [] }"),
            ""
        );
        assert_eq!(
            faults("[dev-dependencies]\ncontrol.workspace = true"),
            "nat/Cargo.toml: nat must not know control"
        );
        let versioned = "nat/Cargo.toml: say `libc.workspace = true`; versions stand in the workspace";
        assert_eq!(faults("[build-dependencies]\nlibc = \"1\""), versioned);
        assert_eq!(
            faults("[target.'cfg(unix)'.dependencies]\nlibc = { git = \"x\" }"),
            versioned
        );
        let bench: Table = "[dev-dependencies]\ntestbed.workspace = true".parse().unwrap();
        assert!(dependency_faults("bench", &[], &bench).is_empty());
        assert!(!inherits_lints(&bench) && inherits_lints(&"[lints]\nworkspace = true".parse().unwrap()));
    }
}
