//! Where a responses request can declare tools, and by which names.
//!
//! A function is known by its name, one in a namespace by its own name too, a provider's own tool by its type, and an
//! MCP server by its host (`mcp:HOST`) or its connector (`mcp:CONNECTOR`): its label is the client's own choice.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::llm::request::{Part, declare, lenient, parts_of};
use crate::llm::{DeclaredTool, Malformed, json_strict};

/// Types that the client runs itself, and the search among the request's own tools, which costs nothing beyond its
/// tokens. All others run at the provider.
const CLIENT_RUN: [&str; 6] = [
    "local_shell",
    "apply_patch",
    "computer",
    "computer_use",
    "computer_use_preview",
    "tool_search",
];

/// Deepest nesting of namespaces that is read; the API has one level.
const DEPTH: u8 = 3;

/// One element of `tools`, wherever they stand.
#[derive(Deserialize)]
pub(in crate::llm) struct Tool<'a> {
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    /// Members of a namespace.
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow)]
    server_url: Option<Cow<'a, str>>,
    #[serde(borrow)]
    connector_id: Option<Cow<'a, str>>,
    /// Where a shell runs.
    #[serde(borrow)]
    environment: Option<&'a RawValue>,
    /// The form of chat completions, which compatible servers take.
    function: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: Option<String>,
}

#[derive(Deserialize)]
struct Typed {
    r#type: String,
}

impl Tool<'_> {
    /// Adds what the element declares.
    fn declared(self, tools: &mut Vec<DeclaredTool>, depth: u8) -> Result<(), Malformed> {
        let nameless = || Malformed("a tool has no name".to_owned());
        let one = |name: String, server_side: bool| DeclaredTool::run_by(server_side, name);
        match self.r#type.as_deref() {
            None | Some("function" | "custom") => {
                let nested = self.function.and_then(|function| function.name);
                let name = self.name.map(Cow::into_owned).or(nested).ok_or_else(nameless)?;
                declare(tools, one(name, false))
            }
            Some("namespace") => {
                if depth >= DEPTH {
                    return Err(Malformed("tools are nested too deeply".to_owned()));
                }
                let members = self.tools.ok_or_else(nameless)?;
                let found = parts_of::<Tool<'_>>(members.get(), depth + 1)?;
                found.into_iter().try_for_each(|tool| declare(tools, tool))
            }
            Some("mcp") => declare(tools, one(mcp_name(self.server_url, self.connector_id), true)),
            Some("shell") => {
                let local = self.environment.is_none()
                    || lenient::<Typed>(self.environment).is_some_and(|place| place.r#type == "local");
                declare(tools, one("shell".to_owned(), !local))
            }
            Some(kind) => {
                let server_side = !CLIENT_RUN.contains(&kind);
                declare(tools, one(kind.to_owned(), server_side))
            }
        }
    }
}

fn mcp_name(url: Option<Cow<'_, str>>, connector: Option<Cow<'_, str>>) -> String {
    let host = url.as_deref().and_then(|url| url.parse::<http::Uri>().ok());
    match (host.as_ref().and_then(http::Uri::host), connector) {
        (Some(host), _) => format!("mcp:{}", host.to_ascii_lowercase()),
        (None, Some(connector)) if url.is_none() => format!("mcp:{connector}"),
        _ => "mcp:unreadable".to_owned(),
    }
}

impl<'de: 'a, 'a> Part<'de> for Tool<'a> {
    type Sum = Vec<DeclaredTool>;
    fn add(self, tools: &mut Self::Sum, depth: u8) -> Result<(), Malformed> {
        self.declared(tools, depth)
    }
}

/// The names of one element of `tools`: several for a namespace.
pub(super) fn names_of(element: &str) -> Result<Vec<String>, Malformed> {
    let tool: Tool<'_> = serde_json::from_str(element).map_err(|error| json_strict::malformed(&error))?;
    let mut tools = Vec::new();
    tool.declared(&mut tools, 0)?;
    Ok(tools.into_iter().map(|tool| tool.name).collect())
}

/// The members of a namespace, if the element is one.
pub(super) fn is_namespace(element: &str) -> bool {
    serde_json::from_str::<Typed>(element).is_ok_and(|tool| tool.r#type == "namespace")
}
