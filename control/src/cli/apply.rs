//! `margay apply` and `margay delete`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::client::Client;
use super::{Common, Error, output, read_files};
use crate::resource::Kind;
use crate::server::{ApplyAnswer, File, Files};

#[derive(Debug, Args)]
pub(super) struct Apply {
    /// A file, a folder of .yaml, .yml and .json files, or - for the standard input
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR|-", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[command(override_usage = "margay delete -f FILE... | KIND NAME [-n NAMESPACE]")]
pub(super) struct Delete {
    /// The kind of the resource to remove
    #[arg(requires = "name", required_unless_present = "files", conflicts_with = "files")]
    kind: Option<String>,
    /// The name of the resource to remove
    name: Option<String>,
    /// The namespace of the resource
    #[arg(short, long, conflicts_with = "files")]
    namespace: Option<String>,
    /// Remove what these documents name: a file, a folder, or - for the standard input
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    common: Common,
}

impl Apply {
    pub(super) fn carry_out(self) -> Result<(), Error> {
        let answer = self.common.client()?.post("/v1/apply", &body_of(&self.files)?)?;
        self.common.output.print(&answer, table)
    }
}

impl Delete {
    pub(super) fn carry_out(self) -> Result<(), Error> {
        let client = self.common.client()?;
        let answer = match (self.kind, self.name) {
            (Some(kind), Some(name)) => client.post("/v1/delete", &document_of(&kind, &name, self.namespace)?)?,
            _ => client.post("/v1/delete", &body_of(&self.files)?)?,
        };
        self.common.output.print(&answer, table)
    }
}

/// Applies a text of YAML, and prints what became of it.
pub(super) fn apply_text(socket: &Path, name: &str, text: String) -> Result<(), Error> {
    let name = name.to_owned();
    let files = Files {
        files: vec![File { name, text }],
    };
    let answer = Client::new(socket)?.post("/v1/apply", &files)?;
    output::print(&table(&answer)?)
}

/// The kind a user means.
pub(super) fn kind_of(text: &str) -> Result<Kind, Error> {
    Kind::from_text(text).ok_or_else(|| Error::Usage(format!("there is no kind `{text}`; expected {}", Kind::list())))
}

fn body_of(paths: &[PathBuf]) -> Result<Files, Error> {
    let sources = read_files(paths).map_err(|error| Error::Failed(error.to_string()))?;
    Ok(Files {
        files: sources
            .into_iter()
            .map(|source| File {
                name: source.name,
                text: source.text,
            })
            .collect(),
    })
}

fn document_of(kind: &str, name: &str, namespace: Option<String>) -> Result<Value, Error> {
    let kind = kind_of(kind)?;
    let mut metadata = json!({ "name": name });
    if let Some(namespace) = namespace.filter(|_| kind.namespaced()) {
        metadata["namespace"] = namespace.into();
    }
    Ok(json!({ "apiVersion": kind.api_version(), "kind": kind.name(), "metadata": metadata }))
}

fn table(answer: &Value) -> Result<String, Error> {
    let ApplyAnswer { results, warnings } = serde::Deserialize::deserialize(answer).map_err(output::odd)?;
    warnings.iter().for_each(|warning| output::warn(warning));
    let line = |applied: crate::intent::Applied| {
        let name = match &applied.namespace {
            Some(namespace) => format!("{}/{namespace}/{}", applied.kind, applied.name),
            None => format!("{}/{}", applied.kind, applied.name),
        };
        format!("{name} {}\n", applied.change.word())
    };
    Ok(results.into_iter().map(line).collect())
}
