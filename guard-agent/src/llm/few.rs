//! Lists of bounded length, for what others wrote: two bytes of a text may ask for a hundred in memory.
//!
//! In: a JSON list. Out: its elements. On failure (more of them than any provider sends): an error, and the text that it
//! stands in counts as one that cannot be read.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

/// At most `N` elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Few<T, const N: usize = 1024>(Vec<T>);

impl<T, const N: usize> Few<T, N> {
    /// The elements.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T, const N: usize> Default for Few<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const M: usize, const N: usize> From<[T; M]> for Few<T, N> {
    fn from(elements: [T; M]) -> Self {
        Self(elements.into())
    }
}

impl<T, const N: usize> IntoIterator for Few<T, N> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'f, T, const N: usize> IntoIterator for &'f Few<T, N> {
    type Item = &'f T;
    type IntoIter = std::slice::Iter<'f, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Few<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Take<T, N> {
            type Value = Few<T, N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(element) = seq.next_element()? {
                    if all.len() >= N {
                        return Err(de::Error::custom("a list has too many elements"));
                    }
                    all.push(element);
                }
                Ok(Few(all))
            }
        }
        deserializer.deserialize_seq(Take(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_up_to_its_bound() {
        let read = |text: &str| serde_json::from_str::<Few<u8, 3>>(text).ok();
        assert_eq!(
            read("[1,2,3]").unwrap().into_iter().collect::<Vec<_>>(),
            [1, 2, 3]
        );
        assert!(read("[1,2,3,4]").is_none() && read("7").is_none());
        assert!(read("[]").unwrap().is_empty());
    }
}
