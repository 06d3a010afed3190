//! Settings from files: a tree of changes laid over complete settings. What is unknown or of the wrong
//! type is named with its full key.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ConvertConfig;

/// A change that does not fit the settings.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No setting has this name.
    #[error("unknown setting {key}{}", nearest_note(.nearest.as_ref()))]
    Unknown {
        /// Its full name, parts separated by dots.
        key: String,
        /// The most similar setting that exists.
        nearest: Option<String>,
    },
    /// The value does not suit the setting.
    #[error("{key} = {found}: {reason}")]
    Value {
        /// Full name of the setting.
        key: String,
        /// The value, as JSON.
        found: String,
        /// What was expected.
        reason: String,
    },
}

fn nearest_note(nearest: Option<&String>) -> String {
    nearest.map_or_else(String::new, |key| format!(" (is {key} meant?)"))
}

impl ConvertConfig {
    /// Settings from a tree of changes. Its `method` chooses the preset that the rest is laid over.
    ///
    /// # Errors
    /// The first change that does not fit.
    pub fn from_changes(changes: &Value) -> Result<Self, SettingsError> {
        let chosen = changes.get("method").map(|m| serde_json::json!({ "method": m })).unwrap_or_default();
        let method = overlay(&Self::default(), &chosen)?.method;
        overlay(&method.preset(), changes)
    }
}

/// `base` with `changes` laid over it: a tree of the same names, of which any may be missing.
///
/// # Errors
/// A name that `base` does not have, a value of the wrong kind.
pub fn overlay<C: Serialize + DeserializeOwned>(base: &C, changes: &Value) -> Result<C, SettingsError> {
    let broken = |e: serde_json::Error| SettingsError::Value {
        key: String::new(),
        found: String::new(),
        reason: e.to_string(),
    };
    let mut tree = serde_json::to_value(base).map_err(broken)?;
    let mut known = Vec::new();
    names(&tree, "", &mut known);
    let mut leaves = Vec::new();
    collect(changes, "", &tree, &known, &mut leaves)?;
    for (path, value) in leaves {
        let key = path.join(".");
        let found = value.to_string();
        if let Some(slot) = path.iter().try_fold(&mut tree, |at, name| at.get_mut(name)) {
            *slot = value;
        }
        // One at a time, so that a wrong value is named.
        serde_json::from_value::<C>(tree.clone()).map_err(|e| SettingsError::Value {
            key,
            found,
            reason: e.to_string(),
        })?;
    }
    serde_json::from_value(tree).map_err(broken)
}

/// Lays one tree of changes over another; what `upper` names wins.
pub fn merge(lower: &mut Value, upper: &Value) {
    match (lower, upper) {
        (_, Value::Null) => {}
        (Value::Object(lower), Value::Object(upper)) => {
            for (name, value) in upper {
                merge(lower.entry(name.as_str()).or_insert(Value::Null), value);
            }
        }
        (lower, upper) => *lower = upper.clone(),
    }
}

fn names(tree: &Value, prefix: &str, into: &mut Vec<String>) {
    let Value::Object(entries) = tree else { return };
    for (name, value) in entries {
        let key = full(prefix, name);
        names(value, &key, into);
        into.push(key);
    }
}

fn full(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

fn collect(
    changes: &Value,
    prefix: &str,
    tree: &Value,
    known: &[String],
    into: &mut Vec<(Vec<String>, Value)>,
) -> Result<(), SettingsError> {
    let entries = match changes {
        Value::Null => return Ok(()),
        Value::Object(entries) => entries,
        other => {
            return Err(SettingsError::Value {
                key: prefix.to_owned(),
                found: other.to_string(),
                reason: "a table of settings is expected".to_owned(),
            });
        }
    };
    for (name, value) in entries {
        let key = full(prefix, name);
        match tree.get(name) {
            None => return Err(SettingsError::Unknown { nearest: nearest(&key, known), key }),
            Some(sub @ Value::Object(_)) => collect(value, &key, sub, known, into)?,
            Some(_) => into.push((key.split('.').map(str::to_owned).collect(), value.clone())),
        }
    }
    Ok(())
}

/// The known name of the least edit distance, by whole key or by its last part; none where nothing is near.
fn nearest(key: &str, known: &[String]) -> Option<String> {
    let last = |k: &str| k.rsplit('.').next().unwrap_or_default().to_owned();
    // Half a name is nearer than another word.
    let near = |l: &str, r: &str| if l.starts_with(r) || r.starts_with(l) { 1 } else { distance(l, r) };
    let score = |k: &String| distance(key, k).min(near(&last(key), &last(k)));
    let best = known.iter().min_by_key(|k| (score(k), distance(key, k)))?;
    (score(best) <= last(key).chars().count().div_ceil(2)).then(|| best.clone())
}

/// Levenshtein distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &r) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(l != r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Method;
    use serde_json::json;

    #[test]
    fn changes_are_laid_over_the_preset_of_their_method() {
        let config = ConvertConfig::from_changes(
            &json!({ "method": "square", "epochs": 5, "range": { "penalty": 0.5 } }),
        )
        .unwrap();
        let mut expected = ConvertConfig { epochs: 5, ..Method::Square.preset() };
        expected.range.penalty = 0.5;
        assert_eq!(config, expected);
        assert_eq!(ConvertConfig::from_changes(&Value::Null).unwrap(), ConvertConfig::default());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let message = |changes: Value| ConvertConfig::from_changes(&changes).unwrap_err().to_string();
        assert_eq!(
            message(json!({ "transition": { "epoch": 3 } })),
            "unknown setting transition.epoch (is transition.epochs meant?)"
        );
        assert_eq!(
            message(json!({ "transition": { "recover": 3 } })),
            "unknown setting transition.recover (is transition.recover_epochs meant?)"
        );
        assert_eq!(
            message(json!({ "learning_rte": 1 })),
            "unknown setting learning_rte (is optimiser.learning_rate meant?)"
        );
        assert_eq!(message(json!({ "colour": 1 })), "unknown setting colour");
        assert_eq!(
            message(json!({ "epochs": "many" })),
            "epochs = \"many\": invalid type: string \"many\", expected usize"
        );
        let kind = message(json!({ "transition": { "kind": "slow" } }));
        assert!(
            kind.starts_with("transition.kind = \"slow\": unknown variant `slow`, expected one of"),
            "{kind}"
        );
        assert_eq!(message(json!({ "range": 3 })), "range = 3: a table of settings is expected");
        let method = message(json!({ "method": "magic" }));
        assert!(method.starts_with("method = \"magic\": unknown variant"), "{method}");
    }

    #[test]
    fn later_changes_win() {
        let mut lower = json!({ "epochs": 1, "range": { "bound": 2.0 } });
        merge(&mut lower, &json!({ "epochs": 3, "range": { "clamp": 4.0 } }));
        assert_eq!(lower, json!({ "epochs": 3, "range": { "bound": 2.0, "clamp": 4.0 } }));
        merge(&mut lower, &Value::Null);
        assert_eq!(lower["epochs"], 3);
        let mut nothing = Value::Null;
        merge(&mut nothing, &json!({ "a": { "b": 1 } }));
        assert_eq!(nothing, json!({ "a": { "b": 1 } }));
    }

    #[test]
    fn distances() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
