//! The API's description, OpenAPI 3.1: made from the list of routes, from the types that requests are read
//! into and answers are written from, and from what is said here about each route.

mod described;
mod operation;
mod people;
mod shapes;

use axum::Json;
use ringback_core::log::Log;
use serde_json::{Map, Value, json};

use self::operation::{Operation, Schemas};
pub(crate) use self::shapes::{Acknowledged, AuthenticationFields, Formatted};
use ringback_core::account::Scope;

use crate::access::{CSRF_HEADER, Needs};
use crate::cookie::{self, NAME_SECURE};
use crate::server::{Route, routes};

/// The document.
pub fn openapi<L: Log>() -> Value {
    let mut schemas = Schemas::default();
    let mut paths = Map::new();
    for route in routes::<L>() {
        let operation = described::operation(route.method, route.path).unwrap_or_default();
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = describe(&route, operation, &mut schemas);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Ringback",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Administration of webhooks: see docs/admin.md.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas.finish(),
            "responses": { "Problem": {
                "description": "Why it is not done; `code` is stable, `detail` says what to do",
                "content": { "application/problem+json": {
                    "schema": { "$ref": "#/components/schemas/Problem" },
                } },
            } },
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The operator token, or a tenant's token with the scope that is named",
                },
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": cookie::NAME,
                    "description": format!(
                        "Who has signed in; what changes something also needs the header {CSRF_HEADER}. By TLS the cookie's name is {NAME_SECURE}"
                    ),
                },
            },
        },
    })
}

pub(crate) async fn show<L: Log>() -> Json<Value> {
    Json(openapi::<L>())
}

fn describe(route: &Route, operation: Operation, schemas: &mut Schemas) -> Value {
    let or_session = |role: &str| json!([{ "bearer": [role] }, { "session": [role] }]);
    let security = match route.needs {
        Needs::Public => json!([]),
        Needs::Session => json!([{ "session": [] }]),
        Needs::Operator => or_session("operator"),
        Needs::Tenant(Scope::Read) => or_session("read"),
        Needs::Tenant(_) => or_session("write"),
    };
    let mut parameters: Vec<_> = in_path(route.path).map(path_parameter).collect();
    parameters.extend(operation.parameters(schemas));
    let mut described = json!({
        "operationId": operation_id(route),
        "summary": operation.summary(),
        "tags": [tag(route.path)],
        "security": security,
        "parameters": parameters,
        "responses": operation.responses(schemas),
    });
    if let Some(body) = operation.body(schemas) {
        described["requestBody"] = body;
    }
    described
}

/// The names in braces.
fn in_path(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn path_parameter(name: &str) -> Value {
    let (description, schema) = match name {
        "tenant" => ("The tenant's id", json!({ "type": "string" })),
        "webhook" => ("The webhook's name, or its id", json!({ "type": "string" })),
        "event" => (
            "The event's id",
            json!({ "type": "string", "format": "uuid" }),
        ),
        "replay" => (
            "The replay's id",
            json!({ "type": "string", "format": "uuid" }),
        ),
        "token" => (
            "The token's id",
            json!({ "type": "string", "format": "uuid" }),
        ),
        _ => ("Its id", json!({ "type": "string" })),
    };
    json!({
        "name": name,
        "in": "path",
        "required": true,
        "description": description,
        "schema": schema,
    })
}

/// `get_tenants_tenant_webhooks`, say: it changes only with the path.
fn operation_id(route: &Route) -> String {
    let mut id = route.method.to_lowercase();
    for part in route
        .path
        .split('/')
        .filter(|part| !part.is_empty() && *part != "v1")
    {
        id.push('_');
        id.extend(
            part.chars()
                .map(|c| if c.is_alphanumeric() { c } else { '_' }),
        );
    }
    id.replace("_{", "_")
        .replace("__", "_")
        .trim_end_matches('_')
        .to_owned()
}

/// What the route is about: the last thing in its path that has a name of its own.
fn tag(path: &str) -> &str {
    let tags = [
        "webhooks",
        "events",
        "tokens",
        "operations",
        "projection",
        "accounts",
        "audit",
    ];
    let found = tags
        .into_iter()
        .find(|tag| path.split('/').any(|part| part == *tag));
    match found {
        Some(tag) => tag,
        None if path.starts_with("/v1/tenants") => "tenants",
        None => "installation",
    }
}
