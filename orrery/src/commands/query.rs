//! `orrery query`.

use std::io::Read;

use serde_json::json;

use super::local;
use crate::cli::Query;
use crate::client::Source;
use crate::error::Failure;

/// Answers a statement from the running instance, or from the stopped folder.
pub async fn query(arguments: &Query) -> Result<(), Failure> {
    let mut sql = arguments.sql.clone();
    if sql == "-" {
        sql.clear();
        std::io::stdin().read_to_string(&mut sql).map_err(Failure::from_error)?;
    }
    match Source::find(&arguments.target)? {
        Source::Running(client) => {
            client
                .print_post("/query", &json!({"sql": sql, "format": arguments.output.as_str()}))
                .await
        }
        Source::Stopped(folder) => local::query(&folder, &sql, arguments.output).await,
    }
}
