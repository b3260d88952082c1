//! Decides: `&Call` to `Permit` or `Refusal`.

pub mod access;
pub mod budget;
pub mod caps;
pub mod key;
pub mod tools;

/// Longest piece of a caller's own text in a message, in characters.
const QUOTED: usize = 64;

/// A caller's own text for a message: in quotes, on one line, of bounded length.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(QUOTED).map(plain).collect();
    if text.chars().nth(QUOTED).is_some() {
        short.push('…');
    }
    format!("\"{short}\"")
}

#[cfg(test)]
pub(crate) mod tests_support {
    use std::sync::Arc;

    use crate::config::{Agent, Config, check_text};
    use crate::llm::DialectKind;
    use crate::llm::provider::{Auth, Provider};

    /// The agent `coder` with these further lines of configuration; `openai` and `anthropic` are known.
    pub(crate) fn agent(lines: &str) -> Arc<Agent> {
        config(lines).agents[0].clone()
    }

    /// A configuration with that agent only.
    pub(crate) fn config(lines: &str) -> Config {
        let provider = |name: &str, dialect| Provider {
            name: name.to_owned(),
            hosts: vec![format!("api.{name}.com")],
            dialect,
            auth: Auth::Bearer,
            base_path: String::new(),
            keys: Vec::new(),
            connect_to: None,
            trust: Vec::new(),
        };
        let table = vec![
            provider("openai", DialectKind::OpenaiChat),
            provider("anthropic", DialectKind::AnthropicMessages),
        ];
        let text = format!("[[agent]]\nname = \"coder\"\nowner = \"team\"\n{lines}\n");
        let checked = check_text(&text, "guard.toml", table);
        checked
            .config
            .unwrap_or_else(|| panic!("{:#?}", checked.problems))
    }
}
