//! The targets under libFuzzer, for `make fuzz`: `FUZZ_TARGET` names one.
#![no_main]

mod targets;

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use targets::{ALL, Run};

/// What a target keeps between inputs begins anew after so many, so that what one input does shows soon, and is checked.
const INPUTS: usize = 512;

thread_local! {
    static RUN: RefCell<(Option<Run>, usize)> = RefCell::default();
}

fn start() -> Run {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let target = ALL.iter().find(|target| target.name == name);
    let target = target.unwrap_or_else(|| panic!("FUZZ_TARGET is `{name}`; expected a name of testbed/fuzz/targets"));
    (target.start)()
}

fuzz_target!(|input: &[u8]| {
    RUN.with_borrow_mut(|(run, inputs)| {
        run.get_or_insert_with(start)(input);
        *inputs += 1;
        if *inputs % INPUTS == 0 {
            *run = None;
        }
    });
});
