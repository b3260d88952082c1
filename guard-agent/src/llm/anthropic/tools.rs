//! Where a messages request can declare tools, and by which names.
//!
//! A function tool is known by its name, a dated one by its type, and an MCP server by its host (`mcp:HOST`): its name
//! is the client's own choice.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::llm::request::{Part, declare, lenient, parts_of};
use crate::llm::{DeclaredTool, Malformed, json_strict};

/// Families of dated tools that the client runs itself; all others run at the provider.
const CLIENT_RUN: [&str; 6] = [
    "bash_",
    "text_editor_",
    "computer_",
    "computer_toolset_",
    "browser_toolset_",
    "memory_",
];

/// One element of `tools`, or the definition in a `tool_addition`.
#[derive(Deserialize)]
pub(super) struct Tool<'a> {
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    mcp_server_name: Option<Cow<'a, str>>,
    max_uses: Option<u64>,
}

/// One element of `mcp_servers`.
#[derive(Deserialize)]
pub(super) struct McpServer<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    url: Option<Cow<'a, str>>,
}

/// A declaration as read; a toolset waits for the list of servers.
pub(super) enum Declared {
    /// Its name is known.
    Tool(DeclaredTool),
    /// All tools of the MCP server with this name.
    Toolset(String),
}

impl Tool<'_> {
    /// What the element declares, or nothing when it has no name at all.
    pub(super) fn declared(self) -> Option<Declared> {
        match self.r#type.as_deref() {
            None | Some("custom") => Some(Declared::Tool(DeclaredTool::client(self.name?))),
            Some("mcp_toolset") => Some(Declared::Toolset(
                self.mcp_server_name.map(Cow::into_owned).unwrap_or_default(),
            )),
            Some(kind) => {
                let server_side = !CLIENT_RUN.iter().any(|family| kind.starts_with(family));
                Some(Declared::Tool(DeclaredTool {
                    name: kind.to_owned(),
                    server_side,
                    called: self.name.map(Cow::into_owned),
                    max_uses: self.max_uses,
                }))
            }
        }
    }
}

impl McpServer<'_> {
    /// The client's own name for the server.
    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// The name by which the allow list knows the server.
    pub(super) fn tool_name(&self) -> String {
        let host = self.url.as_deref().and_then(|url| url.parse::<http::Uri>().ok());
        match host.as_ref().and_then(http::Uri::host) {
            Some(host) => format!("mcp:{}", host.to_ascii_lowercase()),
            None => "mcp:unreadable".to_owned(),
        }
    }
}

impl<'de: 'a, 'a> Part<'de> for Tool<'a> {
    type Sum = Tools;
    fn add(self, tools: &mut Tools, _depth: u8) -> Result<(), Malformed> {
        tools.add(
            self.declared()
                .ok_or_else(|| Malformed("a tool has no name".to_owned()))?,
        )
    }
}

impl<'de: 'a, 'a> Part<'de> for McpServer<'a> {
    type Sum = Vec<(String, String)>;
    fn add(self, servers: &mut Self::Sum, _depth: u8) -> Result<(), Malformed> {
        if servers.len() >= SERVER_LIMIT {
            return Err(Malformed("the body names too many MCP servers".to_owned()));
        }
        let tool = self.tool_name();
        servers.push((self.name.map(Cow::into_owned).unwrap_or_default(), tool));
        Ok(())
    }
}

/// Most MCP servers of one request; the API allows twenty.
const SERVER_LIMIT: usize = 256;

/// Declarations, each once.
#[derive(Default)]
pub(super) struct Tools {
    tools: Vec<DeclaredTool>,
    toolsets: Vec<String>,
}

impl Tools {
    fn add(&mut self, declared: Declared) -> Result<(), Malformed> {
        match declared {
            Declared::Tool(tool) => declare(&mut self.tools, tool),
            Declared::Toolset(server) if self.toolsets.contains(&server) => Ok(()),
            Declared::Toolset(_) if self.toolsets.len() >= SERVER_LIMIT => {
                Err(Malformed("the body names too many MCP servers".to_owned()))
            }
            Declared::Toolset(server) => {
                self.toolsets.push(server);
                Ok(())
            }
        }
    }

    /// Takes in what another place of the same request declares.
    pub(super) fn merge(&mut self, other: Self) -> Result<(), Malformed> {
        other
            .tools
            .into_iter()
            .try_for_each(|tool| declare(&mut self.tools, tool))?;
        other
            .toolsets
            .into_iter()
            .try_for_each(|server| self.add(Declared::Toolset(server)))
    }

    /// All declarations, with the servers' hosts in place of their names.
    pub(super) fn finish(mut self, servers: &[(String, String)]) -> Result<Vec<DeclaredTool>, Malformed> {
        for name in servers.iter().map(|(_, tool)| tool.clone()) {
            declare(&mut self.tools, DeclaredTool::provider(name))?;
        }
        for server in self.toolsets {
            let name = toolset_name(&server, servers);
            declare(&mut self.tools, DeclaredTool::provider(name))?;
        }
        Ok(self.tools)
    }
}

/// The name of a toolset: its server's host. Without such a server it is known by its type alone.
pub(super) fn toolset_name(server: &str, servers: &[(String, String)]) -> String {
    let found = servers.iter().find(|(name, _)| name == server);
    found.map_or_else(|| "mcp_toolset".to_owned(), |(_, tool)| tool.clone())
}

/// The name of one element of `tools`.
pub(super) fn name_of(element: &str, servers: &[(String, String)]) -> Result<String, Malformed> {
    let tool: Tool<'_> = serde_json::from_str(element).map_err(|error| json_strict::malformed(&error))?;
    match tool.declared() {
        Some(Declared::Tool(tool)) => Ok(tool.name),
        Some(Declared::Toolset(server)) => Ok(toolset_name(&server, servers)),
        None => Err(Malformed("a tool has no name".to_owned())),
    }
}

/// The value of `tool` in a `tool_addition` block: a reference, or (since the beta of 2026-09-15) a definition.
#[derive(Deserialize)]
struct Addition<'a> {
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    definition: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    server_name: Option<Cow<'a, str>>,
}

/// What a `tool_addition` adds. What can't be read is declared as a provider's tool of that name, which only an allow
/// list that says so lets pass.
pub(super) fn addition(raw: Option<&RawValue>) -> Result<Tools, Malformed> {
    let mut tools = Tools::default();
    let unreadable = || Declared::Tool(DeclaredTool::provider("tool_addition"));
    let Some(added) = lenient::<Addition<'_>>(raw) else {
        tools.add(unreadable())?;
        return Ok(tools);
    };
    let by_reference = |name: Cow<'_, str>| Declared::Tool(DeclaredTool::client(name));
    let declared = match (added.r#type.as_deref(), added.definition) {
        (Some("tool_reference"), None) => added.name.map(by_reference),
        (Some("mcp_tool_reference" | "mcp_toolset_reference"), None) => added
            .server_name
            .map(|server| Declared::Toolset(server.into_owned())),
        (_, Some(definition)) => lenient::<Tool<'_>>(Some(definition)).and_then(Tool::declared),
        _ => None,
    };
    tools.add(declared.unwrap_or_else(unreadable))?;
    Ok(tools)
}

/// One entry of a compaction block's `tool_changes`.
#[derive(Deserialize)]
struct Change<'a> {
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tool: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Part<'de> for Change<'a> {
    type Sum = Tools;
    fn add(self, tools: &mut Tools, _depth: u8) -> Result<(), Malformed> {
        if self.r#type.as_deref() == Some("tool_removal") {
            Ok(())
        } else {
            tools.merge(addition(self.tool)?)
        }
    }
}

/// What the `tool_changes` of a compaction block add.
pub(super) fn changes(raw: Option<&RawValue>) -> Result<Tools, Malformed> {
    raw.map_or_else(
        || Ok(Tools::default()),
        |raw| parts_of::<Change<'_>>(raw.get(), 0),
    )
}
