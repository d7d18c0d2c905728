//! What targets of documents share.

use std::collections::BTreeSet;

use control::refusal::Refusal;
use control::resource::{Document, Driver, Key, Resource, Source, read};

/// Bytes as the socket and the command line take them: whole, or refused before anything looks at them.
pub fn documents(input: &[u8]) -> Option<(&str, Vec<Document>)> {
    let text = std::str::from_utf8(input).ok()?;
    for file in ["a.json", "a.yaml"] {
        if let Err(refusal) = read(&[Source::file(file, text)]) {
            in_one_sentence(&refusal, file);
        }
    }
    let documents = read(&[Source::file("a.yaml", text)]).ok()?;
    Some((text, documents))
}

/// A refusal is one line, and names the file.
fn in_one_sentence(refusal: &Refusal, file: &str) {
    let said = &refusal.error;
    assert!(!said.is_empty() && !said.contains('\n'), "{said:?}");
    let document = refusal.document.as_deref().unwrap_or_default();
    assert!(document.starts_with(file), "{refusal:?}");
}

/// Whether it needs nothing of the machine: devices, files, a resolver.
pub fn stays_inside(document: &Document) -> bool {
    match &document.resource {
        Resource::Port(port) => matches!(port.body.spec.driver, Driver::Memory | Driver::Ipip | Driver::Vxlan),
        Resource::WireguardInterface(_) | Resource::WireguardPeer(_) => false,
        _ => true,
    }
}

/// What these documents are about.
pub fn keys(text: &str) -> BTreeSet<Key> {
    let documents = read(&[Source::file("given.yaml", text)]).unwrap();
    documents.iter().map(|document| document.resource.key()).collect()
}
