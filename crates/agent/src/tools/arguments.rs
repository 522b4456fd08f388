//! Reading the arguments of a call: the usual names of other agents' tools are understood, values of a wrong but
//! obvious type are taken, and whatever else there is, is refused with the list of what a tool takes.
//!
//! Nothing is ever dropped in silence, but for notes in which a model tells itself what it is doing.

use serde_json::{Map, Number, Value};

/// The arguments of a call under our own names.
pub(super) type Arguments = Map<String, Value>;

/// One argument of a tool.
pub(super) struct Argument {
    /// Our name.
    pub(super) name: &'static str,
    /// What else it is called.
    also: &'static [&'static str],
    kind: Kind,
    is_required: bool,
}

/// What a value must be, and how it is taken when it is written in another way.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A string; a whole number or a truth value is taken as one.
    Text,
    /// The same, and empty is not absent.
    Exact,
    /// A string, or a list of words.
    Command,
    /// A whole number, not negative.
    Count,
    /// A whole number.
    Integer,
    /// Any number, not negative.
    Number,
    /// True or false.
    Flag,
    /// One of these, each with its other names.
    Choice(&'static [(&'static str, &'static [&'static str])]),
    /// A list; one of its entries alone is taken for a list of one.
    List,
    /// Words of the model to itself.
    Note,
}

/// Without it the call is refused.
pub(super) const fn required(name: &'static str, also: &'static [&'static str], kind: Kind) -> Argument {
    Argument { name, also, kind, is_required: true }
}

/// May be absent, null or empty.
pub(super) const fn optional(name: &'static str, also: &'static [&'static str], kind: Kind) -> Argument {
    Argument { name, also, kind, is_required: false }
}

/// What some tools of others ask of every call, so that models write it elsewhere, too.
const NOTE: Argument = optional(
    "description",
    &["explanation", "justification", "reason", "instruction", "thought"],
    Kind::Note,
);

/// Names of the object that some models put around the arguments.
const WRAPPERS: [&str; 4] = ["arguments", "input", "parameters", "args"];

/// How an absent text is written by models that feel bound to give one.
const ABSENT: [&str; 5] = ["", "null", "None", "undefined", "nil"];

/// The arguments as an object.
pub(super) fn parse(text: &str) -> Result<Arguments, String> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    let mut value: Value =
        serde_json::from_str(text).map_err(|error| format!("the arguments are not JSON: {error}"))?;
    // Some models write the object as a string once more.
    if let Value::String(inner) = &value
        && let Ok(unpacked @ Value::Object(_)) = serde_json::from_str(inner)
    {
        value = unpacked;
    }
    let Value::Object(mut object) = value else {
        return Err("the arguments must be a JSON object".into());
    };
    if let Some((name, Value::Object(_))) = object.iter().next()
        && object.len() == 1
        && WRAPPERS.contains(&name.as_str())
    {
        let inner = object.values_mut().next().map(Value::take);
        return Ok(inner.and_then(|inner| inner.as_object().cloned()).unwrap_or_default());
    }
    Ok(object)
}

/// `input` under our names and with values of the right types, or what is wrong with it.
pub(super) fn read(input: Arguments, known: &[Argument]) -> Result<Arguments, String> {
    let mut read = Arguments::new();
    for (name, value) in input {
        let argument = known
            .iter()
            .chain([&NOTE])
            .find(|argument| argument.is_called(&name))
            .ok_or_else(|| format!("it has no argument {name:?}. {}", list(known)))?;
        let Some(value) = argument.value(value).map_err(|wanted| format!("{name:?} must be {wanted}"))?
        else {
            continue;
        };
        if read.get(argument.name).is_some_and(|other| *other != value) {
            return Err(format!("{:?} is given twice, as {name:?} too, and not alike", argument.name));
        }
        read.insert(argument.name.to_owned(), value);
    }
    let missing = known.iter().find(|argument| argument.is_required && !read.contains_key(argument.name));
    missing.map_or(Ok(read), |argument| Err(format!("{:?} is missing. {}", argument.name, list(known))))
}

/// What a tool takes, by our names.
fn list(known: &[Argument]) -> String {
    let names: Vec<&str> = known
        .iter()
        .filter(|argument| !matches!(argument.kind, Kind::Note))
        .map(|argument| argument.name)
        .collect();
    format!("It takes {}", names.join(", "))
}

impl Argument {
    fn is_called(&self, name: &str) -> bool {
        let mut names = std::iter::once(&self.name).chain(self.also);
        // One letter is an option as programs have it, where -c and -C are different things.
        names.any(|known| *known == name || (folded(name).len() > 1 && folded(known) == folded(name)))
    }

    /// The value as it should be; `None` where it is as good as absent. The error says what it must be.
    fn value(&self, value: Value) -> Result<Option<Value>, String> {
        if value.is_null() || matches!(self.kind, Kind::Note) {
            return Ok(None);
        }
        let may_be_absent = !self.is_required && !matches!(self.kind, Kind::Exact);
        if may_be_absent && value.as_str().is_some_and(|text| ABSENT.contains(&text)) {
            return Ok(None);
        }
        self.kind.take(value).map(Some).ok_or_else(|| self.kind.wanted())
    }
}

/// `filePath`, `file-path` and `File_Path` are one name.
fn folded(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

impl Kind {
    fn take(self, value: Value) -> Option<Value> {
        match self {
            Self::Text | Self::Exact => match value {
                Value::String(_) => Some(value),
                Value::Bool(flag) => Some(flag.to_string().into()),
                Value::Number(number) if !number.is_f64() => Some(number.to_string().into()),
                _ => None,
            },
            Self::Command => command(value),
            Self::Count => whole(&value).filter(|number| *number >= 0).map(Value::from),
            Self::Integer => whole(&value).map(Value::from),
            Self::Number => {
                number(&value).filter(|number| *number >= 0.0).and_then(Number::from_f64).map(Value::Number)
            }
            Self::Flag => flag(&value).map(Value::Bool),
            Self::Choice(choices) => {
                let asked = folded(value.as_str()?);
                let is_it = |name: &&str| folded(name) == asked;
                let (name, _) = choices.iter().find(|(name, also)| is_it(name) || also.iter().any(is_it))?;
                Some((*name).into())
            }
            Self::List => list_of(value),
            Self::Note => None,
        }
    }

    fn wanted(self) -> String {
        match self {
            Self::Text | Self::Exact | Self::Note => "a string".into(),
            Self::Command => "a string, the command".into(),
            Self::Count => "a whole number, 0 or more".into(),
            Self::Integer => "a whole number".into(),
            Self::Number => "a number, 0 or more".into(),
            Self::Flag => "true or false".into(),
            Self::Choice(choices) => {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                format!("one of {}", names.join(", "))
            }
            Self::List => "a list".into(),
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|number: &f64| number.is_finite())
}

/// A number without a fraction, however it is written; what is out of range stays at the range's end.
fn whole(value: &Value) -> Option<i64> {
    if let Some(exact) = value.as_i64() {
        return Some(exact);
    }
    let number = number(value)?;
    // A cast of a float stops at the ends of the type's range, which are far beyond any bound of ours.
    (number.fract() == 0.0).then_some(number as i64)
}

fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::Number(number) => match number.as_f64()? {
            0.0 => Some(false),
            1.0 => Some(true),
            _ => None,
        },
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// Words are quoted for the shell; `["bash", "-lc", text]` is the text.
fn command(value: Value) -> Option<Value> {
    let Value::Array(words) = value else {
        return value.is_string().then_some(value);
    };
    let words: Vec<&str> = words.iter().map(Value::as_str).collect::<Option<_>>()?;
    let text = match words.as_slice() {
        [] => return None,
        [shell, option, text]
            if shell.rsplit('/').next().is_some_and(|name| matches!(name, "bash" | "sh" | "zsh"))
                && matches!(*option, "-c" | "-lc") =>
        {
            (*text).to_owned()
        }
        words => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    };
    Some(text.into())
}

/// One word for the shell, whatever is in it.
pub(crate) fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn list_of(value: Value) -> Option<Value> {
    match value {
        Value::Array(_) => Some(value),
        Value::Object(_) => Some(Value::Array(vec![value])),
        // Lists within arguments are often written as a string.
        Value::String(text) => match serde_json::from_str(&text).ok()? {
            list @ Value::Array(_) => Some(list),
            entry @ Value::Object(_) => Some(Value::Array(vec![entry])),
            _ => None,
        },
        _ => None,
    }
}
