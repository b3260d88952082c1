//! How many values stand in a JSON text, before it is taken apart into a tree.
//!
//! A tree costs up to a hundred times its text (`{"":0}` is six bytes, and six hundred as an object), so that a text of a
//! few megabytes could fill the memory. In: a text. Out: whether it may be taken apart. On failure: there is none; in what
//! is no JSON the same bytes are counted.

use memchr::memchr2;

/// Most values of one text that is taken apart: with the smallest objects a hundred megabytes. The longest replies of
/// models have some thousand.
const VALUES: usize = 250_000;

/// Whether the text holds no more values than are taken apart.
pub(crate) fn few_values(text: &[u8]) -> bool {
    // Every value but the last needs two bytes: itself and what separates it from the next one.
    if text.len() <= 2 * VALUES {
        return true;
    }
    let (mut rest, mut values) = (text, 1_usize);
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b'"' => behind_string(after),
            b',' | b':' | b'[' | b'{' => {
                values += 1;
                after
            }
            _ => after,
        };
        if values > VALUES {
            return false;
        }
    }
    true
}

/// What follows the closing quote.
fn behind_string(mut text: &[u8]) -> &[u8] {
    while let Some(at) = memchr2(b'"', b'\\', text) {
        let escape = text.get(at) == Some(&b'\\');
        text = text.get(at + 1 + usize::from(escape)..).unwrap_or_default();
        if !escape {
            return text;
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_and_texts_are_not_looked_into() {
        let list = |element: &str, times: usize| format!("[{}0]", format!("{element},").repeat(times));
        assert!(few_values(list("0", VALUES - 3).as_bytes()));
        assert!(!few_values(list("0", VALUES + 1).as_bytes()));
        assert!(!few_values(list("{\"\":0}", VALUES / 2).as_bytes()));
        let long = format!("[\"{}\\\",[\"]", ",".repeat(4 * VALUES));
        assert!(few_values(long.as_bytes()));
        assert!(few_values(format!("\"{}", ",\\".repeat(2 * VALUES)).as_bytes()));
    }
}
