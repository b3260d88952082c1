//! Whether a tool choice names a tool, wherever in it.
//!
//! In: a piece of the body's text, as long as a body may be. Out: yes or no, without keeping any of it. On failure: no;
//! the body was read as JSON before.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::llm::json_strict::Key;

/// Which texts count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Where {
    /// Those that stand as a `name` or a `type`.
    Named,
    /// Any of them.
    Anywhere,
}

/// Whether one of the names stands in this value, at any depth (some formats list several allowed tools).
pub(crate) fn mentions(choice: &str, place: Where, listed: &dyn Fn(&str) -> bool) -> bool {
    let mut found = false;
    let mut reader = serde_json::Deserializer::from_str(choice);
    let walk = Walk {
        place,
        counts: place == Where::Anywhere,
        listed,
        found: &mut found,
    };
    walk.deserialize(&mut reader).is_ok() && found
}

struct Walk<'w> {
    place: Where,
    /// Whether a text here counts.
    counts: bool,
    listed: &'w dyn Fn(&str) -> bool,
    found: &'w mut bool,
}

impl Walk<'_> {
    fn inner(&mut self, counts: bool) -> Walk<'_> {
        Walk {
            place: self.place,
            counts: counts || self.place == Where::Anywhere,
            listed: self.listed,
            found: self.found,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        *self.found |= self.counts && (self.listed)(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self.inner(false))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(name)) = map.next_key::<Key<'de>>()? {
            let named = matches!(&*name, "name" | "type");
            map.next_value_seed(self.inner(named))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(choice: &str) -> bool {
        mentions(choice, Where::Named, &|name| name == "Bash")
    }

    #[test]
    fn a_name_is_found_at_any_depth_and_only_where_names_stand() {
        for choice in [
            r#"{"type":"function","function":{"name":"Bash"}}"#,
            r#"{"type":"allowed_tools","allowed_tools":{"tools":[{"name":"Read"},{"name":"Ba\u0073h"}]}}"#,
            r#"[[{"type":"Bash"}]]"#,
        ] {
            assert!(named(choice), "{choice}");
        }
        for choice in [
            r#""Bash""#,
            r#"{"note":"Bash"}"#,
            r#"{"name":["Bash"]}"#,
            "{",
            "7",
            "null",
        ] {
            assert!(!named(choice), "{choice}");
        }
        assert!(mentions(r#"{"a":["Bash"]}"#, Where::Anywhere, &|name| name == "Bash"));
    }
}
