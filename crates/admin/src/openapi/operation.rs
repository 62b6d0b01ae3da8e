//! What is said about one route, and what becomes of that in the document.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::shapes::Problem;

type Of = fn(&mut SchemaGenerator) -> Schema;

/// What is said about a route.
#[derive(Clone, Default)]
pub(super) struct Operation {
    summary: &'static str,
    query: Option<Of>,
    body: Option<Of>,
    answers: Vec<(u16, &'static str, Option<Of>)>,
    /// Whether `If-Match` is obeyed, and whether it is needed.
    matching: Option<bool>,
    header: Option<(&'static str, &'static str)>,
}

/// What it does, in a few words.
pub(super) fn does(summary: &'static str) -> Operation {
    Operation {
        summary,
        ..Operation::default()
    }
}

impl Operation {
    /// It takes these parameters after `?`.
    pub(super) fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(SchemaGenerator::subschema_for::<T>);
        self
    }

    /// It takes this body.
    pub(super) fn takes<T: JsonSchema>(mut self) -> Self {
        self.body = Some(SchemaGenerator::subschema_for::<T>);
        self
    }

    /// It answers with this.
    pub(super) fn answers<T: JsonSchema>(mut self, status: u16) -> Self {
        self.answers.push((
            status,
            "application/json",
            Some(SchemaGenerator::subschema_for::<T>),
        ));
        self
    }

    /// It answers with nothing but a status.
    pub(super) fn answers_nothing(mut self, status: u16) -> Self {
        self.answers.push((status, "", None));
        self
    }

    /// It answers with a stream of events.
    pub(super) fn streams(mut self) -> Self {
        self.answers.push((200, "text/event-stream", None));
        self
    }

    /// It obeys `If-Match`.
    pub(super) fn may_match(mut self) -> Self {
        self.matching = Some(false);
        self
    }

    /// It needs `If-Match`, or `If-None-Match`.
    pub(super) fn must_match(mut self) -> Self {
        self.matching = Some(true);
        self
    }

    /// It looks at this header.
    pub(super) fn header(mut self, name: &'static str, description: &'static str) -> Self {
        self.header = Some((name, description));
        self
    }

    pub(super) fn summary(&self) -> &'static str {
        self.summary
    }

    pub(super) fn parameters(&self, schemas: &mut Schemas) -> Vec<Value> {
        let mut parameters = Vec::new();
        if let Some(query) = self.query {
            let shape = schemas.inline(query);
            let required = shape["required"].as_array().cloned().unwrap_or_default();
            for (name, schema) in shape["properties"].as_object().into_iter().flatten() {
                let mut schema = schema.clone();
                let description = schema["description"].take();
                if let Value::Object(members) = &mut schema {
                    members.remove("description");
                    without_null(members);
                }
                parameters.push(json!({
                    "name": name,
                    "in": "query",
                    "required": required.contains(&json!(name)),
                    "description": description.as_str().unwrap_or_default(),
                    "schema": schema,
                }));
            }
        }
        let mut header = |name: &str, required: bool, description: &str| {
            parameters.push(json!({
                "name": name,
                "in": "header",
                "required": required,
                "description": description,
                "schema": { "type": "string" },
            }));
        };
        if let Some(needed) = self.matching {
            let note = match needed {
                true => "The ETag of what is changed, or `*`; needed unless If-None-Match is given",
                false => "The ETag of what is changed, or `*`",
            };
            header("If-Match", false, note);
        }
        if let Some((name, description)) = self.header {
            header(name, false, description);
        }
        parameters
    }

    pub(super) fn body(&self, schemas: &mut Schemas) -> Option<Value> {
        let schema = schemas.taken(self.body?);
        Some(json!({
            "required": true,
            "content": { "application/json": { "schema": schema } },
        }))
    }

    pub(super) fn responses(&self, schemas: &mut Schemas) -> Value {
        let mut responses = Map::new();
        for (status, media, schema) in &self.answers {
            let schema = schema.map_or(json!({ "type": "string" }), |of| schemas.given(of));
            let mut content = Map::new();
            if !media.is_empty() {
                content.insert((*media).to_owned(), json!({ "schema": schema }));
            }
            let described = match status {
                201 => "Added",
                202 => "Begun, or not known to be done",
                _ => "Done",
            };
            let mut response = json!({ "description": described });
            if !content.is_empty() {
                response["content"] = content.into();
            }
            responses.insert(status.to_string(), response);
        }
        let problem = json!({ "$ref": "#/components/responses/Problem" });
        responses.insert("default".to_owned(), problem);
        responses.into()
    }
}

/// In a query what is null is left out.
fn without_null(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [kind] = &types[..] {
            let kind = kind.clone();
            schema.insert("type".to_owned(), kind);
        }
    }
    if let Some(Value::Array(any)) = schema.get_mut("anyOf") {
        any.retain(|one| one["type"] != "null");
        if let [Value::Object(one)] = &any[..] {
            let one = one.clone();
            schema.remove("anyOf");
            schema.extend(one);
        }
    }
}

/// The shapes of what comes and goes, each once.
pub(super) struct Schemas {
    taken: SchemaGenerator,
    given: SchemaGenerator,
}

impl Default for Schemas {
    fn default() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        let mut given = settings().for_serialize().into_generator();
        given.subschema_for::<Problem>();
        Self {
            taken: settings().for_deserialize().into_generator(),
            given,
        }
    }
}

impl Schemas {
    fn taken(&mut self, of: Of) -> Value {
        of(&mut self.taken).to_value()
    }

    fn given(&mut self, of: Of) -> Value {
        of(&mut self.given).to_value()
    }

    /// The shape itself, not where it is.
    fn inline(&mut self, of: Of) -> Value {
        let mut generator = SchemaSettings::draft2020_12()
            .with(|settings| settings.inline_subschemas = true)
            .for_deserialize()
            .into_generator();
        of(&mut generator).to_value()
    }

    pub(super) fn finish(mut self) -> Map<String, Value> {
        let mut all = self.given.take_definitions(true);
        all.extend(self.taken.take_definitions(true));
        all
    }
}
