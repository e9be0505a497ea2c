//! A graph as the rest of the process sees it: what it is, how it does, and looks ahead of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orrery_protocol::{Clock, Digest, MonoNanos, TaiNanos};
use serde::Serialize;
use tokio::sync::Notify;

use crate::engine::{Model, ModelNode};
use crate::error::{GraphError, NodeError};
use crate::forecast::{Forecast, look_ahead};
use crate::graph::GraphFile;
use crate::layout::Layout;
use crate::progress::{Event, Vantage};

/// A look of the same question is answered from memory for this long.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// Answers kept.
const MOST_LOOKS: usize = 16;

/// A graph that was loaded.
pub struct GraphHandle {
    /// The graph and its file.
    pub file: GraphFile,
    /// The graph bound to its model.
    pub layout: Layout,
    /// The compiled model.
    pub model: Model,
    status: Mutex<Status>,
    /// What a look starts from; apart from `ahead`, so that a tick never waits for a look.
    vantage: Mutex<Option<Arc<Vantage>>>,
    ahead: Mutex<Ahead>,
    requests: Mutex<Vec<Event>>,
    /// Wakes the graph's task when something was requested.
    pub(crate) requested: Notify,
}

/// What a graph is doing.
#[derive(Debug, Clone, PartialEq)]
pub enum Activity {
    /// It has no run yet, and why.
    Waiting(String),
    /// Ticks run.
    Running,
    /// It stopped, and why.
    Failed(String),
}

/// How a graph does.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// What it is doing.
    pub activity: Activity,
    /// Counters.
    pub statistics: Statistics,
}

/// Counters of a graph since the process started.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Statistics {
    /// Ticks computed.
    pub ticks: u64,
    /// Ticks that did not wait for a stream.
    pub ticks_waived: u64,
    /// Runs started.
    pub runs: u64,
    /// Rows that came too late to be used.
    pub late_rows: u64,
    /// Blocks that could not be read.
    pub unreadable_blocks: u64,
    /// Time of the last tick's end.
    #[serde(skip)]
    pub last_tick: Option<TaiNanos>,
}

struct Ahead {
    node: ModelNode,
    looks: Vec<Look>,
}

struct Look {
    set: Vec<(usize, u64)>,
    horizon_s: u32,
    at: MonoNanos,
    answer: Result<Forecast, NodeError>,
}

/// Why there is no look ahead.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LookError {
    /// The graph has no run.
    #[error("graph `{0}` is not running, so it cannot look ahead; see its state in /api/v1/graphs")]
    NotRunning(String),
    /// A name that is no input.
    #[error("`{name}` is not an input of graph `{graph}`{hint}")]
    UnknownInput {
        /// The graph.
        graph: String,
        /// The name.
        name: String,
        /// The nearest one.
        hint: String,
    },
    /// The model fails on the way.
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl GraphHandle {
    /// Binds a graph to its model.
    ///
    /// # Errors
    /// [`GraphError`] when they do not fit.
    pub fn new(file: GraphFile, model: Model) -> Result<Self, GraphError> {
        let layout = Layout::bind(&file.graph, model.meta(), &file.digest, &model.digest())?;
        let node = model
            .node(file.graph.limits)
            .map_err(|error| GraphError::Model(vec![error.to_string()]))?;
        let status = Status {
            activity: Activity::Waiting("starting".to_owned()),
            statistics: Statistics::default(),
        };
        Ok(Self {
            file,
            layout,
            model,
            status: Mutex::new(status),
            vantage: Mutex::default(),
            ahead: Mutex::new(Ahead {
                node,
                looks: Vec::new(),
            }),
            requests: Mutex::new(Vec::new()),
            requested: Notify::new(),
        })
    }

    /// The graph's name.
    pub fn id(&self) -> &str {
        self.file.graph.id.as_str()
    }

    /// Digest of the module.
    pub fn model_digest(&self) -> Digest {
        Digest(self.model.digest())
    }

    /// How the graph does.
    pub fn status(&self) -> Status {
        lock(&self.status).clone()
    }

    pub(crate) fn set_activity(&self, activity: Activity) {
        let mut status = lock(&self.status);
        if status.activity != activity {
            match &activity {
                Activity::Failed(reason) => {
                    tracing::error!(graph = self.id(), %reason, "graph failed; other graphs go on")
                }
                Activity::Waiting(reason) => {
                    tracing::info!(graph = self.id(), %reason, "graph waits")
                }
                Activity::Running => tracing::info!(graph = self.id(), "graph runs"),
            }
            status.activity = activity;
        }
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Statistics)) {
        change(&mut lock(&self.status).statistics);
    }

    /// Asks something of the run; it applies at the next tick.
    pub fn request(&self, event: Event) {
        let mut requests = lock(&self.requests);
        // A queue of people's clicks: beyond this they are repeats.
        if requests.len() < 64 {
            requests.push(event);
        }
        self.requested.notify_one();
    }

    pub(crate) fn take_requests(&self) -> Vec<Event> {
        std::mem::take(&mut *lock(&self.requests))
    }

    pub(crate) fn set_vantage(&self, vantage: Option<Vantage>) {
        *lock(&self.vantage) = vantage.map(Arc::new);
    }

    /// Looks ahead with inputs held but those of `set` (name in the model, value in the bound channel's unit).
    ///
    /// # Errors
    /// [`LookError`] says why not.
    pub fn look(&self, set: &[(String, f64)], horizon_s: u32, clock: &dyn Clock) -> Result<Forecast, LookError> {
        let mut indexed = Vec::with_capacity(set.len());
        for (name, value) in set {
            let index = self
                .layout
                .inputs
                .iter()
                .position(|input| &input.name == name)
                .ok_or_else(|| LookError::UnknownInput {
                    graph: self.id().to_owned(),
                    name: name.clone(),
                    hint: crate::graph::nearest(name, self.layout.inputs.iter().map(|input| input.name.as_str())),
                })?;
            indexed.push((index, self.layout.inputs[index].conversion.apply(*value)));
        }
        indexed.sort_by_key(|(index, _)| *index);
        let key: Vec<(usize, u64)> = indexed.iter().map(|(index, value)| (*index, value.to_bits())).collect();
        let now = clock.monotonic();

        let ahead = &mut *lock(&self.ahead);
        let Some(vantage) = lock(&self.vantage).clone() else {
            return Err(LookError::NotRunning(self.id().to_owned()));
        };
        ahead.looks.retain(|look| now.since(look.at) < LOOK_AGAIN_AFTER);
        if let Some(look) = ahead
            .looks
            .iter()
            .find(|look| look.set == key && look.horizon_s == horizon_s)
        {
            return Ok(look.answer.clone()?);
        }
        let answer = look_ahead(&mut ahead.node, &self.layout, &vantage, &indexed, horizon_s);
        if answer.is_err() {
            // A failed instance is in no defined state.
            ahead.node = self.model.node(self.file.graph.limits)?;
        }
        if ahead.looks.len() >= MOST_LOOKS {
            ahead.looks.remove(0);
        }
        ahead.looks.push(Look {
            set: key,
            horizon_s,
            at: now,
            answer: answer.clone(),
        });
        Ok(answer?)
    }
}

/// A poisoned lock only says that a panic passed by; the data behind these locks is replaced whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
