//! Finding variables of an OPC UA server: by node id, by browse path, or all of them.

use std::collections::{HashSet, VecDeque};

use opcua::client::Session;
use opcua::types::{
    AttributeId, BrowseDescription, BrowseDirection, BrowseResult, NodeClass, NodeId, ReadValueId,
    ReferenceDescription, ReferenceTypeId, StatusCode, TimestampsToReturn,
};
use orrery_protocol::ChannelType;

use super::values::convert;

/// A variable that a server offers.
#[derive(Debug, Clone)]
pub struct FoundVariable {
    /// The browse path from the Objects folder.
    pub path: String,
    /// The node id as text: what `source` takes.
    pub node: String,
    /// Its value now, short.
    pub value: String,
    /// Why it can be no channel; a number, a truth value, or nothing yet can.
    pub unfit: Option<String>,
}

/// Characters of a value that are shown.
const MOST_SHOWN: usize = 80;
const OBJECTS: u32 = 85;
const SERVER: u32 = 2253;

/// The node that `source` names: `ns=2;s=Temp`, or a browse path such as `Chamber/Air/Temperature`, whose
/// parts may carry their namespace (`2:Chamber`).
///
/// # Errors
/// Names the part of the path that does not exist and what exists beside it.
pub async fn resolve(session: &Session, source: &str) -> Result<NodeId, String> {
    if is_node_id(source) {
        return parse(source);
    }
    let mut at = NodeId::new(0, OBJECTS);
    let mut walked = String::new();
    let parts = source.split('/').filter(|part| !part.is_empty());
    for part in parts.skip_while(|part| matches!(*part, "Root" | "Objects" | "0:Root" | "0:Objects")) {
        let children = children(session, &at).await?;
        let found = children.iter().find(|child| is_called(child, part));
        let Some(found) = found else {
            let names: Vec<_> = children.iter().take(12).map(name).collect();
            let place = if walked.is_empty() {
                "the Objects folder"
            } else {
                &walked
            };
            return Err(format!("{place} has no `{part}`; it has {}", names.join(", ")));
        };
        walked = format!("{walked}/{part}");
        at = found.node_id.node_id.clone();
    }
    Ok(at)
}

/// Whether a node id is well formed; a path may be anything.
///
/// # Errors
/// Says what a node id looks like.
pub fn check(source: &str) -> Result<(), String> {
    if is_node_id(source) {
        parse(source)?;
    }
    Ok(())
}

fn parse(source: &str) -> Result<NodeId, String> {
    let wrong = |_| "is not a node id; write ns=2;s=Name or ns=2;i=1234".to_owned();
    source.parse().map_err(wrong)
}

/// Whether the text is a node id rather than a path.
pub fn is_node_id(source: &str) -> bool {
    let body = match source.strip_prefix("ns=") {
        Some(rest) => rest.split_once(';').map_or("", |(_, body)| body),
        None => source,
    };
    ["i=", "s=", "g=", "b="].iter().any(|kind| body.starts_with(kind))
}

/// Every variable below the Objects folder, without the server's own, up to `limit`.
///
/// # Errors
/// Says what the server answered.
pub async fn browse_variables(session: &Session, limit: usize) -> Result<Vec<FoundVariable>, String> {
    const DEEPEST: usize = 10;
    let mut seen = HashSet::from([NodeId::new(0, OBJECTS), NodeId::new(0, SERVER)]);
    let mut queue = VecDeque::from([(NodeId::new(0, OBJECTS), String::new(), 0)]);
    let mut found = Vec::new();
    while let Some((node, path, depth)) = queue.pop_front() {
        for child in children(session, &node).await? {
            let id = child.node_id.node_id.clone();
            if child.node_id.server_index != 0 || !seen.insert(id.clone()) {
                continue;
            }
            let path = format!("{path}/{}", name(&child));
            // Namespace 0 is the standard's own furniture, not the instrument's.
            if child.node_class == NodeClass::Variable && id.namespace != 0 {
                found.push((path.clone(), id.clone()));
                if found.len() >= limit {
                    return describe(session, found).await;
                }
            }
            if depth < DEEPEST {
                queue.push_back((id, path, depth + 1));
            }
        }
    }
    describe(session, found).await
}

/// The variables that `sources` name, as [`resolve`] reads them, with their values now.
///
/// # Errors
/// Names the source that does not exist or has no number, and what it has instead.
pub async fn numbers(session: &Session, sources: &[String]) -> Result<Vec<FoundVariable>, String> {
    let mut named = Vec::with_capacity(sources.len());
    for source in sources {
        let node = resolve(session, source)
            .await
            .map_err(|problem| format!("`{source}`: {problem}"))?;
        named.push((source.clone(), node));
    }
    let found = describe(session, named).await?;
    match found.iter().find_map(|variable| variable.unfit.clone()) {
        Some(problem) => Err(problem),
        None => Ok(found),
    }
}

async fn describe(session: &Session, found: Vec<(String, NodeId)>) -> Result<Vec<FoundVariable>, String> {
    let mut variables = Vec::with_capacity(found.len());
    for chunk in found.chunks(100) {
        let reads: Vec<_> = chunk
            .iter()
            .map(|(_, node)| ReadValueId::new(node.clone(), AttributeId::Value))
            .collect();
        let values = session
            .read(&reads, TimestampsToReturn::Neither, 0.0)
            .await
            .map_err(|error| format!("the server does not let us read values: {error}"))?;
        for ((path, node), value) in chunk.iter().zip(values) {
            let status = value.status.filter(StatusCode::is_bad);
            let text = match (&value.value, status) {
                (_, Some(status)) => format!("no value: {status}"),
                (None, None) => "no value".to_owned(),
                (Some(value), None) => value.to_string(),
            };
            let path = path.trim_start_matches('/').to_owned();
            let shown: String = text.chars().take(MOST_SHOWN).collect();
            let unfit = match (value.value, status) {
                (_, Some(status)) => missing(&path, status),
                (Some(value), None) if convert(&value, ChannelType::F64).is_none() => {
                    Some(format!("`{path}` is not a number ({shown})"))
                }
                _ => None,
            };
            variables.push(FoundVariable {
                path,
                node: node.to_string(),
                value: shown,
                unfit,
            });
        }
    }
    Ok(variables)
}

/// Why there will never be a value. Whatever else is bad may become good: a sensor warms up, a controller connects.
fn missing(path: &str, status: StatusCode) -> Option<String> {
    if status == StatusCode::BadNodeIdUnknown || status == StatusCode::BadNodeIdInvalid {
        Some(format!("the server has no node `{path}`"))
    } else if status == StatusCode::BadAttributeIdInvalid {
        Some(format!("`{path}` is not a variable"))
    } else {
        None
    }
}

async fn children(session: &Session, node: &NodeId) -> Result<Vec<ReferenceDescription>, String> {
    let wrong = |error: String| format!("the server does not let us browse {node}: {error}");
    let description = BrowseDescription {
        node_id: node.clone(),
        browse_direction: BrowseDirection::Forward,
        reference_type_id: ReferenceTypeId::HierarchicalReferences.into(),
        include_subtypes: true,
        node_class_mask: 0,
        result_mask: 0x3f,
    };
    let mut results = session
        .browse(&[description], 1_000, None)
        .await
        .map_err(|error| wrong(error.to_string()))?;
    let mut references = Vec::new();
    while let Some(BrowseResult {
        status_code,
        continuation_point,
        references: page,
    }) = results.pop()
    {
        if status_code.is_bad() {
            return Err(wrong(status_code.to_string()));
        }
        references.extend(page.unwrap_or_default());
        if !continuation_point.is_null_or_empty() {
            results = session
                .browse_next(false, &[continuation_point])
                .await
                .map_err(|error| wrong(error.to_string()))?;
        }
    }
    Ok(references)
}

fn is_called(reference: &ReferenceDescription, part: &str) -> bool {
    let browse_name = &reference.browse_name;
    match part.split_once(':') {
        Some((namespace, name)) if namespace.parse::<u16>().is_ok() => {
            namespace.parse() == Ok(browse_name.namespace_index) && browse_name.name.as_ref() == name
        }
        _ => browse_name.name.as_ref() == part || reference.display_name.text.as_ref() == part,
    }
}

fn name(reference: &ReferenceDescription) -> String {
    reference.browse_name.name.as_ref().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{check, is_node_id};

    #[test]
    fn node_ids_are_told_from_paths() {
        for id in [
            "ns=2;s=Temp",
            "i=2258",
            "ns=3;g=09087e75-8e5e-499b-954f-f2a9603db28a",
            "s=a/b",
        ] {
            assert!(is_node_id(id), "{id}");
        }
        assert!(check("ns=2;s=Temp").is_ok() && check("Chamber/Temperature").is_ok());
        assert!(check("ns=x;s=Air").unwrap_err().contains("is not a node id"));
        for path in ["Chamber/Temperature", "/Objects/2:Chamber", "", "ns=2"] {
            assert!(!is_node_id(path), "{path}");
        }
    }
}
