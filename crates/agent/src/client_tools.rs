//! Client-side tools: OpenAI function definitions given when a session is created, and checked then, so that no
//! model call fails for one of them.

use palisade_protocol::ToolDefinition;
use palisade_protocol::limits::{
    CLIENT_TOOL_DESCRIPTION_BYTES_MAX, CLIENT_TOOL_NAME_MAX, CLIENT_TOOL_SCHEMA_BYTES_MAX, CLIENT_TOOLS_MAX,
};
use serde_json::{Value, json};

use crate::tools;

/// Reads the definitions, in the nested chat form or the flat Responses form; the error says which one is wrong
/// and how.
pub fn read(definitions: &[Value]) -> Result<Vec<ToolDefinition>, String> {
    if definitions.len() > CLIENT_TOOLS_MAX {
        return Err(format!(
            "'tools' has {} entries; at most {CLIENT_TOOLS_MAX} are taken",
            definitions.len()
        ));
    }
    let mut read: Vec<ToolDefinition> = Vec::with_capacity(definitions.len());
    for (at, definition) in definitions.iter().enumerate() {
        let tool = read_one(definition).map_err(|what| format!("tools[{at}]: {what}"))?;
        if read.iter().any(|other| other.name == tool.name) {
            return Err(format!("tools[{at}]: there are two tools named {:?}", tool.name));
        }
        read.push(tool);
    }
    Ok(read)
}

fn read_one(definition: &Value) -> Result<ToolDefinition, String> {
    if definition["type"] != "function" {
        return Err("'type' must be \"function\"".into());
    }
    let function = if definition["function"].is_object() { &definition["function"] } else { definition };
    let name = function["name"].as_str().ok_or("'name' is missing")?;
    check_name(name)?;
    let description = match &function["description"] {
        Value::Null => "",
        Value::String(text) if text.len() <= CLIENT_TOOL_DESCRIPTION_BYTES_MAX => text,
        Value::String(_) => {
            return Err(format!("'description' is longer than {CLIENT_TOOL_DESCRIPTION_BYTES_MAX} bytes"));
        }
        _ => return Err("'description' must be a string".into()),
    };
    let parameters = match &function["parameters"] {
        Value::Null => json!({"type": "object", "properties": {}}),
        schema => check_schema(schema)?.clone(),
    };
    Ok(ToolDefinition { name: name.to_owned(), description: description.to_owned(), parameters })
}

fn check_name(name: &str) -> Result<(), String> {
    let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if !letters || !(1..=CLIENT_TOOL_NAME_MAX).contains(&name.len()) {
        return Err(format!("'name' must be 1 to {CLIENT_TOOL_NAME_MAX} of A-Z, a-z, 0-9, _ and -"));
    }
    if tools::NAMES.contains(&name) {
        return Err(format!("{name:?} is the name of a tool that the agent has itself"));
    }
    Ok(())
}

/// What models take as arguments: an object's schema, whose parts have the right form.
fn check_schema(schema: &Value) -> Result<&Value, String> {
    if schema["type"] != "object" {
        return Err("'parameters' must be a JSON Schema with \"type\": \"object\"".into());
    }
    if !matches!(schema["properties"], Value::Null | Value::Object(_)) {
        return Err("'parameters.properties' must be an object".into());
    }
    let names = |list: &Value| list.as_array().is_some_and(|names| names.iter().all(Value::is_string));
    if !schema["required"].is_null() && !names(&schema["required"]) {
        return Err("'parameters.required' must be a list of names".into());
    }
    if schema.to_string().len() > CLIENT_TOOL_SCHEMA_BYTES_MAX {
        return Err(format!("'parameters' is longer than {CLIENT_TOOL_SCHEMA_BYTES_MAX} bytes"));
    }
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let schema = json!({"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]});
        let nested = json!({"type": "function", "function": {"name": "ask", "description": "d", "parameters": schema}});
        let flat = json!({"type": "function", "name": "ask", "description": "d", "parameters": schema});
        assert_eq!(read(&[nested]).unwrap(), read(&[flat]).unwrap());
        assert_eq!(
            read(&[json!({"type": "function", "name": "bare"})]).unwrap()[0].parameters["type"],
            "object"
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let named = |name: &str| json!({"type": "function", "name": name});
        for (tools, said) in [
            (vec![json!({"name": "x"})], "type"),
            (vec![json!("x")], "type"),
            (vec![json!({"type": "function"})], "name"),
            (vec![named("with space")], "name"),
            (vec![named(&"x".repeat(65))], "name"),
            (vec![named("Bash")], "Bash"),
            (vec![named("WebSearch")], "WebSearch"),
            (vec![named("a"), named("a")], "tools[1]"),
            (
                vec![json!({"type": "function", "name": "a", "description": "x".repeat(16 * 1024 + 1)})],
                "description",
            ),
            (vec![json!({"type": "function", "name": "a", "parameters": {"type": "array"}})], "parameters"),
            (
                vec![
                    json!({"type": "function", "name": "a", "parameters": {"type": "object", "required": "q"}}),
                ],
                "required",
            ),
            ((0..129).map(|n| named(&format!("t{n}"))).collect(), "129"),
        ] {
            let error = read(&tools).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        assert_eq!(read(&(0..128).map(|n| named(&format!("t{n}"))).collect::<Vec<_>>()).unwrap().len(), 128);
        assert!(read(&[named(&"x".repeat(64))]).is_ok());
    }
}
