//! `$.slides[3].bullets[1].text`: the paths of a report, resolved in a spec.

use serde_json::Value;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// Reads a path; `None` when it is none.
pub(crate) fn parse(path: &str) -> Option<Vec<Step>> {
    let mut rest = path.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (index, tail) = after.split_once(']')?;
            steps.push(Step::Index(index.parse().ok()?));
            rest = tail;
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (key, tail) = after.split_at(end);
            if key.is_empty() {
                return None;
            }
            steps.push(Step::Key(key.to_owned()));
            rest = tail;
        }
    }
    Some(steps)
}

/// The value at a path.
pub(crate) fn get_mut<'a>(root: &'a mut Value, steps: &[Step]) -> Option<&'a mut Value> {
    steps.iter().try_fold(root, |value, step| match step {
        Step::Key(key) => value.get_mut(key.as_str()),
        Step::Index(index) => value.get_mut(*index),
    })
}

/// Takes the value at a path out of its object or list.
pub(crate) fn remove(root: &mut Value, steps: &[Step]) -> Option<Value> {
    let (last, parents) = steps.split_last()?;
    match (get_mut(root, parents)?, last) {
        (Value::Object(object), Step::Key(key)) => object.remove(key),
        (Value::Array(list), Step::Index(index)) if *index < list.len() => Some(list.remove(*index)),
        _ => None,
    }
}

/// The slide that a path lies in.
pub(crate) fn slide_index(steps: &[Step]) -> Option<usize> {
    match steps {
        [Step::Key(key), Step::Index(index), ..] if key == "slides" => Some(*index),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_resolve() {
        let mut spec = json!({"slides": [{"bullets": ["a", {"text": "b"}]}]});
        let steps = parse("$.slides[0].bullets[1].text").unwrap();
        assert_eq!(get_mut(&mut spec, &steps), Some(&mut json!("b")));
        assert_eq!(slide_index(&steps), Some(0));
        assert_eq!(remove(&mut spec, &parse("$.slides[0].bullets[0]").unwrap()), Some(json!("a")));
        for bad in ["", "slides", "$.", "$.a[", "$.a[x]", "$a"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
