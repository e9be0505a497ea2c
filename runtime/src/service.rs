//! The runtime as a service: loads graphs, runs each in its own task, issues commands.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use orrery_bus::fs::replace;
use orrery_bus::{From, Record as BusRecord, SharedBus};
use orrery_protocol::{AlignedBlock, Clock, Record, RecordKind, SealKey, Subject, topics};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, EngineKind};
use crate::control::{Control, ControlParts};
use crate::engine::Engine;
use crate::error::{Error, GraphError};
use crate::graph::GraphFile;
use crate::handle::GraphHandle;
use crate::model::compile_file;
use crate::runner::Runner;

/// What the runtime stands on.
pub struct Deps {
    /// Carries the log, the traces and the commands.
    pub bus: SharedBus,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Signs commands.
    pub control_key: SealKey,
}

/// Opens the runtime and runs it until shutdown.
///
/// # Errors
/// [`Error`] when the runtime cannot start, or its bus or folder fail for good.
pub async fn run(config: Config, deps: Deps, shutdown: CancellationToken) -> Result<(), Error> {
    Runtime::open(config, deps)?.run(shutdown).await
}

/// A graph that could not be loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Unloadable {
    /// The file's name without its ending.
    pub id: String,
    /// Why.
    pub reason: String,
}

/// The loaded graphs and the control over their devices.
pub struct Runtime {
    config: Config,
    bus: SharedBus,
    clock: Arc<dyn Clock>,
    graphs: Vec<Arc<GraphHandle>>,
    unloadable: Vec<Unloadable>,
    control: Arc<Control>,
}

impl Runtime {
    /// Loads the configured graphs. A graph that does not load is listed with its reason; the others run.
    ///
    /// # Errors
    /// [`Error`] when the engine does not start or the folder is not writable.
    pub fn open(config: Config, deps: Deps) -> Result<Arc<Self>, Error> {
        let engine = Engine::new(config.engine)?;
        let epoch = next_epoch(&config.data.join("issuer-epoch"))?;
        let (mut graphs, mut unloadable) = (Vec::new(), Vec::new());
        let mut streams = BTreeMap::new();
        for path in &config.graphs {
            let id = path.file_stem().map_or_else(
                || path.display().to_string(),
                |stem| stem.to_string_lossy().into_owned(),
            );
            let loaded =
                load(path, &engine).and_then(|graph| match streams.insert(graph.id().to_owned(), path.clone()) {
                    None => Ok(graph),
                    Some(other) => Err(GraphError::Value {
                        file: path.display().to_string(),
                        key: "id".to_owned(),
                        problem: format!("`{}` is taken by {}; choose another", graph.id(), other.display()),
                    }),
                });
            match loaded {
                Ok(graph) => graphs.push(Arc::new(graph)),
                Err(error) => {
                    tracing::error!(graph = id, %error, "graph not loaded; the others run");
                    unloadable.push(Unloadable {
                        id,
                        reason: error.to_string(),
                    });
                }
            }
        }
        let control = Arc::new(Control::new(ControlParts {
            graphs: graphs.clone(),
            epoch,
            issuer: config.issuer.clone(),
            apply_within: Duration::from_millis(config.apply_within_ms),
            key: deps.control_key,
            bus: Arc::clone(&deps.bus),
            clock: Arc::clone(&deps.clock),
        }));
        Ok(Arc::new(Self {
            config,
            bus: deps.bus,
            clock: deps.clock,
            graphs,
            unloadable,
            control,
        }))
    }

    /// Runs the graphs and watches for acknowledgements, until shutdown.
    ///
    /// # Errors
    /// [`Error`] when control can no longer hear its devices. A graph that fails says so in its state instead.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) -> Result<(), Error> {
        self.record_models().await?;
        let mut tasks = JoinSet::new();
        // Graphs stop too when control can no longer hear: running on alone would look well and not be.
        let stop = shutdown.child_token();
        for graph in &self.graphs {
            let runner = Runner {
                graph: Arc::clone(graph),
                bus: Arc::clone(&self.bus),
                clock: Arc::clone(&self.clock),
                snapshot_path: self.config.data.join(format!("{}.snapshot", graph.id())),
                snapshot_every: Duration::from_millis(self.config.snapshot_every_ms),
            };
            tasks.spawn(runner.run(stop.clone()));
        }
        let heard = self.listen(&shutdown).await;
        stop.cancel();
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a graph's task ended early; a restart goes on from its snapshot");
            }
        }
        heard
    }

    /// The routes, relative to `/api/v1`.
    pub fn routes(self: &Arc<Self>) -> Router {
        crate::routes::routes(Arc::clone(self))
    }

    /// The loaded graphs.
    pub fn graphs(&self) -> &[Arc<GraphHandle>] {
        &self.graphs
    }

    /// The graphs that did not load.
    pub fn unloadable(&self) -> &[Unloadable] {
        &self.unloadable
    }

    /// Control over the devices.
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    pub(crate) fn engine_kind(&self) -> EngineKind {
        self.config.engine
    }

    /// The time that graphs and control go by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Reads measurements and acknowledgements as they come.
    async fn listen(&self, shutdown: &CancellationToken) -> Result<(), Error> {
        let mut live = self.bus.subscribe(topics::ALIGNED, From::Latest).await?;
        loop {
            let batch = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                batch = live.next() => batch?,
            };
            for message in batch {
                let watched = std::str::from_utf8(&message.key).is_ok_and(|stream| self.control.watches(stream));
                if !watched {
                    continue;
                }
                if let Ok(block) = AlignedBlock::decode(&message.value) {
                    self.control.observe(&block);
                }
            }
        }
    }

    async fn record_models(&self) -> Result<(), Error> {
        let at = self.clock.wall();
        let record = |graph: &Arc<GraphHandle>| {
            let subjects = vec![
                Subject {
                    name: format!("model/{}", graph.model.meta().model),
                    sha256: graph.model_digest(),
                },
                Subject {
                    name: format!("graph/{}", graph.id()),
                    sha256: graph.file.digest,
                },
            ];
            let predicate = serde_json::json!({ "graph": graph.id(), "compiler": graph.model.meta().compiler });
            let record = Record {
                kind: RecordKind::Model,
                subject: subjects,
                predicate,
                at,
            };
            BusRecord::new(RecordKind::Model.as_str(), record.encode())
        };
        let records: Vec<BusRecord> = self.graphs.iter().map(record).collect();
        if !records.is_empty() {
            self.bus.publish(topics::PROVENANCE, records).await?;
        }
        Ok(())
    }
}

/// Reads a graph file, compiles its model and binds the two.
///
/// # Errors
/// [`GraphError`] names the file and what does not fit.
pub fn load(path: &Path, engine: &Engine) -> Result<GraphHandle, GraphError> {
    let file = GraphFile::read(path)?;
    let compiled = compile_file(&file.model_path)?;
    let model = engine
        .load(&compiled)
        .map_err(|error| GraphError::Model(vec![format!("{}: {error}", file.model_path.display())]))?;
    GraphHandle::new(file, model)
}

/// Rises with each start, durably: devices refuse commands of an older epoch.
fn next_epoch(path: &PathBuf) -> Result<u64, Error> {
    let failed = |source| Error::File {
        path: path.clone(),
        source,
    };
    let last = match fs::read_to_string(path) {
        Ok(text) => text.trim().parse::<u64>().map_err(|_| {
            failed(std::io::Error::other(
                "it does not hold a number: write one above every `issuer_epoch` that the devices' acks name",
            ))
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(failed(error)),
    };
    replace(path, format!("{}\n", last + 1).as_bytes(), 0o600).map_err(failed)?;
    Ok(last + 1)
}
