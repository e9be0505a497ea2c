//! What `/metrics` tells of the services, and what `/readyz` asks of them.
//!
//! The gateway only collects; what each service counts gets its name, its help and its unit here. Labels are topics,
//! reasons and graphs, never a device or a channel: their number is bounded by the configuration.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use futures_util::FutureExt;
use orrery_edge_agent::Status as AgentStatus;
use orrery_edge_agent::status::DeviceStatus;
use orrery_gateway::MetricKind::{Counter, Gauge};
use orrery_gateway::{Check, Metric, MetricSource};
use orrery_protocol::Principal;
use orrery_runtime::Runtime;
use orrery_runtime::handle::Activity;
use serde_json::Value;
use tower::ServiceExt;

use crate::counted_bus::CountedBus;

/// The answer of a service to a scrape is small.
const MAX_ANSWER: usize = 1 << 20;

/// The embedded edge agent.
pub fn edge(status: Arc<AgentStatus>) -> MetricSource {
    Box::new(move || {
        let status = Arc::clone(&status);
        async move { edge_metrics(&status) }.boxed()
    })
}

/// Whether what the devices say can be kept.
pub fn edge_check(status: Arc<AgentStatus>) -> Check {
    Check {
        name: "spool".to_owned(),
        look: Box::new(move || status.spool_problem().map_or(Ok(()), Err)),
    }
}

fn edge_metrics(status: &AgentStatus) -> Vec<Metric> {
    let devices = status.devices();
    let sum = |count: fn(&DeviceStatus) -> u64| devices.iter().map(|(_, device)| count(device)).sum::<u64>() as f64;
    let connected = devices.iter().filter(|(_, device)| device.connected()).count();
    let counter = |name: &str, help: &str, value: f64| Metric::new(Counter, name, help, value);
    let gauge = |name: &str, help: &str, value: f64| Metric::new(Gauge, name, help, value);
    let commands = "Commands that devices of the embedded agent answered, by outcome.";
    let mut metrics = vec![
        gauge("edge_devices", "Devices of the embedded agent.", devices.len() as f64),
        gauge(
            "edge_devices_connected",
            "Of these, how many are connected.",
            connected as f64,
        ),
        counter(
            "edge_readings_total",
            "Readings taken from devices.",
            sum(|d| d.readings.get()),
        ),
        counter(
            "edge_bad_readings_total",
            "Lines, packets or values that were not understood.",
            sum(|d| d.bad.get()),
        ),
        counter(
            "edge_disconnects_total",
            "Connections to devices that were lost.",
            sum(|d| d.disconnects.get()),
        ),
        counter(
            "edge_envelopes_sealed_total",
            "Envelopes signed and spooled.",
            sum(|d| d.sealed.get()),
        ),
        counter(
            "edge_envelopes_dropped_total",
            "Envelopes lost in the spool, full or damaged; each range is declared.",
            sum(|d| d.dropped.get()),
        ),
        counter("edge_commands_total", commands, sum(|d| d.commands_applied.get())).with("outcome", "applied"),
        counter("edge_commands_total", commands, sum(|d| d.commands_refused.get())).with("outcome", "refused"),
        counter(
            "edge_envelopes_sent_total",
            "Envelopes that the bus acknowledged.",
            status.sent.get() as f64,
        ),
        counter(
            "edge_sent_bytes_total",
            "Bytes of these envelopes.",
            status.sent_bytes.get() as f64,
        ),
        counter(
            "edge_send_failures_total",
            "Attempts to send that failed and were repeated.",
            status.send_failures.get() as f64,
        ),
        counter(
            "edge_spool_failures_total",
            "Appends that the spool's disk refused.",
            status.spool_failures.get() as f64,
        ),
        counter(
            "edge_spool_quarantined_total",
            "Damaged spool records set aside.",
            status.spool_quarantined.get() as f64,
        ),
        gauge(
            "edge_spool_bytes",
            "Bytes of the spool on disk.",
            status.spool_bytes() as f64,
        ),
        gauge(
            "edge_spool_backlog_envelopes",
            "Spooled envelopes not yet acknowledged.",
            status.spool_backlog() as f64,
        ),
        counter(
            "edge_clock_probes_total",
            "Clock probes that were answered.",
            status.probes.get() as f64,
        ),
        counter(
            "edge_clock_probe_failures_total",
            "Clock probes that failed.",
            status.probe_failures.get() as f64,
        ),
    ];
    if let Some(nanos) = status.best_round_trip_nanos() {
        let help = "Least round trip of the last clock probes.";
        metrics.push(gauge("edge_clock_round_trip_seconds", help, nanos as f64 / 1e9));
    }
    metrics
}

/// The aligner, by its own status route.
pub fn aligner(routes: Router) -> MetricSource {
    Box::new(move || {
        let routes = routes.clone();
        async move {
            get(routes, "/aligner/status")
                .await
                .map_or_else(Vec::new, |status| aligner_metrics(&status))
        }
        .boxed()
    })
}

fn aligner_metrics(status: &Value) -> Vec<Metric> {
    let counted = |name: &str| number(&status["counters"][name]);
    let counter = |name: &str, help: &str, value: f64| Metric::new(Counter, name, help, value);
    let gauge = |name: &str, help: &str, key: &str| Metric::new(Gauge, name, help, number(&status[key]));
    let mut metrics = vec![
        counter(
            "aligner_envelopes_verified_total",
            "Envelopes whose signature and place in their chain hold.",
            counted("accepted"),
        ),
        counter(
            "aligner_envelopes_duplicate_total",
            "Copies of envelopes that were there already: harmless.",
            counted("duplicates"),
        ),
        counter(
            "aligner_envelopes_late_total",
            "Envelopes that filled a hole behind later ones.",
            counted("late"),
        ),
        counter(
            "aligner_payloads_bad_total",
            "Verified envelopes whose payload could not be read.",
            counted("bad_payloads"),
        ),
        counter("aligner_rows_total", "Rows aligned.", counted("rows")),
        counter(
            "aligner_rows_late_total",
            "Rows that came below their stream's watermark.",
            counted("late_rows"),
        ),
        counter(
            "aligner_losses_total",
            "Losses that agents declared.",
            counted("losses"),
        ),
        gauge(
            "aligner_lag_records",
            "Records of orrery.raw that are not taken in yet.",
            "lag",
        ),
        gauge("aligner_revision", "The newest commit of the catalog.", "revision"),
        gauge("aligner_segments", "Parquet segments of the newest commit.", "segments"),
        gauge(
            "aligner_tail_bytes",
            "Bytes of rows that are not in a segment yet.",
            "tail_bytes",
        ),
        gauge(
            "aligner_pending_bytes",
            "Bytes of rows that are not committed yet.",
            "pending_bytes",
        ),
    ];
    let help = "Envelopes that went to the dead letters, by reason.";
    for reason in ["forged", "equivocations", "unknown_device", "revoked", "garbage"] {
        metrics.push(counter("aligner_envelopes_rejected_total", help, counted(reason)).with("reason", reason));
    }
    metrics
}

/// Ready when the store is open and the loop runs.
pub fn aligner_check(handle: orrery_aligner::Handle) -> Check {
    Check {
        name: "aligner".to_owned(),
        look: Box::new(move || handle.store().map(drop).map_err(|error| error.to_string())),
    }
}

/// The runtime's graphs.
pub fn runtime(runtime: Arc<Runtime>) -> MetricSource {
    Box::new(move || {
        let metrics = runtime_metrics(&runtime);
        async move { metrics }.boxed()
    })
}

fn runtime_metrics(runtime: &Runtime) -> Vec<Metric> {
    let mut metrics = Vec::new();
    let now = runtime.clock().wall();
    for graph in runtime.graphs() {
        let status = graph.status();
        let (of, counted) = (graph.id(), status.statistics);
        let counter =
            |name: &str, help: &str, value: u64| Metric::new(Counter, name, help, value as f64).with("graph", of);
        let is_running = f64::from(u8::from(status.activity == Activity::Running));
        let is_failed = f64::from(u8::from(matches!(status.activity, Activity::Failed(_))));
        metrics.extend([
            Metric::new(
                Gauge,
                "runtime_graph_running",
                "1 while the graph computes.",
                is_running,
            )
            .with("graph", of),
            Metric::new(
                Gauge,
                "runtime_graph_failed",
                "1 after the graph failed, until it is reset.",
                is_failed,
            )
            .with("graph", of),
            counter("runtime_ticks_total", "Ticks computed.", counted.ticks),
            counter(
                "runtime_ticks_waived_total",
                "Ticks that did not wait for a stream.",
                counted.ticks_waived,
            ),
            counter("runtime_runs_total", "Runs started.", counted.runs),
            counter(
                "runtime_rows_late_total",
                "Rows that came too late for their tick.",
                counted.late_rows,
            ),
            counter(
                "runtime_blocks_unreadable_total",
                "Aligned blocks that could not be read.",
                counted.unreadable_blocks,
            ),
        ]);
        if let Some(last) = counted.last_tick {
            let behind_s = now.nanos_since(last) as f64 / 1e9;
            metrics.push(
                Metric::new(Gauge, "runtime_behind_seconds", "Age of the last tick's end.", behind_s).with("graph", of),
            );
        }
    }
    let help = "Graph files that did not load.";
    metrics.push(Metric::new(
        Gauge,
        "runtime_graphs_unloadable",
        help,
        runtime.unloadable().len() as f64,
    ));
    metrics
}

/// The log.
pub fn provenance(handle: orrery_provenance::Handle) -> MetricSource {
    Box::new(move || {
        let status = handle.status();
        let mismatch = f64::from(u8::from(status.state == orrery_provenance::State::Mismatch));
        let entries = handle.log().size() as f64;
        let metrics = vec![
            Metric::new(Gauge, "provenance_entries", "Entries of the log.", entries),
            Metric::new(
                Gauge,
                "provenance_mismatch",
                "1 when entries, hashes and checkpoint do not agree.",
                mismatch,
            ),
            Metric::new(
                Counter,
                "provenance_refused_total",
                "Records that were no statement.",
                status.refused as f64,
            ),
        ];
        async move { metrics }.boxed()
    })
}

/// The bus.
pub fn bus(bus: Arc<CountedBus>) -> MetricSource {
    Box::new(move || {
        let bus = Arc::clone(&bus);
        async move { bus.metrics().await }.boxed()
    })
}

/// Ready while what was published last became durable.
pub fn bus_check(bus: Arc<CountedBus>) -> Check {
    Check {
        name: "publishing".to_owned(),
        look: Box::new(move || bus.failure().map_or(Ok(()), Err)),
    }
}

async fn get(routes: Router, path: &str) -> Option<Value> {
    let request = Request::get(path)
        .extension(Principal::operator())
        .body(Body::empty())
        .ok()?;
    let response = match routes.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let bytes = axum::body::to_bytes(response.into_body(), MAX_ANSWER).await.ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// 64-bit integers are strings in our JSON.
fn number(value: &Value) -> f64 {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .or_else(|| value.as_f64())
        .unwrap_or(0.0)
}
