//! What is said of a key that does not fit where it stands.
//!
//! In: the key, and what the schema knows. Out: a problem with what to write instead. On failure: there is none.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::DeValue;

use super::problem::nearest;
use super::read::Reader;
use super::schema::{self, Status};

/// What to write where a value has the wrong type, for the slips that are made often.
pub(super) fn to_write(section: &str, key: &str, wanted: &str, kind: &str) -> Option<String> {
    let top = section.is_empty();
    Some(match wanted {
        "a table" if top => format!("write [{key}] on a line of its own above its keys"),
        "a table" => format!("write {key} = {{ … }}"),
        "an array of tables" if top => {
            format!("write [[{key}]] on a line of its own above the keys of each")
        }
        "an array of tables" => format!("write {key} = [{{ … }}]"),
        "a list of strings" if kind == "string" => format!("write {key} = [\"…\"]"),
        "a whole number" | "a decimal number" if kind == "string" => "write it without quotes".to_owned(),
        "a string" if kind != "array" => "write it in quotes".to_owned(),
        _ => return None,
    })
}

/// Notes a key that is not known where it stands.
pub(super) fn unknown_key(reader: &Reader<'_>, section: &str, key: &Spanned<Cow<'_, str>>) {
    let written = key.get_ref().as_ref();
    let names = || schema::of(section).map(|known| known.name);
    let elsewhere = || schema::KEYS.iter().find(|known| known.name == written);
    let fix = match (nearest(written, names()), elsewhere()) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        // Below a header that is not TOML stand keys of another table than they seem to.
        (None, _) if reader.broken => return,
        (None, Some(known)) => format!("`{written}` belongs in {}", schema::header(known.section)),
        (None, None) => format!("known here: {}", names().collect::<Vec<_>>().join(", ")),
    };
    let message = format!("unknown key `{written}` in {}", schema::header(section));
    reader.error(&key.span(), message, fix);
}

/// Notes a key that does not work in this version.
pub(super) fn check_status(
    reader: &Reader<'_>,
    known: &schema::Key,
    key: &Spanned<Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
) {
    let name = known.name;
    match known.status {
        Status::Works => {}
        Status::Only(word) if value.get_ref().as_str() == Some(word) => {}
        Status::Only(word) => reader.error(
            &value.span(),
            format!("`{name}` other than {word:?} is not available in this version"),
            format!("write {name} = {word:?}, or remove the line"),
        ),
        Status::Planned => reader.error(
            &key.span(),
            format!(
                "`{name}` in {} is not available in this version",
                schema::header(known.section)
            ),
            "remove it: a rule that is written here but not enforced would mislead",
        ),
    }
}

/// The article of a type's name.
pub(super) fn article(kind: &str) -> &'static str {
    if kind.starts_with(['a', 'i']) { "an" } else { "a" }
}
