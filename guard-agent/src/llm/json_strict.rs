//! The one look over a whole request body before any field of it is believed.
//!
//! In: bytes of a request body. Out: the same as text, and what can stand anywhere in it. On failure: `Malformed`.
//! Providers' JSON readers differ where the standard is silent (RFC 8259 §4: duplicate names; some decoders match
//! names without regard to case). A body that two readers could read differently is refused, so that a client can't
//! show the firewall one request and the provider another.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::llm::{CacheWrite, Malformed, Pictures};

/// Most members of one object; far beyond what a tool schema has, and a bound on the memory of the duplicate check.
const MEMBER_LIMIT: usize = 10_000;

/// Objects up to this size are checked by comparing, larger ones with a set.
const SMALL_OBJECT: usize = 16;

/// What may stand at any depth of a body.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Survey {
    /// The dearest `cache_control` mark.
    pub(crate) cache_write: CacheWrite,
    /// Pictures in base64.
    pub(crate) pictures: Pictures,
}

/// Checks the whole text: valid UTF-8 and JSON, at most 128 levels deep (the parser's own bound), nothing behind the
/// value, no object with a name twice, and no top-level name that differs from one in `known` only by case.
pub(crate) fn survey<'a>(body: &'a [u8], known: &[&str]) -> Result<(&'a str, Survey), Malformed> {
    let text = std::str::from_utf8(body)
        .map_err(|error| Malformed(format!("the body is not UTF-8 at byte {}", error.valid_up_to())))?;
    let mut survey = Survey::default();
    let mut reader = serde_json::Deserializer::from_str(text);
    let walk = Walk {
        survey: &mut survey,
        place: Place::Top(known),
    };
    walk.deserialize(&mut reader)
        .and_then(|()| reader.end())
        .map_err(|error| malformed(&error))?;
    Ok((text, survey))
}

/// A parser's error as it may be shown: position and kind, never the content.
pub(crate) fn malformed(error: &serde_json::Error) -> Malformed {
    let shown = error.to_string();
    // Only type errors quote what they met: "invalid type: string \"…\", expected u64 at line 1 column 2".
    let quotes = shown.starts_with("invalid type: ") || shown.starts_with("invalid value: ");
    match shown.rsplit_once(", expected ") {
        Some((_, expected)) if quotes => Malformed(format!("the body can't be read: expected {expected}")),
        _ => Malformed(format!("the body can't be read: {shown}")),
    }
}

/// An object's name, borrowed where the text has no escapes in it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key<'de>(pub(crate) Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_borrowed_str<E: de::Error>(self, v: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(v)))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(v.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// Where in the body the walk is.
#[derive(Clone, Copy)]
enum Place<'k> {
    /// The body's own object, with the names that the format knows.
    Top(&'k [&'k str]),
    /// The value of a `cache_control`.
    CacheControl,
    /// The value of a `ttl` in it.
    Ttl,
    /// Anything else.
    Inner,
}

struct Walk<'s, 'k> {
    survey: &'s mut Survey,
    place: Place<'k>,
}

impl Walk<'_, '_> {
    fn cache(&mut self, write: CacheWrite) {
        self.survey.cache_write = self.survey.cache_write.max(write);
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.place {
            Place::Top(_) => "an object",
            _ => "a JSON value",
        })
    }

    fn visit_bool<E: de::Error>(self, v: bool) -> Result<(), E> {
        self.scalar(de::Unexpected::Bool(v))
    }
    fn visit_i64<E: de::Error>(self, v: i64) -> Result<(), E> {
        self.scalar(de::Unexpected::Signed(v))
    }
    fn visit_u64<E: de::Error>(self, v: u64) -> Result<(), E> {
        self.scalar(de::Unexpected::Unsigned(v))
    }
    fn visit_f64<E: de::Error>(self, v: f64) -> Result<(), E> {
        self.scalar(de::Unexpected::Float(v))
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.scalar(de::Unexpected::Unit)
    }

    fn visit_str<E: de::Error>(mut self, v: &str) -> Result<(), E> {
        // An unknown lifetime counts as the dearest one: unknown is never the cheapest.
        if matches!(self.place, Place::Ttl) && v != "5m" {
            self.cache(CacheWrite::OneHour);
        }
        self.survey.pictures.look(v);
        self.scalar(de::Unexpected::Other("string"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if matches!(self.place, Place::Top(_)) {
            return Err(de::Error::invalid_type(de::Unexpected::Seq, &self));
        }
        let survey = self.survey;
        while seq
            .next_element_seed(Walk {
                survey: &mut *survey,
                place: Place::Inner,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        if matches!(self.place, Place::CacheControl) {
            self.cache(CacheWrite::FiveMinutes);
        }
        let mut seen = Names::default();
        while let Some(Key(name)) = map.next_key::<Key<'de>>()? {
            if let Place::Top(known) = self.place
                && let Some(exact) = known
                    .iter()
                    .find(|k| k.eq_ignore_ascii_case(&name) && **k != name)
            {
                return Err(de::Error::custom(format_args!(
                    "a name differs from `{exact}` only by case"
                )));
            }
            let place = match (&*name, self.place) {
                ("cache_control", _) => Place::CacheControl,
                ("ttl", Place::CacheControl) => Place::Ttl,
                _ => Place::Inner,
            };
            seen.add(name).map_err(de::Error::custom)?;
            map.next_value_seed(Walk {
                survey: &mut *self.survey,
                place,
            })?;
        }
        Ok(())
    }
}

impl Walk<'_, '_> {
    fn scalar<E: de::Error>(self, what: de::Unexpected<'_>) -> Result<(), E> {
        match self.place {
            Place::Top(_) => Err(E::invalid_type(what, &self)),
            _ => Ok(()),
        }
    }
}

/// The names of one object seen so far.
#[derive(Default)]
struct Names<'de> {
    few: Vec<Cow<'de, str>>,
    many: HashSet<Cow<'de, str>>,
}

impl<'de> Names<'de> {
    fn add(&mut self, name: Cow<'de, str>) -> Result<(), &'static str> {
        if self.many.is_empty() && self.few.len() < SMALL_OBJECT {
            if self.few.contains(&name) {
                return Err("an object has the same name twice");
            }
            self.few.push(name);
            return Ok(());
        }
        self.many.extend(self.few.drain(..));
        if self.many.len() >= MEMBER_LIMIT {
            return Err("an object has too many members");
        }
        if !self.many.insert(name) {
            return Err("an object has the same name twice");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(body: &str) -> CacheWrite {
        survey(body.as_bytes(), &["model"]).unwrap().1.cache_write
    }

    #[test]
    fn finds_the_dearest_cache_mark_at_any_depth() {
        assert_eq!(cache(r#"{"a":[{"b":{"cache_control":null}}]}"#), CacheWrite::None);
        assert_eq!(
            cache(r#"{"a":[{"cache_control":{"type":"ephemeral"}}]}"#),
            CacheWrite::FiveMinutes
        );
        assert_eq!(
            cache(r#"{"cache_control":{"ttl":"5m"}}"#),
            CacheWrite::FiveMinutes
        );
        let both = r#"{"a":[{"cache_control":{"ttl":"1h"}},{"cache_control":{}}],"ttl":"9d"}"#;
        assert_eq!(cache(both), CacheWrite::OneHour);
        assert_eq!(cache(r#"{"cache_control":{"ttl":"12h"}}"#), CacheWrite::OneHour);
        assert_eq!(
            cache(r#"{"cache\u005fcontrol":{"ttl":"1h"}}"#),
            CacheWrite::OneHour
        );
    }

    #[test]
    fn refuses_what_two_readers_could_read_differently() {
        let many = (0..40).map(|i| format!("\"k{i}\":0,")).collect::<String>();
        for body in [
            r#"{"model":"a","model":"b"}"#.to_owned(),
            r#"{"model":"a","mod\u0065l":"b"}"#.to_owned(),
            r#"{"model":"a","Model":"b"}"#.to_owned(),
            r#"{"MODEL":"b"}"#.to_owned(),
            r#"{"x":{"y":[{"z":1,"z":1}]}}"#.to_owned(),
            format!("{{{many}\"k3\":1}}"),
            r#"{"a":1} {"b":2}"#.to_owned(),
            r#"{"a":1}x"#.to_owned(),
            "\u{feff}{}".to_owned(),
            "[]".to_owned(),
            "1".to_owned(),
            "null".to_owned(),
            r#""text""#.to_owned(),
            String::new(),
            r#"{"a":1,}"#.to_owned(),
            r#"{"a":NaN}"#.to_owned(),
            r#"{"a":1e999}"#.to_owned(),
            r#"{"a":"\ud800"}"#.to_owned(),
            format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200)),
        ] {
            assert!(survey(body.as_bytes(), &["model"]).is_err(), "{body}");
        }
        assert!(survey(b"{\"a\":\"\xff\"}", &[]).is_err());
    }

    #[test]
    fn errors_name_the_place_and_not_the_content() {
        let error = survey(br#"{"secret-name":1,"secret-name":"secret-value"}"#, &[]).unwrap_err();
        assert!(!error.0.contains("secret"), "{error}");
        assert!(error.0.contains("line 1"), "{error}");
    }

    #[test]
    fn accepts_large_ordinary_objects() {
        let many = (0..5000).map(|i| format!("\"k{i}\":{i},")).collect::<String>();
        assert!(survey(format!("{{{many}\"z\":null}} \n").as_bytes(), &[]).is_ok());
    }
}
