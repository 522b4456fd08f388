//! A JSON value as the fields of an endpoint's body or query, and, where it is not that, one sentence that names the
//! field and what it must be. It must never quote a value: one may be a secret.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer as _, MapAccess,
    SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

/// How unlike a misspelt name may be for the known one to be offered, by the metric of Jaro and Winkler.
const ALIKE_MIN: f64 = 0.8;
/// What is repeated of a client's own name, in characters.
const NAME_CHARS_MAX: usize = 64;

/// What is wrong, and where.
#[derive(Debug)]
pub(crate) struct Mismatch {
    /// Innermost first.
    path: Vec<String>,
    what: What,
}

#[derive(Debug)]
enum What {
    UnknownField {
        field: String,
        known: &'static [&'static str],
    },
    Missing(&'static str),
    /// What it must be, and what it is.
    Wrong {
        must_be: String,
        is: String,
    },
    NoChoice {
        known: &'static [&'static str],
    },
    /// A sentence of the type's own.
    Said(String),
}

/// Reads a value of JSON. Objects are objects: an array is not taken for a list of their fields.
pub(crate) fn read<T: DeserializeOwned>(value: &Value) -> Result<T, Mismatch> {
    T::deserialize(Given { value, is_text: false })
}

/// Reads the parameters of a query, whose numbers and booleans are texts.
pub(crate) fn read_query<T: DeserializeOwned>(pairs: Map<String, Value>) -> Result<T, Mismatch> {
    T::deserialize(Given { value: &Value::Object(pairs), is_text: true })
}

impl Mismatch {
    /// Whether it is about a name that nobody knows.
    pub(crate) fn is_unknown_field(&self) -> bool {
        matches!(self.what, What::UnknownField { .. })
    }

    /// The sentence. `thing` is what it is about: `field` of a body, `parameter` of a query.
    pub(crate) fn sentence(&self, thing: &str) -> String {
        self.told(thing, short)
    }

    /// The sentence about a body with secrets: a name that looks like none is not repeated, because it may be a secret
    /// in the wrong place.
    pub(crate) fn sentence_beside_secrets(&self) -> String {
        self.told("field", |name| if is_plain(name) { format!(" '{name}'") } else { String::new() })
    }

    fn told(&self, thing: &str, name: impl Fn(&str) -> String) -> String {
        let here = self.place();
        let inside = if here.is_empty() { String::new() } else { format!(" in '{here}'") };
        match &self.what {
            What::UnknownField { field, known } => {
                let named = name(field);
                let nearest = nearest(field, known).map(|name| format!("; did you mean '{name}'?"));
                let known = known.join(", ");
                let rest = nearest.unwrap_or_else(|| format!("; there are: {known}"));
                format!("there is no {thing}{named}{inside}{rest}")
            }
            What::Missing(field) => format!("the {thing} '{field}' is missing{inside}"),
            What::Wrong { must_be, is } if here.is_empty() => format!("the body must be {must_be}, not {is}"),
            What::Wrong { must_be, is } => format!("'{here}' must be {must_be}, not {is}"),
            What::NoChoice { known } => {
                let place = if here.is_empty() { thing } else { &here };
                format!("'{place}' must be one of: {}", known.join(", "))
            }
            What::Said(text) if here.is_empty() => text.clone(),
            What::Said(text) => format!("'{here}': {text}"),
        }
    }

    /// `file_access.read[1]`.
    fn place(&self) -> String {
        let mut place = String::new();
        for step in self.path.iter().rev() {
            if !place.is_empty() && !step.starts_with('[') {
                place.push('.');
            }
            place.push_str(step);
        }
        place
    }

    fn within(mut self, step: String) -> Self {
        self.path.push(step);
        self
    }

    fn of(what: What) -> Self {
        Self { path: Vec::new(), what }
    }
}

/// A client's own name, so that it is seen whatever it is made of.
fn short(name: &str) -> String {
    let shown: String = name.chars().take(NAME_CHARS_MAX).flat_map(char::escape_debug).collect();
    let cut = if name.chars().nth(NAME_CHARS_MAX).is_some() { "…" } else { "" };
    format!(" '{shown}{cut}'")
}

/// Small letters and underscores: what names of fields are made of, and secrets are not.
fn is_plain(name: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'-'))
}

fn nearest<'k>(field: &str, known: &[&'k str]) -> Option<&'k str> {
    let field: String = field.chars().take(NAME_CHARS_MAX).collect();
    let field = field.to_ascii_lowercase().replace('-', "_");
    let alike = known.iter().map(|name| (strsim::jaro_winkler(&field, name), *name));
    let best = alike.max_by(|one, other| one.0.total_cmp(&other.0));
    best.filter(|(alike, _)| *alike >= ALIKE_MIN).map(|(_, name)| name)
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence("field"))
    }
}

impl std::error::Error for Mismatch {}

impl de::Error for Mismatch {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::of(What::Said(message.to_string()))
    }

    fn invalid_type(is: Unexpected<'_>, must_be: &dyn Expected) -> Self {
        Self::of(What::Wrong { must_be: expected(must_be), is: kind(&is).to_owned() })
    }

    fn invalid_value(is: Unexpected<'_>, must_be: &dyn Expected) -> Self {
        Self::of(What::Wrong { must_be: expected(must_be), is: format!("this {}", noun(&is)) })
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self::of(What::NoChoice { known })
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::of(What::UnknownField { field: field.to_owned(), known })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::of(What::Missing(field))
    }
}

/// What a type says that it expects, in the words of JSON.
fn expected(must_be: &dyn Expected) -> String {
    let text = must_be.to_string();
    match text.as_str() {
        "a boolean" => "true or false".to_owned(),
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0 on".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" | "a JSON number" => "a number".to_owned(),
        "a sequence" => "an array".to_owned(),
        "a map" => "an object".to_owned(),
        "string or map" | "variant identifier" => "a string".to_owned(),
        other
            if ["struct ", "enum ", "internally tagged enum", "newtype struct"]
                .iter()
                .any(|it| other.starts_with(it)) =>
        {
            "an object".to_owned()
        }
        _ => text,
    }
}

fn kind(is: &Unexpected<'_>) -> &'static str {
    match is {
        Unexpected::Bool(true) => "true",
        Unexpected::Bool(false) => "false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Str(_) | Unexpected::Char(_) | Unexpected::Bytes(_) => "a string",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq => "an array",
        _ => "an object",
    }
}

fn noun(is: &Unexpected<'_>) -> &'static str {
    match kind(is) {
        "a number" => "number",
        "a string" => "string",
        _ => "value",
    }
}

/// A value on its way into a type.
#[derive(Clone, Copy)]
struct Given<'v> {
    value: &'v Value,
    is_text: bool,
}

impl<'v> Given<'v> {
    fn inner(self, value: &'v Value) -> Self {
        Self { value, ..self }
    }

    fn unexpected(self) -> Unexpected<'v> {
        match self.value {
            Value::Null => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Number(_) => Unexpected::Float(0.0),
            Value::String(text) => Unexpected::Str(text),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
        }
    }

    /// The value that a parameter's text stands for.
    fn parsed<T: std::str::FromStr>(self, must_be: &dyn Expected) -> Result<Option<T>, Mismatch> {
        match self.value {
            Value::String(text) if self.is_text => match text.parse() {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(de::Error::invalid_value(self.unexpected(), must_be)),
            },
            _ => Ok(None),
        }
    }
}

macro_rules! of_text {
    ($($method:ident $visit:ident $type:ty)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            match self.parsed::<$type>(&visitor)? {
                Some(value) => visitor.$visit(value),
                None => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Given<'de> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(whole), _) => visitor.visit_u64(whole),
                (None, Some(whole)) => visitor.visit_i64(whole),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(values) => visitor.visit_seq(Elements { given: self, values: values.iter(), at: 0 }),
            Value::Object(fields) => {
                visitor.visit_map(Fields { given: self, fields: fields.iter(), next: None })
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &str, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        // A derived reader would take an array for an object's fields.
        match self.value {
            Value::Object(_) => self.deserialize_any(visitor),
            _ => Err(de::Error::invalid_type(self.unexpected(), &visitor)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match self.value {
            Value::String(text) => {
                let name: StrDeserializer<'de, Mismatch> = text.as_str().into_deserializer();
                visitor.visit_enum(name)
            }
            _ => Err(de::Error::invalid_type(self.unexpected(), &"a string")),
        }
    }

    of_text! {
        deserialize_bool visit_bool bool
        deserialize_u64 visit_u64 u64
        deserialize_u32 visit_u32 u32
        deserialize_i64 visit_i64 i64
        deserialize_f64 visit_f64 f64
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u128 f32 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        identifier ignored_any
    }
}

struct Fields<'v> {
    given: Given<'v>,
    fields: serde_json::map::Iter<'v>,
    next: Option<(&'v String, &'v Value)>,
}

impl<'v> MapAccess<'v> for Fields<'v> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'v>>(&mut self, seed: K) -> Result<Option<K::Value>, Mismatch> {
        self.next = self.fields.next();
        let Some((name, _)) = self.next else { return Ok(None) };
        let name: de::value::BorrowedStrDeserializer<'v, Mismatch> =
            de::value::BorrowedStrDeserializer::new(name);
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'v>>(&mut self, seed: T) -> Result<T::Value, Mismatch> {
        let Some((name, value)) = self.next.take() else {
            return Err(de::Error::custom("a value without a name"));
        };
        seed.deserialize(self.given.inner(value)).map_err(|wrong| wrong.within(name.clone()))
    }
}

struct Elements<'v> {
    given: Given<'v>,
    values: std::slice::Iter<'v, Value>,
    at: usize,
}

impl<'v> SeqAccess<'v> for Elements<'v> {
    type Error = Mismatch;

    fn next_element_seed<T: DeserializeSeed<'v>>(&mut self, seed: T) -> Result<Option<T::Value>, Mismatch> {
        let Some(value) = self.values.next() else { return Ok(None) };
        let at = self.at;
        self.at += 1;
        let element = seed.deserialize(self.given.inner(value));
        element.map(Some).map_err(|wrong| wrong.within(format!("[{at}]")))
    }
}

#[cfg(test)]
mod tests {
    use palisade_protocol::{Injection, SessionDraft};
    use serde_json::json;

    use super::*;

    fn of<T: DeserializeOwned>(value: Value) -> String {
        read::<T>(&value).map(drop).unwrap_err().sentence("field")
    }

    #[test]
    fn a_sentence_names_the_field_and_what_it_must_be() {
        for (body, sentence) in [
            (json!({"file_acess": {}}), "there is no field 'file_acess'; did you mean 'file_access'?"),
            (json!({"Persistent": true}), "there is no field 'Persistent'; did you mean 'persistent'?"),
            (json!({"fileAccess": {}}), "there is no field 'fileAccess'; did you mean 'file_access'?"),
            (json!({"meta": {}}), "there is no field 'meta'; did you mean 'metadata'?"),
            (
                json!({"file_access": {"reed": []}}),
                "there is no field 'reed' in 'file_access'; did you mean 'read'?",
            ),
            (json!({"file_access": [["a"], ["b"]]}), "'file_access' must be an object, not an array"),
            (json!({"file_access": {"read": [5]}}), "'file_access.read[0]' must be a string, not a number"),
            (json!({"file_access": {"read": "a"}}), "'file_access.read' must be an array, not a string"),
            (json!({"persistent": "yes"}), "'persistent' must be true or false, not a string"),
            (json!({"metadata": []}), "'metadata' must be an object, not an array"),
            (json!({"model": 4}), "'model' must be a string, not a number"),
            (json!([]), "the body must be an object, not an array"),
        ] {
            assert_eq!(of::<SessionDraft>(body.clone()), sentence, "{body}");
        }
        let unknown = of::<SessionDraft>(json!({"xyz": 1}));
        assert!(unknown.starts_with("there is no field 'xyz'; there are: persistent, ttl, "), "{unknown}");
        for (body, sentence) in [
            (json!({"type": "cookie"}), "'type' must be one of: bearer, basic, header"),
            (json!({"type": "header"}), "the field 'name' is missing"),
            (json!({}), "the field 'type' is missing"),
        ] {
            let said = of::<Injection>(body.clone());
            assert!(said.starts_with(sentence), "{body}: {said}");
        }
    }

    #[test]
    fn a_query_has_texts_for_numbers() {
        #[derive(serde::Deserialize, Debug, PartialEq)]
        #[serde(deny_unknown_fields)]
        struct Asked {
            limit: Option<u64>,
            #[serde(default)]
            recursive: bool,
        }
        let pairs = |value: Value| value.as_object().unwrap().clone();
        let asked = read_query::<Asked>(pairs(json!({"limit": "10", "recursive": "true"}))).unwrap();
        assert_eq!(asked, Asked { limit: Some(10), recursive: true });
        for (query, sentence) in [
            (json!({"limit": "-1"}), "'limit' must be a whole number from 0 on, not this string"),
            (json!({"recursive": "yes"}), "'recursive' must be true or false, not this string"),
            (json!({"limt": "1"}), "there is no parameter 'limt'; did you mean 'limit'?"),
        ] {
            assert_eq!(read_query::<Asked>(pairs(query)).unwrap_err().sentence("parameter"), sentence);
        }
    }
}
