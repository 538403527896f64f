//! Checks a value against a JSON Schema, with the few words that `docs/api` uses. A schema with another word is refused, so none is
//! passed over. (The libraries for all of JSON Schema bring more than thirty packages along.)

use serde_json::Value;

/// Adds what is wrong with the value, each with its place in it.
pub fn check(schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    let schema = schema.as_object().expect("a schema is an object");
    for (word, rule) in schema {
        let is_right = match word.as_str() {
            "$schema" | "title" | "description" => true,
            "type" => match rule {
                Value::Array(types) => types.iter().any(|name| is_of(name, value)),
                name => is_of(name, value),
            },
            "enum" => rule.as_array().expect("values").contains(value),
            "anyOf" => rule.as_array().expect("schemas").iter().any(|schema| {
                let mut wrong = Vec::new();
                check(schema, value, at, &mut wrong);
                wrong.is_empty()
            }),
            "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().expect("a number")),
            "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().expect("a number")),
            "minItems" => value.as_array().is_none_or(|list| list.len() as u64 >= rule.as_u64().expect("a number")),
            "minProperties" => value.as_object().is_none_or(|map| map.len() as u64 >= rule.as_u64().expect("a number")),
            "required" => {
                let names = rule.as_array().expect("names").iter().filter_map(Value::as_str);
                value.as_object().is_none_or(|map| names.into_iter().all(|name| map.contains_key(name)))
            }
            "items" => {
                for (place, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(rule, item, &format!("{at}/{place}"), wrong);
                }
                true
            }
            "properties" => {
                for (name, schema) in rule.as_object().expect("schemas") {
                    if let Some(inside) = value.get(name) {
                        check(schema, inside, &format!("{at}/{name}"), wrong);
                    }
                }
                true
            }
            "additionalProperties" => {
                let named = |name: &String| schema.get("properties").is_some_and(|named| named.get(name).is_some());
                let mut others = value.as_object().into_iter().flatten().filter(|(name, _)| !named(name));
                match rule {
                    Value::Bool(allowed) => *allowed || others.next().is_none(),
                    rule => {
                        others.for_each(|(name, inside)| check(rule, inside, &format!("{at}/{name}"), wrong));
                        true
                    }
                }
            }
            other => panic!("{other} is not known here"),
        };
        if !is_right {
            wrong.push(format!("{at}: against {word}: {rule}"));
        }
    }
}

fn is_of(name: &Value, value: &Value) -> bool {
    match name.as_str().expect("the name of a type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("{other} is not known here"),
    }
}

#[test]
fn a_wrong_value_is_found() {
    let schema = serde_json::json!({
        "type": "object", "required": ["a"], "additionalProperties": false,
        "properties": { "a": { "type": ["integer", "null"], "minimum": 1 }, "b": { "type": "array", "items": { "enum": ["x"] } } }
    });
    let is_right = |value: Value| {
        let mut wrong = Vec::new();
        check(&schema, &value, "", &mut wrong);
        wrong.is_empty()
    };
    assert!(is_right(serde_json::json!({ "a": 1, "b": ["x"] })) && is_right(serde_json::json!({ "a": null })));
    for value in
        [serde_json::json!({}), serde_json::json!({ "a": 0 }), serde_json::json!({ "a": 1.5 }), serde_json::json!([])]
    {
        assert!(!is_right(value.clone()), "{value}");
    }
    assert!(!is_right(serde_json::json!({ "a": 1, "c": 1 })) && !is_right(serde_json::json!({ "a": 1, "b": ["y"] })));
}
