//! What differs between two configurations, by the names of the settings, and when it comes into force. It never shows a value.

use toml::{Table, Value};

/// One setting that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// `["tenant", "acme", "limits", "turns_per_hour"]`: entries of a list stand under their `name` or `id`.
    path: Vec<String>,
    /// It is in both files.
    is_in_both: bool,
}

/// When a changed setting comes into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Now,
    AfterRestart,
    /// It only matters where something is made for the first time.
    Never,
}

impl Change {
    /// As an operator would look for it.
    pub(crate) fn name(&self) -> String {
        self.path.join(".")
    }

    /// When it comes into force, in a server or in a proxy of its own.
    pub(crate) fn effect(&self, is_server: bool) -> Effect {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        match path[..] {
            ["egress", "allow_addresses", ..] | ["tenant", _] | ["tenant", _, "egress" | "mode", ..] => {
                Effect::Now
            }
            ["upstream", _, "api_key", ..] if self.is_in_both => Effect::Now,
            // The rest of a tenant is no matter of the proxy's.
            ["tenant", ..] if !is_server => Effect::Now,
            ["tenant", _, "memory" | "locked" | "workspace_gb", ..] => Effect::AfterRestart,
            ["tenant", _, "credits", "balance"] => Effect::Never,
            ["tenant", ..] | ["events" | "sessions" | "client_tools" | "credits", ..] => Effect::Now,
            _ => Effect::AfterRestart,
        }
    }
}

/// Every setting that differs, in the order of their names.
pub(crate) fn between(before: &Table, after: &Table) -> Vec<Change> {
    let mut found = Vec::new();
    compare(&mut Vec::new(), before, after, &mut found);
    found
}

/// The file that is in force after a reload: the new one, with the old values where they still hold.
pub(crate) fn in_force(before: Table, after: Table, is_server: bool) -> Table {
    let is_whole =
        between(&before, &after).iter().all(|change| change.effect(is_server) != Effect::AfterRestart);
    if is_whole { after } else { merged(&mut Vec::new(), before, after, is_server) }
}

fn merged(path: &mut Vec<String>, mut before: Table, after: Table, is_server: bool) -> Table {
    let mut all = Table::new();
    for (key, new) in after {
        let old = before.remove(&key);
        path.push(key.clone());
        let value = match (old, new) {
            (Some(Value::Table(old)), Value::Table(new)) => Value::Table(merged(path, old, new, is_server)),
            (Some(old), new) if named(&old).is_some() && named(&new).is_some() => {
                let (old, new) = (named(&old).unwrap_or_default(), named(&new).unwrap_or_default());
                listed(merged(path, old, new, is_server))
            }
            (Some(old), new) if old == new => new,
            (old, new) => match (effect_of(path, old.is_some(), is_server), old) {
                (Effect::AfterRestart, Some(old)) => old,
                (Effect::AfterRestart, None) => {
                    path.pop();
                    continue;
                }
                _ => new,
            },
        };
        path.pop();
        all.insert(key, value);
    }
    for (key, old) in before {
        path.push(key.clone());
        if effect_of(path, false, is_server) == Effect::AfterRestart {
            all.insert(key, old);
        }
        path.pop();
    }
    all
}

fn effect_of(path: &[String], is_in_both: bool, is_server: bool) -> Effect {
    Change { path: path.to_vec(), is_in_both }.effect(is_server)
}

fn compare(path: &mut Vec<String>, before: &Table, after: &Table, found: &mut Vec<Change>) {
    let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        path.push(key.clone());
        match (before.get(key), after.get(key)) {
            (Some(Value::Table(old)), Some(Value::Table(new))) => compare(path, old, new, found),
            (Some(old), Some(new)) if old == new => {}
            (old, new) => {
                let named = |value: Option<&Value>| value.map_or_else(|| Some(Table::new()), named);
                match (named(old), named(new)) {
                    (Some(old), Some(new)) => compare(path, &old, &new, found),
                    _ => {
                        let is_in_both = old.is_some() && new.is_some();
                        found.push(Change { path: path.clone(), is_in_both });
                    }
                }
            }
        }
        path.pop();
    }
}

/// A list of tables that each have a name, as a table by that name.
fn named(value: &Value) -> Option<Table> {
    let Value::Array(entries) = value else { return None };
    let of_entry = |entry: &Value| {
        let table = entry.as_table()?;
        let name = table.get("name").or_else(|| table.get("id"))?.as_str()?;
        Some((name.to_owned(), entry.clone()))
    };
    let all: Table = entries.iter().map(of_entry).collect::<Option<_>>()?;
    (!all.is_empty() && all.len() == entries.len()).then_some(all)
}

fn listed(table: Table) -> Value {
    Value::Array(table.into_iter().map(|(_, entry)| entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        text.parse().unwrap()
    }

    const BEFORE: &str = "listen = \"127.0.0.1:1\"\n[sandbox]\npids = 100\n[[upstream]]\nname = \"u\"\nbase_url = \"a\"\napi_key = \"env:A\"\n\
         [[tenant]]\nname = \"acme\"\ntokens = [{id = \"t\", key = \"env:T\"}]\nlimits = {turns_per_hour = 3}\n[[tenant]]\nname = \"gone\"\n";

    #[test]
    fn settings_are_named_and_told_apart() {
        let after = table(
            "listen = \"127.0.0.1:2\"\n[sandbox]\npids = 100\n[events]\nretention_s = 5\n[[upstream]]\nname = \"u\"\nbase_url = \"a\"\n\
             api_key = \"env:B\"\n[[tenant]]\nname = \"new\"\n[[tenant]]\nname = \"acme\"\nmemory = \"off\"\ncredits = {balance = 1}\n\
             tokens = [{id = \"t\", key = \"env:S\"}]\nlimits = {turns_per_hour = 4}\n",
        );
        let found: Vec<_> =
            between(&table(BEFORE), &after).iter().map(|it| (it.name(), it.effect(true))).collect();
        let expected = [
            ("events", Effect::Now),
            ("listen", Effect::AfterRestart),
            ("tenant.acme.credits", Effect::Now),
            ("tenant.acme.limits.turns_per_hour", Effect::Now),
            ("tenant.acme.memory", Effect::AfterRestart),
            ("tenant.acme.tokens.t.key", Effect::Now),
            ("tenant.gone", Effect::Now),
            ("tenant.new", Effect::Now),
            ("upstream.u.api_key", Effect::Now),
        ];
        assert_eq!(found, expected.map(|(name, effect)| (name.to_owned(), effect)));
    }

    #[test]
    fn what_waits_for_a_restart_is_named_again_until_it_is_undone() {
        let (before, after) = (table(BEFORE), table(&BEFORE.replace(":1", ":2").replace("= 3", "= 4")));
        let in_force = in_force(before, after.clone(), true);
        let names = |other: &Table| between(&in_force, other).iter().map(Change::name).collect::<Vec<_>>();
        assert_eq!(names(&after), ["listen"]);
        assert_eq!(names(&table(BEFORE)), ["tenant.acme.limits.turns_per_hour"]);
    }
}
