//! SQL over the store: `aligned."device/name"` per stream and `raw.envelopes`, read-only, with bounded memory.
//!
//! A query sees one commit: it plans on the view it started with. A table is the union of its Parquet segments, pruned
//! by time, and the tail.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::DateTime;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, SchemaProvider, Session};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::object_store::ObjectStoreUrl;

use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::{DataFusionError, Result as SqlResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::{SQLOptions, SessionConfig, SessionContext};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use datafusion::prelude::col;
use datafusion::sql::parser::Statement as DFStatement;
use datafusion::sql::sqlparser::ast::Statement;
use futures_util::StreamExt;
use object_store::ObjectMeta;
use object_store::path::Path as ObjectPath;
use orrery_protocol::{TaiNanos, UtcNanos};

use crate::store::{RAW_TABLE, Store, Table, View};
use crate::{Error, columns};

const SEGMENTS_URL: &str = "orrery://segments/";

/// A query's batches as they come.
pub struct QueryStream {
    stream: SendableRecordBatchStream,
}

impl fmt::Debug for QueryStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryStream").field("schema", &self.schema()).finish()
    }
}

impl QueryStream {
    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }

    /// The next batch; none at the end.
    ///
    /// # Errors
    /// [`Error::Sql`] says what failed, naming a broken segment where that is the cause.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, Error> {
        self.stream.next().await.transpose().map_err(sql_error)
    }
}

impl Store {
    /// Starts a query.
    ///
    /// # Errors
    /// [`Error::Sql`]: what does not parse, plan or exist, or is no reading.
    pub async fn query(&self, sql: &str) -> Result<QueryStream, Error> {
        let context = self.session().await.map_err(sql_error)?;
        let options = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        let state = context.state();
        let dialect = state.config_options().sql_parser.dialect;
        let statement = state.sql_to_statement(sql, &dialect).map_err(sql_error)?;
        // What writes is refused before it is planned, so that the answer is not about its columns.
        if !is_question(&statement) {
            return Err(read_only(&statement.to_string()));
        }
        let plan = state.statement_to_plan(statement).await.map_err(sql_error)?;
        options
            .verify_plan(&plan)
            .map_err(|error| read_only(&error.strip_backtrace()))?;
        let frame = context.execute_logical_plan(plan).await.map_err(sql_error)?;
        let stream = frame.execute_stream().await.map_err(sql_error)?;
        Ok(QueryStream { stream })
    }

    async fn session(&self) -> SqlResult<SessionContext> {
        let view = self.view();
        let mut config = SessionConfig::new()
            .with_information_schema(true)
            .with_default_catalog_and_schema("orrery", "aligned")
            .with_create_default_catalog_and_schema(false);
        config.options_mut().execution.parquet.pushdown_filters = true;
        config.options_mut().execution.time_zone = Some("UTC".to_owned());
        // Our strings are Utf8 everywhere; views would only be converted back.
        config.options_mut().execution.parquet.schema_force_view_types = false;
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_limit(self.query_memory_bytes(), 1.0)
            .build_arc()?;
        if let Some(files) = self.files() {
            let url = ObjectStoreUrl::parse(SEGMENTS_URL)?;
            runtime.register_object_store(url.as_ref(), files.objects.clone());
        }
        let context = SessionContext::new_with_config_rt(config, runtime);
        let catalog = MemoryCatalogProvider::new();
        let aligned = AlignedSchema {
            store: self.clone(),
            view: Arc::clone(&view),
        };
        catalog.register_schema("aligned", Arc::new(aligned))?;
        let raw = RawSchema {
            table: raw_envelopes(&context, self, &view)?,
        };
        catalog.register_schema("raw", Arc::new(raw))?;
        context.register_catalog("orrery", Arc::new(catalog));
        Ok(context)
    }
}

fn is_question(statement: &DFStatement) -> bool {
    match statement {
        DFStatement::Statement(statement) => matches!(
            statement.as_ref(),
            Statement::Query(_)
                | Statement::Explain { .. }
                | Statement::ExplainTable { .. }
                | Statement::ShowTables { .. }
                | Statement::ShowColumns { .. }
                | Statement::ShowFunctions { .. }
                | Statement::ShowVariable { .. }
        ),
        DFStatement::Explain(_) => true,
        DFStatement::CreateExternalTable(_) | DFStatement::CopyTo(_) | DFStatement::Reset(_) => false,
    }
}

fn read_only(what: &str) -> Error {
    Error::Sql(format!("the store is read-only, only queries are answered: {what}"))
}

/// The archive under the names of the published table.
fn raw_envelopes(context: &SessionContext, store: &Store, view: &View) -> SqlResult<Arc<dyn TableProvider>> {
    let table = view.tables.get(RAW_TABLE).cloned();
    let table = table.unwrap_or_else(|| Arc::new(Table::new(RAW_TABLE, &crate::archive::raw_fields())));
    let provider = StreamTable {
        store: store.clone(),
        table,
    };
    let columns = vec![
        col("device_id"),
        col("boot_id"),
        col("sequence"),
        col("timestamp"),
        col("payload_type"),
        col("time").alias("received"),
        col("digest"),
        col("verdict"),
        col("revision"),
        col("bytes"),
    ];
    Ok(context.read_table(Arc::new(provider))?.select(columns)?.into_view())
}

/// What went wrong, without the engine's inner history.
fn sql_error(error: DataFusionError) -> Error {
    let root = error.find_root();
    if let DataFusionError::External(inner) = root {
        return Error::Sql(inner.to_string());
    }
    Error::Sql(root.strip_backtrace())
}

/// The streams' tables.
#[derive(Debug)]
struct AlignedSchema {
    store: Store,
    view: Arc<View>,
}

#[async_trait]
impl SchemaProvider for AlignedSchema {
    fn table_names(&self) -> Vec<String> {
        self.view.streams().map(|(stream, _)| stream.to_string()).collect()
    }

    async fn table(&self, name: &str) -> SqlResult<Option<Arc<dyn TableProvider>>> {
        match self.view.stream(name) {
            Ok(table) => Ok(Some(Arc::new(StreamTable {
                store: self.store.clone(),
                table: Arc::clone(table),
            }))),
            Err(_) => Err(DataFusionError::External(unknown_table(&self.view, name).into())),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.view.stream(name).is_ok()
    }
}

fn unknown_table(view: &View, name: &str) -> String {
    let hint = match view.nearest(name) {
        Some(near) => {
            format!("did you mean aligned.\"{near}\"? A stream's name needs double quotes")
        }
        None => "`SHOW TABLES` lists those that are stored".to_owned(),
    };
    format!("there is no table `{name}`: {hint}")
}

/// The archive's table.
#[derive(Debug)]
struct RawSchema {
    table: Arc<dyn TableProvider>,
}

#[async_trait]
impl SchemaProvider for RawSchema {
    fn table_names(&self) -> Vec<String> {
        vec!["envelopes".to_owned()]
    }

    async fn table(&self, name: &str) -> SqlResult<Option<Arc<dyn TableProvider>>> {
        if name == "envelopes" {
            return Ok(Some(Arc::clone(&self.table)));
        }
        let text = format!("there is no table `raw.{name}`: did you mean raw.envelopes?");
        Err(DataFusionError::External(text.into()))
    }

    fn table_exist(&self, name: &str) -> bool {
        name == "envelopes"
    }
}

/// One stored table as DataFusion sees it.
#[derive(Debug)]
struct StreamTable {
    store: Store,
    table: Arc<Table>,
}

#[async_trait]
impl TableProvider for StreamTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.table.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> SqlResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> SqlResult<Arc<dyn ExecutionPlan>> {
        let (from, to) = time_bounds(filters);
        let schema = self.schema();
        let external = |error: Error| DataFusionError::External(Box::new(error));

        let mut tail = Vec::new();
        for part in self.table.parts_within(from, to) {
            tail.push(columns::conform(&part.batch, &schema)?);
        }
        let memory = MemorySourceConfig::try_new_exec(&[tail], Arc::clone(&schema), projection.cloned())?;
        let mut plans: Vec<Arc<dyn ExecutionPlan>> = vec![memory];

        let mut groups = Vec::new();
        for segment in self.table.segments_within(from, to) {
            self.store.check_segment(segment).await.map_err(external)?;
            let meta = ObjectMeta {
                location: ObjectPath::from(segment.path.as_str()),
                last_modified: DateTime::UNIX_EPOCH,
                size: segment.size,
                e_tag: None,
                version: None,
            };
            groups.push(FileGroup::new(vec![meta.into()]));
        }
        if !groups.is_empty() {
            let mut source = ParquetSource::new(Arc::clone(&schema)).with_pushdown_filters(true);
            if let Some(filter) = conjunction(filters.to_vec()) {
                let df_schema = DFSchema::try_from(schema.as_ref().clone())?;
                source = source.with_predicate(state.create_physical_expr(filter, &df_schema)?);
            }
            let limit = if filters.is_empty() { limit } else { None };
            let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(SEGMENTS_URL)?, Arc::new(source))
                .with_file_groups(groups)
                .with_limit(limit)
                .with_projection_indices(projection.cloned())?
                .build();
            plans.push(DataSourceExec::from_data_source(config));
        }
        if plans.len() == 1 {
            Ok(plans.remove(0))
        } else {
            UnionExec::try_new(plans)
        }
    }
}

/// The time range outside of which no row can pass the filters, in TAI nanoseconds, half open.
fn time_bounds(filters: &[Expr]) -> (i64, i64) {
    let mut bounds = (i64::MIN, i64::MAX);
    for filter in filters {
        narrow(filter, &mut bounds);
    }
    bounds
}

fn narrow(filter: &Expr, bounds: &mut (i64, i64)) {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else {
        return;
    };
    if *op == Operator::And {
        narrow(left, bounds);
        narrow(right, bounds);
        return;
    }
    let (column, literal, op) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(value, _)) => (column, value, *op),
        (Expr::Literal(value, _), Expr::Column(column)) => match op.swap() {
            Some(op) => (column, value, op),
            None => return,
        },
        _ => return,
    };
    let tai = match (column.name.as_str(), literal) {
        ("time_tai", ScalarValue::Int64(Some(tai))) => *tai,
        ("time", ScalarValue::TimestampNanosecond(Some(utc), _)) => TaiNanos::from_utc(UtcNanos(*utc)).0,
        _ => return,
    };
    // UTC repeats a second at a leap: one second of slack keeps pruning honest.
    let slack = if column.name == "time" { 1_000_000_000 } else { 0 };
    let (low, high) = (tai.saturating_sub(slack), tai.saturating_add(slack).saturating_add(1));
    match op {
        Operator::Eq => *bounds = (bounds.0.max(low), bounds.1.min(high)),
        Operator::Gt | Operator::GtEq => bounds.0 = bounds.0.max(low),
        Operator::Lt | Operator::LtEq => bounds.1 = bounds.1.min(high),
        _ => {}
    }
}
