//! Percent-escapes in the segment of a path that names a model.

/// The name: letters, digits, and what stands in model ids and resource names (`anthropic.claude-v2:1`,
/// `arn:aws:bedrock:us-east-1:1:inference-profile/us.x`, `ft:gpt-4o@x`). Nothing that could lead to another path: no
/// empty, `.` or `..` part, and an escape only for a character that may stand there.
pub(super) fn decoded(segment: &str) -> Option<String> {
    let mut bytes = segment.bytes();
    let mut name = String::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            other => other,
        };
        if !byte.is_ascii_alphanumeric() && !b"-_.~:@/+".contains(&byte) {
            return None;
        }
        name.push(char::from(byte));
    }
    let parts_are_plain = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    parts_are_plain.then_some(name)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models_are_decoded_and_nothing_else_is() {
        for (written, name) in [
            ("gpt-4o", "gpt-4o"),
            ("anthropic.claude-v2%3A1", "anthropic.claude-v2:1"),
            ("anthropic.claude-v2:1", "anthropic.claude-v2:1"),
            (
                "arn%3aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x",
                "arn:aws:bedrock:us-east-1:1:inference-profile/us.x",
            ),
        ] {
            assert_eq!(decoded(written).as_deref(), Some(name), "{written}");
        }
        for written in [
            "",
            ".",
            "..",
            "a%2F..%2Fb",
            "%2e%2e",
            "a%2F",
            "%2Fa",
            "a%2F%2Fb",
            "a%",
            "a%2",
            "a%zz",
            "a%00",
            "a%3Fb",
            "a b",
            "a%23b",
            "a%25b",
            "a%5Cb",
            "é",
        ] {
            assert_eq!(decoded(written), None, "{written}");
        }
    }
}
