//! `scripts`: which keys a script or function may write when its text does not prove it. Parsing only; `crate::scripts` judges.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use super::units::Wrong;

/// What the user says about scripts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scripts {
    /// They may write any key.
    #[default]
    Any,
    /// They write only the keys that they declare.
    Declared,
    /// They write the keys that they declare, and keys that match one of these Redis glob patterns.
    Matching(Vec<String>),
}

impl Scripts {
    /// Whether the user says which keys scripts write.
    pub fn are_trusted(&self) -> bool {
        *self != Scripts::Any
    }
}

const REMEDY: &str = "any, declared, or a list of patterns, for example [\"bull:*\"]";

impl<'de> Deserialize<'de> for Scripts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WordOrList)
    }
}

struct WordOrList;

impl<'de> Visitor<'de> for WordOrList {
    type Value = Scripts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REMEDY)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scripts, E> {
        match text {
            "any" => Ok(Scripts::Any),
            "declared" => Ok(Scripts::Declared),
            _ => Err(E::custom(Wrong::not(text, "a way to treat scripts", REMEDY))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scripts, A::Error> {
        let mut patterns = Vec::new();
        while let Some(Pattern(pattern)) = list.next_element()? {
            patterns.push(pattern);
        }
        Ok(Scripts::Matching(patterns))
    }
}

/// An element of the list: text, never another list.
struct Pattern(String);

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::yaml::text(deserializer).map(Pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::Scripts;
    use crate::config::Config;

    #[test]
    fn typed_as_a_word_or_a_list() {
        let scripts = |text: &str| Config::from_yaml(&format!("scripts: {text}")).map(|config| config.scripts);
        let matching =
            |patterns: &[&str]| Ok(Scripts::Matching(patterns.iter().map(|text| (*text).to_owned()).collect()));
        assert_eq!(scripts("any"), Ok(Scripts::Any));
        assert_eq!(scripts("declared"), Ok(Scripts::Declared));
        assert_eq!(scripts("[\"bull:*\", cache]"), matching(&["bull:*", "cache"]));
        assert_eq!(scripts("[any]"), matching(&["any"]));
        for wrong in ["Any", "bull:*", "[]", "[\"\"]", "[[a]]", "{a: b}", "true", "5", "''"] {
            let error = scripts(wrong).expect_err(wrong).to_string();
            assert!(error.contains("scripts"), "{wrong}: {error}");
        }
    }
}
