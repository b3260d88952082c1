//! JSON text, edited in place.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{broken, controls};
use crate::llm::json_edit::Editor;
use crate::llm::json_strict::survey;

/// The members of an object, each with its own text.
pub(super) fn members(text: &str) -> Option<BTreeMap<String, Box<RawValue>>> {
    serde_json::from_str(text).ok()
}

/// Members and elements that an edit does not name keep their text; those that it removes are gone.
pub(super) fn json_edit(input: &[u8]) {
    let Some((gone, how, rest)) = controls(input) else {
        return;
    };
    let Ok((text, _)) = survey(rest, &["model"]) else {
        return;
    };
    let before = members(text);
    let mut editor = Editor::new(text);
    let (Some(before), Ok(root)) = (before, editor.root()) else {
        broken("what was surveyed cannot be edited");
        return;
    };
    assert_eq!(before.len(), root.items.len());
    let names: Vec<String> = root
        .items
        .iter()
        .map(|item| item.name.clone().into_owned())
        .collect();
    let is_gone = |at: usize| gone >> (at % 8) & 1 == 1;
    // One value is replaced, if it stays.
    let replaced = usize::from(how & 0x0f);
    if let Some(item) = root.items.get(replaced).filter(|_| !is_gone(replaced)) {
        editor.replace(item, "[\"new\"]");
    }
    // Something is changed inside another one.
    let inside = usize::from(how >> 4);
    let list = root
        .items
        .get(inside)
        .filter(|item| item.value.starts_with('[') && inside != replaced && !is_gone(inside))
        .and_then(|item| editor.array(item.value).ok());
    if let Some(list) = &list {
        let mut at = 0_usize;
        editor.reshape(
            list,
            |_| {
                at += 1;
                at.is_multiple_of(2)
            },
            &[],
        );
    }
    let mut at = 0;
    let added = [("added by the test", "{\"a\":1}".to_owned())];
    let fresh = !before.contains_key(added[0].0);
    let added = if fresh { &added[..] } else { &[] };
    let stay = editor.reshape(
        &root,
        |_| {
            at += 1;
            is_gone(at - 1)
        },
        added,
    );
    assert_eq!(stay, (0..names.len()).filter(|at| !is_gone(*at)).count());
    let Ok(out) = editor.apply() else {
        broken("an edit that cannot be applied");
        return;
    };
    assert!(survey(out.as_bytes(), &["model"]).is_ok(), "{out}");
    let mut after = members(&out).unwrap_or_default();
    assert!(!fresh || after.remove("added by the test").is_some());
    for (at, name) in names.iter().enumerate() {
        let (old, new) = (before.get(name), after.remove(name));
        match (old, new) {
            (_, None) => assert!(is_gone(at), "{name} is lost"),
            (_, Some(_)) if is_gone(at) => broken(&format!("{name} stayed")),
            (_, Some(new)) if at == replaced => assert_eq!(new.get(), "[\"new\"]"),
            (Some(old), Some(new)) if at == inside && list.is_some() => halved(old.get(), new.get()),
            (Some(old), Some(new)) => assert_eq!(old.get(), new.get(), "{name}"),
            (None, Some(_)) => {}
        }
    }
    assert!(after.is_empty(), "{after:?}");
}

/// Every other element is gone.
fn halved(old: &str, new: &str) {
    let read = |text| serde_json::from_str::<Vec<Box<RawValue>>>(text).unwrap_or_default();
    let (old, new) = (read(old), read(new));
    let kept: Vec<&str> = old.iter().step_by(2).map(|raw| raw.get()).collect();
    let new: Vec<&str> = new.iter().map(|raw| raw.get()).collect();
    assert_eq!(kept, new);
}
