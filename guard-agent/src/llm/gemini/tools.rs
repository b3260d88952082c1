//! Where a Gemini request can declare tools, and by which names.
//!
//! A function is known by its name, Google's own tools by their field in camel case (`googleSearch`), and an MCP server
//! by its host (`mcp:HOST`). Both spellings of a field are read: the API takes either, and SDKs mix them.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::llm::json_edit::{Container, Editor, Item};
use crate::llm::mentions::{Where, mentions};
use crate::llm::request::{declare, lenient};
use crate::llm::{DeclaredTool, Malformed};

/// Fields of a tool that hold functions of the client's own.
const FUNCTIONS: &str = "functionDeclarations";
/// The field that lists MCP servers.
const MCP: &str = "mcpServers";
/// Tools that the client runs itself.
const CLIENT_RUN: [&str; 1] = ["computerUse"];

/// A field's name in camel case.
pub(in crate::llm) fn camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut up = false;
    for c in name.chars() {
        if c == '_' {
            up = true;
        } else if std::mem::take(&mut up) {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
    }
    out
}

/// The member with this name in either spelling. Both at once could be read in two ways.
pub(in crate::llm) fn either<'c, 'a>(
    object: &'c Container<'a>,
    name: &str,
) -> Result<Option<&'c Item<'a>>, Malformed> {
    let mut found = object.items.iter().filter(|item| camel(&item.name) == name);
    let first = found.next();
    if found.next().is_some() {
        return Err(Malformed(format!("`{name}` stands twice, in two spellings")));
    }
    Ok(first.filter(|item| item.value != "null"))
}

/// Refuses an object with a field in both spellings; one look, however many fields there are.
fn no_name_twice(object: &Container<'_>) -> Result<(), Malformed> {
    let mut names = HashSet::with_capacity(object.items.len());
    for item in &object.items {
        let name = camel(&item.name);
        if names.contains(&name) {
            return Err(Malformed(format!("`{name}` stands twice, in two spellings")));
        }
        names.insert(name);
    }
    Ok(())
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

/// An MCP server, in either spelling.
#[derive(Deserialize)]
struct Server<'a> {
    #[serde(
        borrow,
        alias = "streamable_http_transport",
        rename = "streamableHttpTransport"
    )]
    transport: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Transport {
    url: String,
}

/// Name of one MCP server.
fn server_name(element: &str) -> String {
    let transport = serde_json::from_str::<Server<'_>>(element)
        .ok()
        .and_then(|server| lenient::<Transport>(server.transport));
    let url = transport.and_then(|transport| transport.url.parse::<http::Uri>().ok());
    match url.as_ref().and_then(http::Uri::host) {
        Some(host) => format!("mcp:{}", host.to_ascii_lowercase()),
        None => "mcp:unreadable".to_owned(),
    }
}

/// Name of one element of a list inside a tool.
fn element_name(field: &str, element: &str) -> Result<String, Malformed> {
    if field == MCP {
        return Ok(server_name(element));
    }
    serde_json::from_str::<Function<'_>>(element)
        .map(|function| function.name.into_owned())
        .map_err(|_nameless| Malformed("a tool has no name".to_owned()))
}

/// Everything that `tools` declares.
pub(in crate::llm) fn declared(
    editor: &Editor<'_>,
    root: &Container<'_>,
) -> Result<Vec<DeclaredTool>, Malformed> {
    let mut all = Vec::new();
    let Some(tools) = either(root, "tools")? else {
        return Ok(all);
    };
    for tool in elements(editor, tools.value)? {
        let tool = editor.object(tool)?;
        no_name_twice(&tool)?;
        for member in tool.items.iter().filter(|member| member.value != "null") {
            let field = camel(&member.name);
            if field == FUNCTIONS || field == MCP {
                let list = editor.array(member.value)?;
                for element in &list.items {
                    let name = element_name(&field, element.value)?;
                    let server_side = field == MCP;
                    declare(&mut all, DeclaredTool::run_by(server_side, name))?;
                }
            } else {
                let server_side = !CLIENT_RUN.contains(&field.as_str());
                let name = field;
                declare(&mut all, DeclaredTool::run_by(server_side, name))?;
            }
        }
    }
    Ok(all)
}

/// The elements of a list, or the one value that stands in its place (the API's JSON reader takes both).
fn elements<'a>(editor: &Editor<'a>, value: &'a str) -> Result<Vec<&'a str>, Malformed> {
    if value.starts_with('{') {
        return Ok(vec![value]);
    }
    Ok(editor.array(value)?.items.iter().map(|item| item.value).collect())
}

/// Removes the tools with these names; gives the top-level members to remove, as they are written.
pub(super) fn strip<'a>(
    editor: &mut Editor<'a>,
    root: &Container<'a>,
    names: &[String],
) -> Result<Vec<String>, Malformed> {
    let listed = |name: &str| names.iter().any(|listed| listed == name);
    let mut gone = Vec::new();
    if let Some(tools) = either(root, "tools")? {
        let list = editor.array(tools.value)?;
        let mut marks = Vec::with_capacity(list.items.len());
        for tool in &list.items {
            marks.push(strip_tool(editor, tool.value, &listed)?);
        }
        if !marks.is_empty() && marks.iter().all(|gone| *gone) {
            gone.push(tools.name.clone().into_owned());
        } else {
            let mut marks = marks.into_iter();
            editor.reshape(&list, |_| marks.next().unwrap_or(false), &[]);
        }
    }
    if let Some(config) = either(root, "toolConfig")?
        && (!gone.is_empty() || mentions(config.value, Where::Anywhere, &listed))
    {
        gone.push(config.name.clone().into_owned());
    }
    Ok(gone)
}

/// Removes what is listed from one tool; whether nothing of it is left. Then nothing was changed inside it.
fn strip_tool<'a>(
    editor: &mut Editor<'a>,
    tool: &'a str,
    listed: &impl Fn(&str) -> bool,
) -> Result<bool, Malformed> {
    let object = editor.object(tool)?;
    let mut plans = Vec::with_capacity(object.items.len());
    for member in &object.items {
        let field = camel(&member.name);
        if (field != FUNCTIONS && field != MCP) || member.value == "null" {
            plans.push((listed(&field), None));
            continue;
        }
        let list = editor.array(member.value)?;
        let mut marks = Vec::with_capacity(list.items.len());
        for element in &list.items {
            marks.push(listed(&element_name(&field, element.value)?));
        }
        let all = !marks.is_empty() && marks.iter().all(|gone| *gone);
        plans.push((all, (!all).then_some((list, marks))));
    }
    if plans.iter().all(|(gone, _)| *gone) {
        return Ok(true);
    }
    for (list, marks) in plans.iter().filter_map(|(_, inner)| inner.as_ref()) {
        let mut marks = marks.iter();
        editor.reshape(list, |_| marks.next().copied().unwrap_or(false), &[]);
    }
    let mut marks = plans.iter().map(|(gone, _)| *gone);
    editor.reshape(&object, |_| marks.next().unwrap_or(false), &[]);
    Ok(false)
}
