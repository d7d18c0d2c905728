//! The OpenAPI document against what the socket really does.

mod common;
#[path = "openapi/schemathesis.rs"]
mod schemathesis;

use common::{PORTS, Running, apply, ask, get};
use control::server::Limits;
use serde_json::{Value, json};

/// What `interface.md` and the brief of the socket promise so far.
const PROMISED: &[(&str, &[&str])] = &[
    ("/v1/apply", &["post"]),
    ("/v1/delete", &["post"]),
    ("/v1/resources", &["get"]),
    ("/v1/resources/{kind}", &["get"]),
    ("/v1/resources/{kind}/{name}", &["get"]),
    ("/v1/show/{view}", &["get"]),
    ("/v1/capture", &["post"]),
    ("/v1/explain", &["post"]),
    ("/v1/flows", &["delete", "get"]),
    ("/v1/flow-logs", &["get"]),
    ("/v1/recommend", &["get"]),
    ("/v1/trace", &["delete", "get", "post"]),
    ("/v1/health", &["get"]),
    ("/v1/openapi.json", &["get"]),
    ("/metrics", &["get"]),
];

fn document(running: &Running) -> Value {
    let (status, document) = get(&running.socket, "/v1/openapi.json");
    assert_eq!(status, 200);
    assert_eq!(document, serde_json::to_value(control::server::openapi()).unwrap());
    document
}

#[test]
fn every_promised_path_is_described_and_no_other() {
    let running = Running::start(Limits::default());
    let document = document(&running);
    let mut described: Vec<_> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let mut promised: Vec<_> = PROMISED.iter().map(|(path, _)| *path).collect();
    described.sort_unstable();
    promised.sort_unstable();
    assert_eq!(described, promised);
    for (path, methods) in PROMISED {
        let mut described: Vec<_> = document["paths"][path]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        described.sort_unstable();
        assert_eq!(described, *methods, "{path}");
    }
}

#[test]
fn every_method_is_served_where_it_is_described_and_nowhere_else() {
    let running = Running::start(Limits::default());
    for (path, methods) in PROMISED {
        let path = path
            .replace("{kind}", "Port")
            .replace("{name}", "left")
            .replace("{view}", "ports");
        for method in ["get", "post", "put", "patch", "delete"] {
            let (status, _) = ask(&running.socket, &method.to_uppercase(), &path, "application/json", "");
            assert_eq!(status == 405, !methods.contains(&method), "{method} {path}: {status}");
        }
    }
}

/// Method, path as described, path as asked for, body.
type Ask = (&'static str, &'static str, String, String);

fn requests() -> Vec<Ask> {
    let trace = json!({"count": 3, "filter": "icmp"}).to_string();
    let mut requests = vec![
        (
            "post",
            "/v1/apply",
            "/v1/apply".to_owned(),
            json!({"files": [{"name": "a", "text": PORTS}]}).to_string(),
        ),
        ("post", "/v1/apply", "/v1/apply".to_owned(), "{}".to_owned()),
        ("get", "/v1/resources", "/v1/resources".to_owned(), String::new()),
        (
            "get",
            "/v1/resources/{kind}",
            "/v1/resources/Port".to_owned(),
            String::new(),
        ),
        (
            "get",
            "/v1/resources/{kind}",
            "/v1/resources/Prot".to_owned(),
            String::new(),
        ),
        (
            "get",
            "/v1/resources/{kind}/{name}",
            "/v1/resources/Port/left".to_owned(),
            String::new(),
        ),
        (
            "get",
            "/v1/resources/{kind}/{name}",
            "/v1/resources/Port/nobody".to_owned(),
            String::new(),
        ),
        ("get", "/v1/show/{view}", "/v1/show/flows".to_owned(), String::new()),
        ("get", "/v1/show/{view}", "/v1/show/flow-logs".to_owned(), String::new()),
        (
            "get",
            "/v1/recommend",
            "/v1/recommend?namespace=shop".to_owned(),
            String::new(),
        ),
        (
            "get",
            "/v1/flow-logs",
            "/v1/flow-logs?follow=maybe".to_owned(),
            String::new(),
        ),
        ("post", "/v1/trace", "/v1/trace".to_owned(), trace),
        ("post", "/v1/capture", "/v1/capture".to_owned(), String::new()),
        ("post", "/v1/trace", "/v1/trace".to_owned(), String::new()),
        ("get", "/v1/trace", "/v1/trace".to_owned(), String::new()),
        ("delete", "/v1/trace", "/v1/trace".to_owned(), String::new()),
        ("get", "/v1/health", "/v1/health".to_owned(), String::new()),
        (
            "post",
            "/v1/delete",
            "/v1/delete".to_owned(),
            json!({"files": [{"name": "a", "text": PORTS}]}).to_string(),
        ),
    ];
    for view in control::show::View::ALL {
        requests.push(("get", "/v1/show/{view}", format!("/v1/show/{view}"), String::new()));
    }
    requests
}

#[test]
fn answers_are_as_described() {
    let running = Running::start(Limits::default());
    let document = document(&running);
    assert_eq!(apply(&running.socket, PORTS).0, 200);
    for (method, described, path, body) in requests() {
        let (status, answer) = ask(
            &running.socket,
            &method.to_uppercase(),
            &path,
            "application/json",
            &body,
        );
        let responses = &document["paths"][described][method]["responses"];
        let response = &responses[status.to_string()];
        assert!(response.is_object(), "{method} {path}: {status} is not described");
        match response.pointer("/content/application~1json/schema") {
            Some(schema) => fits(&document, schema, &answer).unwrap_or_else(|why| panic!("{method} {path}: {why}")),
            None => assert_eq!(answer, Value::Null, "{method} {path}"),
        }
    }
}

#[test]
fn the_check_of_schemas_finds_faults() {
    let document = serde_json::to_value(control::server::openapi()).unwrap();
    let schema = json!({"$ref": "#/components/schemas/Health"});
    assert!(fits(&document, &schema, &json!({"ready": true})).is_ok());
    for wrong in [
        json!({}),
        json!({"ready": 1}),
        json!({"ready": true, "steady": true}),
        json!([]),
    ] {
        assert!(fits(&document, &schema, &wrong).is_err(), "{wrong}");
    }
}

/// Whether `value` is what `schema` says: types, required and known properties, items, alternatives, enumerations.
fn fits(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = document
            .pointer(reference.trim_start_matches('#'))
            .ok_or(format!("no {reference}"))?;
        return fits(document, target, value);
    }
    if let Some(alternatives) = schema.get("oneOf").and_then(Value::as_array) {
        let why: Vec<_> = alternatives.iter().map(|one| fits(document, one, value)).collect();
        return if why.iter().any(Result::is_ok) {
            Ok(())
        } else {
            Err(format!("none of: {why:?}"))
        };
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array)
        && !values.contains(value)
    {
        return Err(format!("{value} is none of {values:?}"));
    }
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(some) => some.iter().filter_map(Value::as_str).collect(),
        _ => return Err(format!("a schema without type: {schema}")),
    };
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fitting = types.contains(&is) || is == "integer" && types.contains(&"number");
    if !fitting {
        return Err(format!("{value} is {is}, not {types:?}"));
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| fits(document, &schema["items"], item)),
        Value::Object(fields) => fields_fit(document, schema, fields),
        _ => Ok(()),
    }
}

fn fields_fit(document: &Value, schema: &Value, fields: &serde_json::Map<String, Value>) -> Result<(), String> {
    let required = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    for name in required {
        fields.get(name).ok_or(format!("{name} is missing"))?;
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return Ok(());
    };
    for (name, value) in fields {
        let schema = properties.get(name).ok_or(format!("{name} is not described"))?;
        fits(document, schema, value).map_err(|why| format!("{name}: {why}"))?;
    }
    Ok(())
}
