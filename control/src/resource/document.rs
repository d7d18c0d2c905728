//! Files into resources: every document of a request is read and checked before anything is done with the first.

use serde_json::{Map, Value};

use super::json::Unambiguous;
use super::{Key, Kind, Metadata, Resource, fields};
use crate::refusal::Refusal;

/// Nodes of one YAML document, aliases expanded: a list of a hundred thousand resources fits, a bomb does not.
const NODES_MAX: usize = 2_000_000;

/// A file of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name, for sentences; empty for a request that is one unnamed text.
    pub name: String,
    /// Its content.
    pub text: String,
    /// The language of the content.
    pub format: Format,
}

impl Source {
    /// A file by its name: JSON where the name ends so, else YAML.
    pub fn file(name: impl Into<String>, text: impl Into<String>) -> Self {
        let name = name.into();
        let format = if name.ends_with(".json") {
            Format::Json
        } else {
            Format::Yaml
        };
        Self {
            name,
            text: text.into(),
            format,
        }
    }
}

/// The language of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One document, or an array of them.
    Json,
    /// Documents with `---` between them.
    Yaml,
}

/// A resource, and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Such as `left.yaml document 2, Route/to-right`.
    pub origin: String,
    /// The resource.
    pub resource: Resource,
}

/// A resource that is only named, as a deletion does, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Such as `left.yaml document 2, Route/to-right`.
    pub origin: String,
    /// What is named.
    pub key: Key,
}

/// All documents of `sources`, or the first thing that is wrong.
pub fn read(sources: &[Source]) -> Result<Vec<Document>, Refusal> {
    let mut documents = Vec::new();
    each_document(sources, |place, value| {
        let Envelope {
            origin,
            kind,
            metadata,
            rest,
        } = open(place, value)?;
        let resource = Resource::new(kind, metadata, rest.into())
            .map_err(|invalid| Refusal::of_field(&origin, &invalid.field, invalid.reason))?;
        documents.push(Document { origin, resource });
        Ok(())
    })?;
    Ok(documents)
}

/// What the documents of `sources` name. Their bodies are not looked at: what was changed since can be deleted too.
pub fn read_keys(sources: &[Source]) -> Result<Vec<Named>, Refusal> {
    let mut keys = Vec::new();
    each_document(sources, |place, value| {
        let Envelope {
            origin,
            kind,
            metadata: Metadata { name, namespace, .. },
            ..
        } = open(place, value)?;
        keys.push(Named {
            origin,
            key: Key { kind, namespace, name },
        });
        Ok(())
    })?;
    Ok(keys)
}

impl Resource {
    /// The resource a value holds, such as one the socket answered with.
    pub fn from_value(value: Value) -> Result<Self, Refusal> {
        let Envelope {
            origin,
            kind,
            metadata,
            rest,
        } = open("the answer", value)?;
        Self::new(kind, metadata, rest.into())
            .map_err(|invalid| Refusal::of_field(&origin, &invalid.field, invalid.reason))
    }
}

type Sink<'a> = dyn FnMut(&str, Value) -> Result<(), Refusal> + 'a;

fn each_document(sources: &[Source], mut sink: impl FnMut(&str, Value) -> Result<(), Refusal>) -> Result<(), Refusal> {
    for source in sources {
        match source.format {
            Format::Json => each_json(source, &mut sink)?,
            Format::Yaml => each_yaml(source, &mut sink)?,
        }
    }
    Ok(())
}

fn each_json(source: &Source, sink: &mut Sink<'_>) -> Result<(), Refusal> {
    let Unambiguous(value) = serde_json::from_str(&source.text)
        .map_err(|error| Refusal::of_document(&place(source, 1), format_args!("not valid JSON: {error}")))?;
    match value {
        Value::Array(documents) => (1..).zip(documents).try_for_each(|(number, value)| {
            each_item(&place(source, number), value, sink) //
        }),
        value => each_item(&place(source, 1), value, sink),
    }
}

fn each_yaml(source: &Source, sink: &mut Sink<'_>) -> Result<(), Refusal> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: None,
            max_nodes: NODES_MAX,
            max_events: 2 * NODES_MAX,
        },
        reject_unsupported_tags: true,
        // A resource may be called `n` or `on` (YAML 1.2 section 10.3.2).
        strict_booleans: true,
        with_snippet: false,
    };
    let mut bytes = source.text.as_bytes();
    let documents = serde_saphyr::read_with_options::<_, Value>(&mut bytes, options);
    for (number, document) in (1..).zip(documents) {
        let place = place(source, number);
        let value = document.map_err(|error| {
            let text = error.without_snippet().to_string();
            let line = text.lines().next().unwrap_or("unreadable");
            Refusal::of_document(&place, format_args!("not valid YAML: {line}"))
        })?;
        each_item(&place, value, sink)?;
    }
    Ok(())
}

/// Kubernetes' `List` holds documents of its own; `get -o json` prints one.
fn each_item(place: &str, value: Value, sink: &mut Sink<'_>) -> Result<(), Refusal> {
    let is_list = value.get("kind").and_then(Value::as_str) == Some("List")
        && value.get("apiVersion").and_then(Value::as_str) == Some("v1");
    if !is_list {
        return sink(place, value);
    }
    let Value::Object(mut list) = value else { return Ok(()) };
    let items = list.remove("items");
    list.retain(|key, _| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata"));
    if let Some(key) = list.keys().next() {
        return Err(Refusal::of_field(
            place,
            key,
            "unknown field in a List; expected `items`",
        ));
    }
    let Some(Value::Array(items)) = items else {
        return Err(Refusal::of_field(place, "items", "expected the documents of the List"));
    };
    (1..)
        .zip(items)
        .try_for_each(|(number, item)| sink(&format!("{place} item {number}"), item))
}

fn place(source: &Source, number: usize) -> String {
    if source.name.is_empty() {
        format!("document {number}")
    } else {
        format!("{} document {number}", source.name)
    }
}

struct Envelope {
    origin: String,
    kind: Kind,
    metadata: Metadata,
    rest: Map<String, Value>,
}

/// The parts every document has. From here on sentences name it by kind and name too.
fn open(place: &str, value: Value) -> Result<Envelope, Refusal> {
    let Value::Object(mut rest) = value else {
        return Err(Refusal::of_document(
            place,
            "expected a mapping with `apiVersion`, `kind` and `metadata`",
        ));
    };
    let api_version = take_text(place, &mut rest, "apiVersion", "margay/v1")?;
    let kind = take_text(place, &mut rest, "kind", Kind::ALL[0].name())?;
    let kind = find_kind(place, &api_version, &kind)?;
    let place = format!("{place}, {kind}");
    let Some(metadata) = rest.remove("metadata") else {
        return Err(Refusal::of_field(
            &place,
            "metadata",
            "missing field `metadata`; expected `metadata: { name: ... }`",
        ));
    };
    let metadata: Metadata = serde_path_to_error::deserialize(metadata).map_err(|error| {
        let invalid = fields::invalid(&error);
        let dot = if invalid.field.is_empty() { "" } else { "." };
        Refusal::of_field(&place, &format!("metadata{dot}{}", invalid.field), invalid.reason)
    })?;
    kind.check_name(&metadata.name)
        .map_err(|reason| Refusal::of_field(&place, "metadata.name", reason))?;
    let metadata = in_namespace(&place, kind, metadata)?;
    let origin = format!("{place}/{}", metadata.name);
    Ok(Envelope {
        origin,
        kind,
        metadata,
        rest,
    })
}

fn take_text(place: &str, rest: &mut Map<String, Value>, field: &str, example: &str) -> Result<String, Refusal> {
    match rest.remove(field) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(Refusal::of_field(
            place,
            field,
            format_args!("expected text, such as `{example}`, not {other}"),
        )),
        None => Err(Refusal::of_field(
            place,
            field,
            format_args!("missing field `{field}`; expected text, such as `{example}`"),
        )),
    }
}

fn find_kind(place: &str, api_version: &str, name: &str) -> Result<Kind, Refusal> {
    let of_name = Kind::ALL.iter().copied().filter(|kind| kind.name() == name);
    if let Some(kind) = of_name.clone().find(|kind| kind.api_version() == api_version) {
        return Ok(kind);
    }
    let versions: Vec<_> = of_name.map(|kind| format!("`{}`", kind.api_version())).collect();
    if versions.is_empty() {
        let reason = format!("unknown kind `{}`; expected {}", name.escape_debug(), Kind::list());
        return Err(Refusal::of_field(place, "kind", reason));
    }
    let reason = format!(
        "a {name} has no version `{}`; expected {}",
        api_version.escape_debug(),
        versions.join(" or ")
    );
    Err(Refusal::of_field(place, "apiVersion", reason))
}

fn in_namespace(place: &str, kind: Kind, metadata: Metadata) -> Result<Metadata, Refusal> {
    let refuse = |reason: String| Err(Refusal::of_field(place, "metadata.namespace", reason));
    let namespace = match (kind.namespaced(), metadata.namespace) {
        (false, Some(_)) => return refuse(format!("a {kind} has no namespace; leave it out")),
        (false, None) => None,
        (true, namespace) => Some(namespace.unwrap_or_else(|| "default".to_owned())),
    };
    if let Some(namespace) = &namespace
        && let Err(reason) = super::check_label(namespace)
    {
        return refuse(reason);
    }
    Ok(Metadata { namespace, ..metadata })
}
