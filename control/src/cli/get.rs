//! `margay get`.

use clap::Args;
use serde_json::Value;

use super::apply::kind_of;
use super::client::escaped;
use super::output::{self, Output};
use super::{Common, Error};
use crate::resource::{Kind, Resource};
use crate::show::table::Table;

#[derive(Debug, Args)]
pub(super) struct Get {
    /// The kind of resources to print
    kind: String,
    /// The one to print; all of the kind without it
    name: Option<String>,
    /// Only those of this namespace
    #[arg(short, long, default_value = "default", conflicts_with = "all_namespaces")]
    namespace: String,
    /// Those of all namespaces
    #[arg(short = 'A', long, conflicts_with = "name")]
    all_namespaces: bool,
    #[command(flatten)]
    common: Common,
}

impl Get {
    pub(super) fn carry_out(self) -> Result<(), Error> {
        let kind = kind_of(&self.kind)?;
        let mut path = format!("/v1/resources/{}", kind.plural());
        if let Some(name) = &self.name {
            path = format!("{path}/{}", escaped(name));
        }
        if kind.namespaced() && !self.all_namespaces {
            path = format!("{path}?namespace={}", escaped(&self.namespace));
        }
        let answer = self.common.client()?.get(&path)?;
        match self.common.output {
            // Documents with `---` between them, so that what is printed can be applied.
            Output::Yaml => output::print(&documents(&answer)?),
            output => output.print(&answer, |answer| table(kind, answer)),
        }
    }
}

/// The resources in an answer, which is one of them or a list.
fn items(answer: &Value) -> &[Value] {
    match answer.get("items").and_then(Value::as_array) {
        Some(items) => items,
        None => std::slice::from_ref(answer),
    }
}

fn documents(answer: &Value) -> Result<String, Error> {
    let documents: Vec<_> = items(answer).iter().map(output::yaml).collect::<Result<_, _>>()?;
    Ok(documents.join("---\n"))
}

fn table(kind: Kind, answer: &Value) -> Result<String, Error> {
    let items = items(answer);
    if items.is_empty() {
        return Ok(format!("no {} applied\n", kind.plural()));
    }
    let namespace: &[_] = if kind.namespaced() { &["NAMESPACE"] } else { &[] };
    let headings = [namespace, &["NAME"], kind.columns()].concat();
    let mut table = Table::new(&headings);
    for item in items {
        let resource = Resource::from_value(item.clone()).map_err(output::odd)?;
        let key = resource.key();
        let name = key.namespace.into_iter().chain([key.name]);
        table.row(name.chain(resource.row()).map(|text| text.into()));
    }
    Ok(table.to_string())
}
