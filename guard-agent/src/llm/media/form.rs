//! The fields of a form that decide something, each of which has one reading.

use crate::llm::Malformed;
use crate::llm::multipart::{self, Part};

/// A form.
pub(super) struct Form<'a>(Vec<Part<'a>>);

/// The name without the marks of a list or of an object (`image[]`, `svg[model]`, `svg.model`).
fn base(name: &str) -> &str {
    name.split(['[', '.']).next().unwrap_or_default()
}

impl<'a> Form<'a> {
    /// Reads one. Each name in `known` may stand in it once, and in no other spelling.
    pub(super) fn read(
        content_type: Option<&str>,
        body: &'a [u8],
        known: &[&str],
    ) -> Result<Self, Malformed> {
        let parts = multipart::parts(content_type.unwrap_or_default(), body)?;
        for name in known {
            let like = |part: &&Part<'_>| base(part.name).eq_ignore_ascii_case(name);
            let mut all = parts.iter().filter(like);
            let exact = all.next().is_none_or(|first| first.name == *name) && all.next().is_none();
            if !exact {
                return Err(Malformed(format!(
                    "the form has `{name}` more than once, or in another spelling"
                )));
            }
        }
        // A field of this name changes how some readers read all the others.
        if parts
            .iter()
            .any(|part| part.name.eq_ignore_ascii_case("_charset_"))
        {
            return Err(Malformed("the form names a character set".to_owned()));
        }
        Ok(Self(parts))
    }

    /// The text of a field.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, Malformed> {
        let part = self.0.iter().find(|part| part.name == name);
        part.map(Part::text).transpose()
    }

    /// A number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Malformed> {
        let number = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| digits)
        };
        match self.text(name)? {
            None => Ok(None),
            Some(text) => number(text)
                .map(Some)
                .ok_or_else(|| Malformed(format!("`{name}` is no number"))),
        }
    }

    /// Yes or no, in the words that every reader takes so.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Malformed> {
        match self.text(name)? {
            None | Some("false" | "False") => Ok(false),
            Some("true" | "True") => Ok(true),
            Some(_) => Err(Malformed(format!("`{name}` is neither true nor false"))),
        }
    }

    /// The parts of this name, alone or in a list.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &Part<'a>> {
        self.0
            .iter()
            .filter(move |part| base(part.name).eq_ignore_ascii_case(name))
    }

    /// Bytes of everything that is no file.
    pub(super) fn text_bytes(&self) -> u64 {
        let fields = self.0.iter().filter(|part| !part.is_file);
        fields.fold(0, |sum, part| sum.saturating_add(part.content.len() as u64))
    }
}
