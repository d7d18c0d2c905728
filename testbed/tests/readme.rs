//! Keeps the pages true: what they show of the program is compared with what the program says of itself.
//!
//! `UPDATE_README=1` rewrites the picture of the graph in README.md, `UPDATE_DOCS=1` the table of drop reasons in
//! docs/operations.md. The rest is prose, and has to be put right by hand.

#[path = "readme/metrics.rs"]
mod metrics;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use control::plane::{DataPlane, ManualPlane, PlaneOptions};
use control::resource::{Source, read};
use control::show::View;
use control::store::{Request, Store};
use fastpath::builder::UNDECIDED_REASON;
use fastpath::worker::Idle;
use toml::Table;

const README: &str = "README.md";
const OPERATIONS: &str = "docs/operations.md";
const DECISIONS: &str = "docs/decisions.md";
const PAGES: &[&str] = &[README, OPERATIONS, DECISIONS, "docs/architecture.md", "CHANGELOG.md"];
/// Made by `make bench`, so a clone need not have it.
const MADE: &str = "bench/results";

#[test]
fn the_readme_shows_the_graph_as_it_is() {
    let mut plane = ManualPlane::new(&options()).unwrap();
    let picture = plane.views().graph().text;
    kept_true(README, "graph", &format!("```\n{picture}```\n"), "UPDATE_README");
}

#[test]
fn the_operations_page_explains_every_reason() {
    let mut plane = ManualPlane::new(&options()).unwrap();
    let stages = plane.worker(0).unwrap().graph().stages().clone();
    let mut table = "| node | reason | what it means |\n| --- | --- | --- |\n".to_owned();
    // A second instance of a node has the reasons of the first.
    for stage in stages.iter().filter(|stage| !stage.name.contains('/')) {
        let reasons = stage.drops.iter().filter(|reason| **reason != UNDECIDED_REASON);
        let edges = stage.edges.iter().zip(stage.edge_sentences);
        let told = edges.map(|((edge, _), sentence)| (*edge, *sentence));
        for (reason, sentence) in reasons
            .copied()
            .chain(told.filter(|(_, sentence)| !sentence.is_empty()))
        {
            let _ = writeln!(table, "| {} | `{reason}` | {sentence} |", stage.name);
        }
    }
    let (reason, sentence) = UNDECIDED_REASON;
    let _ = writeln!(table, "| any | `{reason}` | {sentence} |");
    kept_true(OPERATIONS, "drops", &table, "UPDATE_DOCS");
}

#[test]
fn the_operations_page_names_the_flags_of_run_and_no_others() {
    let command = <control::run::RunOptions as clap::Args>::augment_args(clap::Command::new("run"));
    let mut missing = Missing::of(OPERATIONS);
    for argument in command.get_arguments() {
        missing.expect(&format!("`--{}", argument.get_long().expect("every flag has a name")));
        let variable = argument.get_env().expect("every flag has a variable");
        missing.expect(&format!("`{}`", variable.to_string_lossy()));
        for default in argument.get_default_values() {
            missing.expect(&format!("`{}`", default.to_string_lossy()));
        }
    }
    missing.none();
    let known = |flag: &str| {
        command
            .get_arguments()
            .any(|argument| argument.get_long() == Some(flag))
    };
    let page = text(OPERATIONS);
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `--"));
    let flags: Vec<&str> = rows.filter_map(|row| row.split([' ', '`']).next()).collect();
    assert!(!flags.is_empty() && flags.iter().all(|flag| known(flag)), "{flags:?}");
}

#[test]
fn the_operations_page_names_every_view_path_and_metric() {
    let mut missing = Missing::of(OPERATIONS);
    for view in View::ALL {
        missing.expect(&format!("`show {view}`"));
    }
    for path in control::server::openapi().paths.paths.keys() {
        missing.expect(&format!("`{path}`"));
    }
    let plane = DataPlane::start(&options()).unwrap();
    let metrics = control::metrics::text(&plane);
    let names = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    for name in names.filter_map(|line| line.split(' ').next()) {
        missing.expect(&format!("`{name}`"));
    }
    missing.none();
}

/// Every resource in a page can be applied, those of a page all together, and every field of each kind is explained.
#[test]
fn the_resources_in_the_pages_are_understood() {
    let mut fields = BTreeSet::new();
    for page in [README, OPERATIONS] {
        let documents = fences(&text(page), "yaml").join("---\n");
        let documents = read(&[Source::file(page, documents)]).unwrap_or_else(|refusal| panic!("{refusal}"));
        assert!(!documents.is_empty(), "{page} shows no resource");
        for document in &documents {
            let value = serde_json::to_value(&document.resource).unwrap();
            fields.extend(value["spec"].as_object().unwrap().keys().cloned());
        }
        if let Err(refusal) = Store::default().plan(Request::Apply(documents)) {
            panic!("{refusal}");
        }
    }
    let mut missing = Missing::of(OPERATIONS);
    fields
        .iter()
        .for_each(|field| missing.expect(&format!("| `{field}` |")));
    missing.none();
}

/// The other pages show resources too, which stand on ports of their reader's.
#[test]
fn the_resources_in_other_pages_can_be_read() {
    for page in [
        "docs/nat.md",
        "docs/ports.md",
        "docs/services.md",
        "docs/policy.md",
        "docs/qos.md",
        "docs/routing.md",
    ] {
        let fences = fences(&text(page), "yaml");
        assert!(!fences.is_empty(), "{page} shows no resource");
        for documents in fences {
            let read = read(&[Source::file(page, documents)]);
            assert!(!read.unwrap_or_else(|refusal| panic!("{refusal}")).is_empty(), "{page}");
        }
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest: Table = text("Cargo.toml").parse().unwrap();
    let dependencies = manifest["workspace"]["dependencies"].as_table().unwrap();
    let foreign = dependencies.iter().filter(|(_, entry)| entry.get("path").is_none());
    let mut missing = Missing::of(DECISIONS);
    foreign.for_each(|(name, _)| missing.expect(&format!("`{name}`")));
    missing.none();
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for page in PAGES {
        let content = text(page);
        let targets = content.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let file = target.split('#').next().unwrap_or_default();
            let path = root().join(page).parent().unwrap().join(file);
            if !path.exists() && !file.contains(MADE) {
                broken.push(format!("{page}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// What a page should name and does not.
struct Missing {
    page: &'static str,
    text: String,
    words: Vec<String>,
    asked: usize,
}

impl Missing {
    fn of(page: &'static str) -> Self {
        Self {
            page,
            text: text(page),
            words: Vec::new(),
            asked: 0,
        }
    }

    fn expect(&mut self, word: &str) {
        self.asked += 1;
        if !self.text.contains(word) {
            self.words.push(word.to_owned());
        }
    }

    fn none(self) {
        assert!(self.asked > 0, "nothing was asked of {}", self.page);
        assert!(
            self.words.is_empty(),
            "{} does not name {}",
            self.page,
            self.words.join(", ")
        );
    }
}

fn options() -> PlaneOptions {
    PlaneOptions {
        flows: 1 << 16,
        frames: 1024,
        cores: vec![None],
        idle: Idle::Adaptive,
        place: Default::default(),
    }
}

/// Compares what stands between the markers of `name` in a page with what should, or writes it there.
fn kept_true(page: &str, name: &str, truth: &str, variable: &str) {
    let content = text(page);
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let start = content.find(&begin).unwrap_or_else(|| panic!("{page} has no {begin}")) + begin.len();
    let length = content[start..]
        .find(&end)
        .unwrap_or_else(|| panic!("{page} has no {end}"));
    let shown = &content[start..start + length];
    if std::env::var_os(variable).is_some() {
        let rewritten = format!("{}{truth}{}", &content[..start], &content[start + length..]);
        // In one step: the other tests of this process are reading the page.
        let (path, new) = (root().join(page), root().join(format!("{page}.new")));
        std::fs::write(&new, rewritten).unwrap();
        std::fs::rename(&new, &path).unwrap();
        return;
    }
    assert!(
        shown == truth,
        "{page} is out of date; `{variable}=1 cargo test --package testbed --test readme` rewrites it. It should show\n{truth}"
    );
}

/// The fenced blocks of a language.
fn fences(page: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    let blocks = page.split(&opening).skip(1);
    blocks
        .filter_map(|rest| rest.split("```").next())
        .map(str::to_owned)
        .collect()
}

fn text(page: &str) -> String {
    let path = root().join(page);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
