//! Edits JSON text in place: values are replaced, members and elements added or removed, and everything else stays
//! byte for byte.
//!
//! In: the original text and what to change. Out: the changed text. On failure: `Malformed`; nothing is half done.
//! The parser is serde_json; this file only turns the borrowed slices that it gives into positions in the text.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::llm::Malformed;
use crate::llm::json_strict::{Key, malformed};

/// One member of an object, or one element of an array.
#[derive(Debug, Clone)]
pub(crate) struct Item<'a> {
    /// The member's name; empty for an element.
    pub(crate) name: Cow<'a, str>,
    /// The value's own text.
    pub(crate) value: &'a str,
    /// From the name's opening quote (or the value's first byte) to the value's end.
    whole: Range<usize>,
    /// The value alone.
    at: Range<usize>,
}

/// An object or an array, by the positions of what is directly in it.
#[derive(Debug)]
pub(crate) struct Container<'a> {
    /// Members or elements, in order.
    pub(crate) items: Vec<Item<'a>>,
    /// Just behind the opening bracket.
    open: usize,
}

impl<'a> Container<'a> {
    /// The member with this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Item<'a>> {
        self.items.iter().find(|item| item.name == name)
    }

    /// The member with this name, unless its value is `null`.
    pub(crate) fn get_set(&self, name: &str) -> Option<&Item<'a>> {
        self.get(name).filter(|item| item.value != "null")
    }
}

/// Changes to one text, made in any order and applied together. No two may touch the same bytes.
#[derive(Debug)]
pub(crate) struct Editor<'a> {
    text: &'a str,
    changes: Vec<(Range<usize>, String)>,
}

impl<'a> Editor<'a> {
    /// An editor over a whole JSON text.
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            text,
            changes: Vec::new(),
        }
    }

    /// The object that is the whole text.
    pub(crate) fn root(&self) -> Result<Container<'a>, Malformed> {
        self.object(self.text)
    }

    /// An object that is a value somewhere in the text. `value` must be a slice of the editor's text.
    pub(crate) fn object(&self, value: &'a str) -> Result<Container<'a>, Malformed> {
        let Members(members) = serde_json::from_str(value).map_err(|error| malformed(&error))?;
        self.container(value, members)
    }

    /// An array that is a value somewhere in the text. `value` must be a slice of the editor's text.
    pub(crate) fn array(&self, value: &'a str) -> Result<Container<'a>, Malformed> {
        let Elements(elements) = serde_json::from_str(value).map_err(|error| malformed(&error))?;
        self.container(value, elements)
    }

    fn container(
        &self,
        value: &'a str,
        read: Vec<(Cow<'a, str>, &'a RawValue)>,
    ) -> Result<Container<'a>, Malformed> {
        let lost = || Malformed("the body can't be edited".to_owned());
        // Leading white space is part of the text that the parser was given, but not of the value.
        let open = self.at(value).ok_or_else(lost)?.start + value.find(['{', '[']).ok_or_else(lost)? + 1;
        let mut behind = open;
        let mut items = Vec::with_capacity(read.len());
        for (name, raw) in read {
            let at = self.at(raw.get()).ok_or_else(lost)?;
            // Between the previous value and this one stand a comma, white space, and (in objects) the name.
            let between = self.text.get(behind..at.start).ok_or_else(lost)?;
            let start = between.find('"').map_or(at.start, |offset| behind + offset);
            behind = at.end;
            items.push(Item {
                name,
                value: raw.get(),
                whole: start..at.end,
                at,
            });
        }
        Ok(Container { items, open })
    }

    /// Where a slice of the text stands in it.
    fn at(&self, slice: &str) -> Option<Range<usize>> {
        let start = (slice.as_ptr() as usize).checked_sub(self.text.as_ptr() as usize)?;
        let range = start..start.checked_add(slice.len())?;
        (self.text.get(range.clone())? == slice).then_some(range)
    }

    /// Puts another value in the place of an item's.
    pub(crate) fn replace(&mut self, item: &Item<'_>, value: impl Into<String>) {
        self.changes.push((item.at.clone(), value.into()));
    }

    /// Removes the items for which `gone` says so, each with one comma, and adds members behind the last one.
    /// Gives the number of items that stay. Call at most once for one container.
    pub(crate) fn reshape(
        &mut self,
        container: &Container<'_>,
        mut gone: impl FnMut(&Item<'_>) -> bool,
        added: &[(&str, String)],
    ) -> usize {
        let mut stay = 0;
        let mut behind = container.open;
        let mut items = container.items.iter().peekable();
        while let Some(item) = items.next() {
            if !gone(item) {
                stay += 1;
            } else if stay > 0 {
                self.changes.push((behind..item.whole.end, String::new()));
            } else {
                // Nothing stays before it: it goes with what separates it from the next one.
                let end = items.peek().map_or(item.whole.end, |next| next.whole.start);
                self.changes.push((item.whole.start..end, String::new()));
            }
            behind = item.whole.end;
        }
        if !added.is_empty() {
            let members: Vec<_> = added
                .iter()
                .map(|(name, value)| format!("\"{name}\":{value}"))
                .collect();
            let comma = if stay > 0 { "," } else { "" };
            self.changes
                .push((behind..behind, format!("{comma}{}", members.join(","))));
        }
        stay
    }

    /// Adds an element behind the last one of an array.
    pub(crate) fn push(&mut self, array: &Container<'_>, element: String) {
        match array.items.last() {
            Some(last) => self
                .changes
                .push((last.whole.end..last.whole.end, format!(",{element}"))),
            None => self.changes.push((array.open..array.open, element)),
        }
    }

    /// Sets a member of the object that is `outer` in `root`. Where there is none, gives the whole object for the caller
    /// to add in its place.
    pub(crate) fn set_inside(
        &mut self,
        root: &Container<'a>,
        outer: &str,
        inner: &str,
        value: String,
    ) -> Result<Option<String>, Malformed> {
        let Some(object) = root.get_set(outer) else {
            return Ok(Some(format!("{{\"{inner}\":{value}}}")));
        };
        let object = self.object(object.value)?;
        match object.get(inner) {
            Some(set) => self.replace(set, value),
            None => {
                self.reshape(&object, |_| false, &[(inner, value)]);
            }
        }
        Ok(None)
    }

    /// The changed text.
    pub(crate) fn apply(mut self) -> Result<String, Malformed> {
        // Stable: an insertion stands behind a removal that ends where it begins.
        self.changes.sort_by_key(|(range, _)| (range.start, range.end));
        let grown: usize = self.changes.iter().map(|(_, new)| new.len()).sum();
        let mut out = String::with_capacity(self.text.len() + grown);
        let mut behind = 0;
        for (range, new) in &self.changes {
            let kept = self.text.get(behind..range.start);
            out.push_str(kept.ok_or_else(|| Malformed("the body can't be edited".to_owned()))?);
            out.push_str(new);
            behind = range.end;
        }
        out.push_str(self.text.get(behind..).unwrap_or_default());
        Ok(out)
    }
}

/// The members of an object as slices of the text.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// The elements of an array as slices of the text, with empty names.
struct Elements<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take;
        impl<'de> Visitor<'de> for Take {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some((Key(name), value)) = map.next_entry()? {
                    all.push((name, value));
                }
                Ok(Members(all))
            }
        }
        deserializer.deserialize_map(Take)
    }
}

impl<'de> Deserialize<'de> for Elements<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take;
        impl<'de> Visitor<'de> for Take {
            type Value = Elements<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(value) = seq.next_element()? {
                    all.push((Cow::Borrowed(""), value));
                }
                Ok(Elements(all))
            }
        }
        deserializer.deserialize_seq(Take)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn without(text: &str, names: &[&str], added: &[(&str, String)]) -> String {
        let mut editor = Editor::new(text);
        let root = editor.root().unwrap();
        editor.reshape(&root, |item| names.contains(&&*item.name), added);
        editor.apply().unwrap()
    }

    #[test]
    fn removes_members_with_one_comma_each() {
        let text = "{ \"a\" : 1 ,\n  \"b\": [2, 3],\t\"c\":\"x\" }";
        assert_eq!(without(text, &["a"], &[]), "{ \"b\": [2, 3],\t\"c\":\"x\" }");
        assert_eq!(without(text, &["b"], &[]), "{ \"a\" : 1,\t\"c\":\"x\" }");
        assert_eq!(without(text, &["c"], &[]), "{ \"a\" : 1 ,\n  \"b\": [2, 3] }");
        assert_eq!(without(text, &["a", "b"], &[]), "{ \"c\":\"x\" }");
        assert_eq!(without(text, &["b", "c"], &[]), "{ \"a\" : 1 }");
        assert_eq!(without(text, &["a", "b", "c"], &[]), "{  }");
    }

    #[test]
    fn adds_members_behind_what_stays() {
        let added = [("x", "1".to_owned()), ("y", "{}".to_owned())];
        assert_eq!(without("{\"a\":1}", &[], &added), "{\"a\":1,\"x\":1,\"y\":{}}");
        assert_eq!(
            without("{\"a\":1,\"b\":2 }", &["b"], &added),
            "{\"a\":1,\"x\":1,\"y\":{} }"
        );
        assert_eq!(without("{\"a\":1}", &["a"], &added), "{\"x\":1,\"y\":{}}");
        assert_eq!(without(" {} ", &[], &added), " {\"x\":1,\"y\":{}} ");
    }

    #[test]
    fn replaces_inside_nested_values() {
        let text = " {\"a\": {\"b\" : [ {\"n\":1} , {\"n\":2} ]}, \"é\": \"\\\"\"}";
        let mut editor = Editor::new(text);
        let root = editor.root().unwrap();
        let inner = editor.object(root.get("a").unwrap().value).unwrap();
        let list = editor.array(inner.get("b").unwrap().value).unwrap();
        editor.reshape(&list, |item| item.value.contains('1'), &[]);
        editor.replace(root.get("é").unwrap(), "7");
        assert_eq!(
            editor.apply().unwrap(),
            " {\"a\": {\"b\" : [ {\"n\":2} ]}, \"é\": 7}"
        );
    }

    #[test]
    fn finds_names_written_with_escapes() {
        assert_eq!(without(r#"{"\u0061":1,"b":2}"#, &["a"], &[]), r#"{"b":2}"#);
    }

    fn space() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["", " ", "\n", "\t ", "\r\n  "])
    }

    proptest! {
        #[test]
        fn any_removal_leaves_json_with_the_rest_untouched(
            members in prop::collection::vec(("[a-z\"\\\\é]{1,4}", any::<i32>(), space(), space(), space(), space()), 0..8),
            gone in any::<u8>(),
            add in any::<bool>(),
        ) {
            let mut parts = Vec::new();
            for (index, (name, value, a, b, c, d)) in members.iter().enumerate() {
                let name = serde_json::to_string(&format!("{index}{name}")).unwrap();
                parts.push(format!("{a}{name}{b}:{c}{value}{d}"));
            }
            let text = format!("{{{}}}", parts.join(","));
            let mut editor = Editor::new(&text);
            let root = editor.root().unwrap();
            let mut index = 0;
            let added = [("added", "true".to_owned())];
            editor.reshape(&root, |_| { index += 1; gone >> (index - 1) & 1 == 1 }, if add { &added } else { &[] });
            let out = editor.apply().unwrap();
            let mut expected: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
            for (index, (name, ..)) in members.iter().enumerate() {
                if gone >> index & 1 == 1 { expected.remove(&format!("{index}{name}")); }
            }
            if add { expected.insert("added".to_owned(), true.into()); }
            let got: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&out).unwrap();
            prop_assert_eq!(got, expected);
            // What stays stands in the text as it was, from its name to its value.
            for (index, (name, value, _, b, c, _)) in members.iter().enumerate() {
                if gone >> index & 1 == 0 {
                    let name = serde_json::to_string(&format!("{index}{name}")).unwrap();
                    let member = format!("{name}{b}:{c}{value}");
                    prop_assert!(out.contains(&member));
                }
            }
        }
    }
}
