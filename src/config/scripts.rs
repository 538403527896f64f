//! `scripts`: which keys a script or function may write when its text does not prove it. Parsing only; `crate::scripts` decides.

use super::fields::WordList;
use super::units;

/// What the configuration says about scripts.
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
    /// Whether the configuration says which keys scripts write.
    pub fn are_trusted(&self) -> bool {
        *self != Scripts::Any
    }
}

const REMEDY: &str = "any, declared, or a list of patterns, for example [\"bull:*\"]";

/// How it is typed: a word, or a list of patterns.
pub(super) const SCRIPTS: WordList<Scripts> = WordList {
    word: |text| match text.to_ascii_lowercase().as_str() {
        "any" => Ok(Scripts::Any),
        "declared" => Ok(Scripts::Declared),
        _ => Err(units::no_such_word(text, "a way to treat scripts", &["any", "declared"], REMEDY)),
    },
    empty: || Scripts::Matching(Vec::new()),
    add: |scripts, pattern| {
        if let Scripts::Matching(patterns) = scripts {
            patterns.push(pattern.to_owned());
        }
        Ok(())
    },
    show: |scripts| match scripts {
        Scripts::Any => Ok("any".to_owned()),
        Scripts::Declared => Ok("declared".to_owned()),
        Scripts::Matching(patterns) => Err(patterns.clone()),
    },
    remedy: REMEDY,
};

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
        for wrong in ["anything", "bull:*", "[]", "[\"\"]", "[[a]]", "{a: b}", "true", "5", "''"] {
            let error = scripts(wrong).expect_err(wrong).to_string();
            assert!(error.contains("scripts"), "{wrong}: {error}");
        }
    }
}
