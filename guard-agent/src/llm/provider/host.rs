//! Host names of a provider: exact ones, and all names below one.

/// What begins the name of a subtree.
const BELOW: &str = "*.";

/// Whether this stands for all names below one.
pub fn is_subtree(own: &str) -> bool {
    own.starts_with(BELOW)
}

/// The name of which a certificate authority must be allowed to sign the subtree: for an exact name the name itself
/// (RFC 5280 §4.2.1.10 permits names below it too).
pub fn subtree_of(own: &str) -> &str {
    own.strip_prefix(BELOW).unwrap_or(own)
}

/// Whether a provider's name covers a host. Both are lower case.
pub fn covers(own: &str, host: &str) -> bool {
    match own.strip_prefix(BELOW) {
        None => own == host,
        Some(parent) => host
            .strip_suffix(parent)
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|label| !label.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subtree_covers_names_below_it_and_nothing_beside_it() {
        for (own, host, wanted) in [
            ("api.a.com", "api.a.com", true),
            ("api.a.com", "x.api.a.com", false),
            ("*.openai.azure.com", "mine.openai.azure.com", true),
            ("*.openai.azure.com", "a.b.openai.azure.com", true),
            ("*.openai.azure.com", "openai.azure.com", false),
            ("*.openai.azure.com", ".openai.azure.com", false),
            ("*.openai.azure.com", "evilopenai.azure.com", false),
            ("*.openai.azure.com", "mine.openai.azure.com.evil.example", false),
        ] {
            assert_eq!(covers(own, host), wanted, "{own} {host}");
        }
        assert_eq!(subtree_of("*.openai.azure.com"), "openai.azure.com");
        assert_eq!(subtree_of("api.a.com"), "api.a.com");
    }
}
