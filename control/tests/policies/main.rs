//! Documents about policy: what is accepted, what is refused, and in which words.

mod bad;
mod bounds;
mod felix;
mod good;
mod limits;
mod plans;

use control::resource::Source;

fn yaml(text: &str) -> Vec<Source> {
    vec![Source::file("a.yaml", text)]
}

fn calico(kind: &str, spec: &str) -> String {
    format!("{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {{name: a}}, spec: {spec}}}")
}
