//! The fuzz targets without libFuzzer: what it has found is tried in every run, and so is what follows from that by a few
//! changes, the same ones each time. `make fuzz` searches on; what it finds goes to `regressions`.

mod targets;

use std::fs;
use std::path::{Path, PathBuf};

use targets::{ALL, Run, Target};

/// What an input may grow to, in bytes.
const LENGTH: usize = 4096;
/// All that is kept, in bytes.
const KEPT: usize = 1 << 20;

/// Marsaglia's xorshift: the same changes in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind)
}

/// The files of a target, by name. A target without regressions has no folder for them.
fn inputs(kind: &str, target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(folder) = fs::read_dir(folder(kind).join(target.name)) else {
        return vec![];
    };
    let mut paths: Vec<PathBuf> = folder.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// The words of a target's language, as libFuzzer reads them, too. Targets without one have no file.
fn words(target: &Target) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(folder("words").join(target.name).with_extension("txt")).unwrap_or_default();
    let word = |line: &str| {
        let inner = line.trim_matches('"').replace("\\x0a", "\n").replace("\\x0d", "\r");
        inner.replace("\\\"", "\"").into_bytes()
    };
    text.lines().map(word).collect()
}

/// One to four changes: a byte, a bit, a cut, a piece left out, said twice, or of another input, a word.
fn change(random: &mut Random, corpus: &[(PathBuf, Vec<u8>)], words: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].1.clone();
    for _ in 0..=random.below(4) {
        let place = random.below(input.len() + 1);
        let end = place + random.below(input.len() + 1 - place).min(64);
        match random.below(7) {
            0 if place < input.len() => input[place] = random.below(256) as u8,
            1 if place < input.len() => input[place] ^= 1 << random.below(8),
            2 => input.truncate(place),
            3 => drop(input.drain(place..end)),
            4 => {
                let piece = input[place..end].to_vec();
                input.splice(place..place, piece);
            }
            5 if !words.is_empty() => {
                let word = &words[random.below(words.len())];
                input.splice(place..place + random.below(end + 1 - place), word.iter().copied());
            }
            _ => {
                let other = &corpus[random.below(corpus.len())].1;
                let from = random.below(other.len());
                let piece = other[from..].iter().take(random.below(64)).copied();
                input.splice(place..place, piece);
            }
        }
        input.truncate(LENGTH);
    }
    input
}

/// Says which input it was before the panic's own words are seen again.
struct Named<'a>(&'a str, &'a [u8]);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: b\"{}\"", self.0, self.1.escape_ascii());
        }
    }
}

fn attempt(run: &mut Run, name: &str, input: &[u8]) {
    let _named = Named(name, input);
    run(input);
}

/// What is kept, and changes of it.
fn replay(name: &str, changes: usize) {
    let target = ALL.iter().find(|target| target.name == name).unwrap();
    let corpus = inputs("corpus", target);
    assert!(!corpus.is_empty(), "testbed/fuzz/corpus has nothing for {name}");
    let mut run = (target.start)();
    for (path, input) in inputs("regressions", target).iter().chain(&corpus) {
        attempt(&mut run, &path.display().to_string(), input);
    }
    let (mut random, words) = (Random(0x6d61_7267_6179), words(target));
    for _ in 0..changes {
        attempt(&mut run, name, &change(&mut random, &corpus, &words));
    }
}

/// A test for each target, so that they run beside each other, with changed inputs for two or three seconds in a debug build;
/// and a list of them to hold against [`ALL`].
macro_rules! replay {
    ($($target:ident: $changes:expr,)*) => {
        $(#[test]
        fn $target() {
            replay(stringify!($target), $changes);
        })*

        #[test]
        fn every_target_is_replayed_and_what_is_kept_is_small() {
            assert_eq!(ALL.iter().map(|target| target.name).collect::<Vec<_>>(), [$(stringify!($target)),*]);
            let kept = ALL.iter().flat_map(|target| [inputs("corpus", target), inputs("regressions", target)].concat());
            let bytes: usize = kept.map(|(_, input)| input.len()).sum();
            assert!(bytes < KEPT, "{bytes} bytes are kept");
        }
    };
}

replay! {
    filters: 2000,
    graph: 20_000,
    http: 2000,
    policies: 4000,
    resources: 4000,
    selectors: 50_000,
    wireguard: 500,
}
