//! `/api/v1/openapi.json`: the gateway's own routes and the fragments of the services it mounts, as one document.

use serde_json::{Map, Value, json};
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(paths(
    crate::auth::routes::make_token,
    crate::auth::routes::enroll,
    crate::ingest::take,
    crate::clock::probe,
    crate::control_stream::commands,
    crate::live::routes::live,
    crate::live::routes::events,
))]
struct Own;

#[derive(OpenApi)]
#[openapi(paths(crate::health::healthz, crate::health::readyz, crate::metrics::metrics))]
struct OutsideApi;

/// One document out of the gateway's routes and the services' fragments, by name of service.
pub fn document<'a>(build: &str, fragments: impl IntoIterator<Item = (&'a str, &'a Value)>) -> Value {
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Orrery",
            "version": build,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "Times are RFC 3339 with nanoseconds and 64-bit integers are strings; charts and the live \
                            stream use UNIX milliseconds. Errors are RFC 9457 problems.",
        },
        "servers": [{ "url": "/api/v1" }],
        "security": [{ "bearer": [] }, { "session": [] }],
        "paths": {},
        "components": { "schemas": {}, "securitySchemes": {
            "bearer": { "type": "http", "scheme": "bearer" },
            "session": { "type": "apiKey", "in": "cookie", "name": "orrery_session" },
        } },
    });
    merge(&mut document, "gateway", as_value(&Own::openapi()));
    merge(&mut document, "gateway", outside(as_value(&OutsideApi::openapi())));
    for (service, fragment) in fragments {
        merge(&mut document, service, fragment.clone());
    }
    declare_places(&mut document["paths"]);
    document["paths"]["/openapi.json"] = json!({ "get": {
        "tags": ["gateway"], "summary": "This document.", "security": [{}],
        "responses": { "200": { "description": "OpenAPI 3.1", "content": { "application/json": {} } } },
    } });
    document
}

fn as_value(api: &utoipa::openapi::OpenApi) -> Value {
    serde_json::to_value(api).unwrap_or_else(|error| {
        tracing::error!(%error, "a part of the OpenAPI document could not be written");
        Value::Null
    })
}

/// These routes lie beside `/api/v1` and need no token.
fn outside(mut fragment: Value) -> Value {
    if let Some(paths) = fragment.get_mut("paths").and_then(Value::as_object_mut) {
        for item in paths.values_mut() {
            item["servers"] = json!([{ "url": "/" }]);
            for operation in item
                .as_object_mut()
                .into_iter()
                .flatten()
                .map(|(_, operation)| operation)
            {
                if operation.is_object() {
                    operation["security"] = json!([{}]);
                }
            }
        }
    }
    fragment
}

fn merge(document: &mut Value, service: &str, mut fragment: Value) {
    let renamed = clashes(document, service, &fragment);
    rename(&mut fragment, &renamed);
    for (path, item) in entries(&mut fragment, "/paths") {
        let path = path.strip_prefix("/api/v1").map_or(path.clone(), str::to_owned);
        let known = &mut document["paths"][&path];
        match (known.as_object_mut(), item) {
            (Some(known), Value::Object(item)) => known.extend(item),
            (_, item) => *known = item,
        }
    }
    for (name, schema) in entries(&mut fragment, "/components/schemas") {
        let name = renamed.get(&name).and_then(Value::as_str).unwrap_or(&name);
        document["components"]["schemas"][name] = schema;
    }
}

/// A `{name}` in a path is a parameter of its operations, whether or not the service says so: without it the document
/// would not be valid.
fn declare_places(paths: &mut Value) {
    const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];
    for (path, item) in paths.as_object_mut().into_iter().flatten() {
        let places = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let operations = item.as_object_mut().into_iter().flatten();
        let operations = operations.filter(|(method, _)| METHODS.contains(&method.as_str()));
        let mut operations: Vec<_> = operations.map(|(_, operation)| operation).collect();
        for place in places {
            let is_it = |known: &Value| known["name"] == place && known["in"] == "path";
            let parameter = json!({ "name": place, "in": "path", "required": true, "schema": { "type": "string" } });
            for operation in &mut operations {
                let known = operation["parameters"].as_array();
                if known.is_some_and(|known| known.iter().any(is_it)) {
                    continue;
                }
                match operation["parameters"].as_array_mut() {
                    Some(known) => known.push(parameter.clone()),
                    None => operation["parameters"] = json!([parameter]),
                }
            }
        }
    }
}

fn entries(fragment: &mut Value, pointer: &str) -> Map<String, Value> {
    fragment
        .pointer_mut(pointer)
        .and_then(Value::as_object_mut)
        .map(std::mem::take)
        .unwrap_or_default()
}

/// Two services may call different things by one name: the later one's gets the service's name before it.
fn clashes(document: &Value, service: &str, fragment: &Value) -> Map<String, Value> {
    let schemas = fragment.pointer("/components/schemas").and_then(Value::as_object);
    schemas
        .into_iter()
        .flatten()
        .filter(|(name, schema)| {
            document["components"]["schemas"]
                .get(name.as_str())
                .is_some_and(|known| known != *schema)
        })
        .map(|(name, _)| (name.clone(), Value::from(format!("{service}.{name}"))))
        .collect()
}

fn rename(value: &mut Value, renamed: &Map<String, Value>) {
    const SCHEMAS: &str = "#/components/schemas/";
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let to = (key == "$ref").then(|| value.as_str()?.strip_prefix(SCHEMAS)).flatten();
                match to.and_then(|name| renamed.get(name)?.as_str()) {
                    Some(to) => *value = Value::from(format!("{SCHEMAS}{to}")),
                    None => rename(value, renamed),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, renamed)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_merge_and_clashing_schemas_keep_apart() {
        let uses_gap = |kind: &str| {
            json!({
                "paths": { "/api/v1/thing": { kind: { "$ref": "#/components/schemas/Gap" } } },
                "components": { "schemas": { "Gap": { "type": kind }, "Same": { "type": "null" } } },
            })
        };
        let (get, post) = (uses_gap("get"), uses_gap("post"));
        let document = document("1", [("aligner", &get), ("runtime", &post)]);
        assert_eq!(document["paths"]["/thing"]["get"]["$ref"], "#/components/schemas/Gap");
        assert_eq!(
            document["paths"]["/thing"]["post"]["$ref"],
            "#/components/schemas/runtime.Gap"
        );
        assert_eq!(document["components"]["schemas"]["runtime.Gap"]["type"], "post");
        assert!(document["components"]["schemas"].get("runtime.Same").is_none());
        assert_eq!(document["paths"]["/healthz"]["servers"][0]["url"], "/");
    }

    #[test]
    fn places_in_paths_are_declared_once() {
        let known = json!({ "name": "a", "in": "path", "required": true });
        let fragment = json!({ "paths": { "/x/{a}/{b}": { "get": { "parameters": [known] }, "post": {} } } });
        let document = document("1", [("aligner", &fragment)]);
        for method in ["get", "post"] {
            let parameters = document["paths"]["/x/{a}/{b}"][method]["parameters"]
                .as_array()
                .unwrap();
            let names: Vec<_> = parameters.iter().map(|parameter| &parameter["name"]).collect();
            assert_eq!(names, ["a", "b"], "{method}");
        }
    }
}
