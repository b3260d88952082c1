//! The parts of reading a request that all formats share.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::llm::json_strict::malformed;
use crate::llm::{DeclaredTool, Malformed};

/// Most tools that one request may declare; providers stop at a few hundred. Each is compared with all before it, so
/// this and the length of a name bound the work that a hostile body can cause.
pub(crate) const TOOL_LIMIT: usize = 1024;
/// Longest name of a declared tool, in bytes; providers stop at 128.
const DECLARED_NAME: usize = 512;

/// Adds a declared tool, once per name; server-side if any declaration of the name is.
pub(crate) fn declare(tools: &mut Vec<DeclaredTool>, tool: DeclaredTool) -> Result<(), Malformed> {
    if tool.name.len() > DECLARED_NAME {
        return Err(Malformed("a tool's name is too long".to_owned()));
    }
    if let Some(known) = tools.iter_mut().find(|known| known.name == tool.name) {
        known.server_side |= tool.server_side;
        return Ok(());
    }
    if tools.len() >= TOOL_LIMIT {
        return Err(Malformed("the body declares too many tools".to_owned()));
    }
    tools.push(tool);
    Ok(())
}

/// Reads a part of a body whose type depends on where it stands: what does not fit is not what is looked for.
pub(crate) fn lenient<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Option<T> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
}

/// A field that is set to something other than `null`, whatever it is.
pub(crate) fn is_set(raw: Option<&RawValue>) -> bool {
    raw.is_some_and(|raw| raw.get() != "null")
}

/// What a part of a request adds to the facts of the whole.
pub(crate) trait Part<'de>: Deserialize<'de> {
    /// What the parts of a list add up to.
    type Sum: Default;
    /// Adds one part, which stands `depth` lists of parts deep. An error is shown to the client.
    fn add(self, sum: &mut Self::Sum, depth: u8) -> Result<(), Malformed>;
}

/// Reads text, one part, a list of parts, or nothing, as both providers allow for content. Parts are added up one by
/// one, so that a hostile list costs no memory.
pub(crate) fn parts<'de, P: Part<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<P::Sum, D::Error> {
    deserializer.deserialize_any(PartsVisitor::<P>(0, PhantomData))
}

/// The same, from a piece of the body's text that stands `depth` lists of parts deep.
pub(crate) fn parts_of<'de, P: Part<'de>>(text: &'de str, depth: u8) -> Result<P::Sum, Malformed> {
    let mut reader = serde_json::Deserializer::from_str(text);
    reader
        .deserialize_any(PartsVisitor::<P>(depth, PhantomData))
        .map_err(|error| malformed(&error))
}

struct PartsVisitor<P>(u8, PhantomData<P>);

impl<'de, P: Part<'de>> Visitor<'de> for PartsVisitor<P> {
    type Value = P::Sum;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or a list of parts")
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(P::Sum::default())
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(P::Sum::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let mut sum = P::Sum::default();
        let part = P::deserialize(de::value::MapAccessDeserializer::new(map))?;
        part.add(&mut sum, self.0).map_err(de::Error::custom)?;
        Ok(sum)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut sum = P::Sum::default();
        while let Some(part) = seq.next_element::<OrText<P>>()? {
            if let OrText(Some(part)) = part {
                part.add(&mut sum, self.0).map_err(de::Error::custom)?;
            }
        }
        Ok(sum)
    }
}

/// An element of a list of parts: some formats also take plain text there.
struct OrText<P>(Option<P>);

impl<'de, P: Part<'de>> Deserialize<'de> for OrText<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<P>(PhantomData<P>);
        impl<'de, P: Part<'de>> Visitor<'de> for Either<P> {
            type Value = OrText<P>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_str<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
                Ok(OrText(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                P::deserialize(de::value::MapAccessDeserializer::new(map)).map(|part| OrText(Some(part)))
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

/// How long a list is, and whether one of its elements begins with one of these bytes; none where there is no list.
pub(crate) fn list_of(raw: Option<&RawValue>, begins: &[u8]) -> Option<(u64, bool)> {
    struct Look<'b>(&'b [u8]);
    impl<'de> Visitor<'de> for Look<'_> {
        type Value = (u64, bool);
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let (mut count, mut found) = (0_u64, false);
            while let Some(element) = seq.next_element::<&RawValue>()? {
                count = count.saturating_add(1);
                found |= element
                    .get()
                    .bytes()
                    .next()
                    .is_some_and(|first| self.0.contains(&first));
            }
            Ok((count, found))
        }
    }
    let mut reader = serde_json::Deserializer::from_str(raw?.get());
    reader.deserialize_seq(Look(begins)).ok()
}

/// A non-empty list, whatever is in it.
pub(crate) fn has_elements(raw: Option<&RawValue>) -> bool {
    lenient::<Vec<IgnoredAny>>(raw).is_none_or(|list| !list.is_empty()) && is_set(raw)
}
