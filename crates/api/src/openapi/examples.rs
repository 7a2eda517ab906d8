//! Examples of an OpenAPI document. One table has the values, so that a field has the same example in each schema: `fields` by
//! field name, or by schema and field; `parameters` by required parameter, or by operation and parameter; `requests` by
//! operation. Optional parameters have no example, because viewers fill examples into their forms.

use serde_json::{Map, Value};

const TABLE: &str = include_str!("examples.json");

/// Adds the examples to a document.
pub(super) fn add(document: &mut Value) {
    let table: Value = serde_json::from_str(TABLE).unwrap_or_default();
    let section = |name: &str| table.get(name).and_then(Value::as_object);
    let (Some(fields), Some(parameters), Some(requests)) =
        (section("fields"), section("parameters"), section("requests"))
    else {
        return;
    };
    for (name, schema) in entries(document.pointer_mut("/components/schemas")) {
        add_to_fields(schema, name, fields);
    }
    for (_, methods) in entries(document.pointer_mut("/paths")) {
        for (_, operation) in entries(Some(methods)) {
            let id = operation.get("operationId").and_then(Value::as_str).unwrap_or_default();
            let id = id.to_owned();
            add_to_operation(operation, &id, parameters, requests.get(&id));
        }
    }
}

fn entries(object: Option<&mut Value>) -> impl Iterator<Item = (&String, &mut Value)> {
    object.and_then(Value::as_object_mut).into_iter().flatten()
}

/// Adds an example to each field below a schema that has one in the table.
fn add_to_fields(schema: &mut Value, owner: &str, fields: &Map<String, Value>) {
    for (name, field) in entries(schema.get_mut("properties")) {
        let own = fields.get(&format!("{owner}.{name}"));
        if let Some(example) = own.or_else(|| fields.get(name)).filter(|value| fits(field, value))
            && let Some(field) = field.as_object_mut()
        {
            field.insert("examples".into(), Value::Array(vec![example.clone()]));
        } else {
            add_to_fields(field, &format!("{owner}.{name}"), fields);
        }
    }
    if let Some(items) = schema.get_mut("items") {
        add_to_fields(items, owner, fields);
    }
    for combination in ["allOf", "anyOf", "oneOf"] {
        let parts = schema.get_mut(combination).and_then(Value::as_array_mut);
        parts.into_iter().flatten().for_each(|part| add_to_fields(part, owner, fields));
    }
}

/// Returns whether the schema of a field admits a value of that type. References and fixed lists of words have their own
/// examples.
fn fits(field: &Value, example: &Value) -> bool {
    let has = |key: &str| field.get(key).is_some();
    if ["$ref", "oneOf", "anyOf", "allOf", "enum", "const"].into_iter().any(has) {
        return false;
    }
    let kind = match example {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    match field.get("type") {
        None => true,
        Some(Value::Array(kinds)) => kinds.iter().any(|known| known == kind),
        Some(known) => known == kind,
    }
}

fn add_to_operation(
    operation: &mut Value,
    id: &str,
    examples: &Map<String, Value>,
    requests: Option<&Value>,
) {
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten().filter_map(Value::as_object_mut) {
        let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default();
        let example = examples.get(&format!("{id}.{name}")).or_else(|| examples.get(name)).cloned();
        if let Some(example) = example.filter(|_| parameter.get("required") == Some(&true.into())) {
            parameter.insert("example".into(), example);
        }
    }
    let Some(requests) = requests.and_then(Value::as_object) else { return };
    for (_, content) in entries(operation.pointer_mut("/requestBody/content")) {
        let examples = requests.iter().map(|(name, value)| {
            (name.clone(), serde_json::json!({ "summary": name, "value": value }))
        });
        let examples = Value::Object(examples.collect());
        content.as_object_mut().map(|content| content.insert("examples".into(), examples));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_its_three_sections() {
        let table: Value = serde_json::from_str(TABLE).unwrap();
        let names: Vec<&String> = table.as_object().unwrap().keys().collect();
        assert_eq!(names, ["fields", "parameters", "requests"]);
    }

    #[test]
    fn example_is_added_by_schema_and_type() {
        let text = serde_json::json!({"type": ["string", "null"]});
        let mut document = serde_json::json!({"components": {"schemas": {
            "MessageSummary": {"properties": {"status": text, "error": {"$ref": "#"}}},
            "AttemptView": {"properties": {"status": {"type": "integer"}}},
            "Rows": {"allOf": [{"properties": {"rows": {"type": "array",
                "items": {"properties": {"sid": text}}}}}]},
        }}});
        add(&mut document);
        let at = |pointer: &str| document.pointer(&format!("/components/schemas/{pointer}"));
        assert_eq!(at("MessageSummary/properties/status/examples/0"), Some(&"delivered".into()));
        assert!(at("MessageSummary/properties/error/examples").is_none());
        assert_eq!(at("AttemptView/properties/status/examples/0"), Some(&503.into()));
        let sid = at("Rows/allOf/0/properties/rows/items/properties/sid/examples/0").unwrap();
        assert!(sid.as_str().unwrap().starts_with("SM"));
    }
}
