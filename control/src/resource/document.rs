//! Files into resources: every document of a request is read and checked before anything is done with the first.

use serde_json::{Map, Value};

use super::json::Unambiguous;
use super::sections::{Section, sections};
use super::{Key, Kind, Metadata, Resource, fields};
use crate::refusal::Refusal;

/// Nodes of one YAML document, aliases expanded: a list of a hundred thousand resources fits, a bomb does not.
const NODES_MAX: usize = 2_000_000;
/// Threads that read one file.
const READERS_MAX: usize = 8;

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
    for source in sources {
        match read_side_by_side(source) {
            Some(found) => documents.extend(found),
            None => each_in(source, &mut |place, value| {
                documents.push(document(place, value)?);
                Ok(())
            })?,
        }
    }
    Ok(documents)
}

fn document(place: &str, value: Value) -> Result<Document, Refusal> {
    let Envelope {
        origin,
        kind,
        metadata,
        rest,
    } = open(place, value)?;
    let resource = Resource::new(kind, metadata, rest.into())
        .map_err(|invalid| Refusal::of_field(&origin, &invalid.field, invalid.reason))?;
    Ok(Document { origin, resource })
}

/// The documents of a long file, read on several cores; nothing where it is short, or anything is wrong with it: what that
/// is, is found by reading it from the start.
fn read_side_by_side(source: &Source) -> Option<Vec<Document>> {
    if source.format != Format::Yaml {
        return None;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let sections = sections(&source.text, cores.min(READERS_MAX));
    if sections.len() < 2 {
        return None;
    }
    let read_one = |section: Section<'_>| {
        let mut documents = Vec::with_capacity(section.count);
        let mut counted = 0;
        each_yaml(source, section.text, section.first, &mut |place, value| {
            documents.push(document(place, value)?);
            Ok(())
        })
        .map(|count| counted = count)
        .ok()?;
        (counted == section.count).then_some(documents)
    };
    std::thread::scope(|scope| {
        let start = |section| std::thread::Builder::new().spawn_scoped(scope, move || read_one(section));
        let readers: Vec<_> = sections.into_iter().map(start).collect::<Result<_, _>>().ok()?;
        let read = readers.into_iter().map(|reader| reader.join().ok().flatten());
        Some(read.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect())
    })
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
    sources.iter().try_for_each(|source| each_in(source, &mut sink))
}

fn each_in(source: &Source, sink: &mut Sink<'_>) -> Result<(), Refusal> {
    match source.format {
        Format::Json => each_json(source, sink),
        Format::Yaml => each_yaml(source, &source.text, 1, sink).map(|_| ()),
    }
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

/// Reads the documents of a part of a file, of which the first has a number in it. How many they are.
fn each_yaml(source: &Source, text: &str, first: usize, sink: &mut Sink<'_>) -> Result<usize, Refusal> {
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
    let mut bytes = text.as_bytes();
    let documents = serde_saphyr::read_with_options::<_, Value>(&mut bytes, options);
    let mut count = 0;
    for (number, document) in (first..).zip(documents) {
        count += 1;
        let place = place(source, number);
        let value = document.map_err(|error| {
            let text = error.without_snippet().to_string();
            let line = text.lines().next().unwrap_or("unreadable");
            Refusal::of_document(&place, format_args!("not valid YAML: {line}"))
        })?;
        each_item(&place, value, sink)?;
    }
    Ok(count)
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

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: usize = 6_000;

    fn route(number: usize, gateway: &str) -> String {
        format!(
            "---\napiVersion: margay/v1\nkind: Route\nmetadata: {{ name: r{number}, labels: {{ of: a-long-file-of-routes }} }}\n\
             spec: {{ destination: 10.{}.{}.0/24, via: [{{ gateway: {gateway} }}] }}\n",
            number / 256,
            number % 256,
        )
    }

    fn file(bad: Option<usize>) -> Source {
        let line = |number| route(number, if bad == Some(number) { "nowhere" } else { "10.2.0.2" });
        Source::file("a.yaml", (1..=COUNT).map(line).collect::<String>())
    }

    #[test]
    fn a_file_read_side_by_side_is_the_same_as_one_read_from_the_start() {
        let file = file(None);
        let mut expected = vec![];
        each_in(&file, &mut |place, value| {
            expected.push(document(place, value)?);
            Ok(())
        })
        .unwrap();
        assert_eq!(expected.len(), COUNT);
        assert_eq!(read(std::slice::from_ref(&file)).unwrap(), expected);
        if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
            assert_eq!(read_side_by_side(&file), Some(expected));
        }
    }

    #[test]
    fn a_mistake_far_inside_is_named_by_its_number() {
        let refusal = read(&[file(Some(5_432))]).unwrap_err();
        assert_eq!(
            refusal.document.as_deref(),
            Some("a.yaml document 5432, Route/r5432"),
            "{refusal:?}"
        );
    }
}
