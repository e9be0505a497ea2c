//! `/metrics` in Prometheus' text format: what the gateway counts, and what services register.
//!
//! Labels are routes, methods and status classes, never a device, channel or caller: their number is bounded.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::future::{BoxFuture, join_all};
use tokio::time::timeout;

use crate::app::Shared;

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// What it stands at.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether a metric only rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only rises; its name ends in `_total`.
    Counter,
    /// It rises and falls.
    Gauge,
}

/// One value of one metric, as a service reports it.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its name; `orrery_` is put before it where missing.
    pub name: String,
    /// One line that says what it counts, with its unit.
    pub help: String,
    /// Whether it only rises.
    pub kind: MetricKind,
    /// Labels from small fixed sets.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
}

impl Metric {
    /// A metric without labels.
    pub fn new(kind: MetricKind, name: &str, help: &str, value: f64) -> Self {
        Self {
            name: name.to_owned(),
            help: help.to_owned(),
            kind,
            labels: Vec::new(),
            value,
        }
    }

    /// The same with one more label.
    #[must_use]
    pub fn with(mut self, label: &str, value: &str) -> Self {
        self.labels.push((label.to_owned(), value.to_owned()));
        self
    }
}

/// Reports a service's metrics; asked at every scrape. One that does not answer within a second is left out.
pub type MetricSource = Box<dyn Fn() -> BoxFuture<'static, Vec<Metric>> + Send + Sync>;

/// How long a scrape waits for the services, all together.
const PATIENCE: Duration = Duration::from_secs(1);

/// A metric may have so many label sets; what is beyond is left out and counted.
const MAX_SERIES: usize = 200;
const BUCKETS_S: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];

/// What the gateway counts itself.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<Series, Latency>>,
    unauthenticated: Counter,
    forbidden: Counter,
    /// Intake.
    pub ingest: Ingest,
}

/// What `POST /envelopes` counts.
#[derive(Debug, Default)]
pub struct Ingest {
    /// Envelopes made durable.
    pub accepted: Counter,
    /// Requests refused.
    pub refused: Counter,
    /// Requests turned away because too much was on its way.
    pub turned_away: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    route: String,
    method: &'static str,
    status: &'static str,
}

#[derive(Debug, Default)]
struct Latency {
    buckets: [u64; BUCKETS_S.len()],
    count: u64,
    sum_s: f64,
}

impl Metrics {
    /// Counts a request by its route pattern, never by its path.
    pub fn count_request(&self, route: Option<&str>, method: &axum::http::Method, status: u16, took: Duration) {
        let series = Series {
            route: route.unwrap_or("other").to_owned(),
            method: match method.as_str() {
                "GET" => "GET",
                "HEAD" => "HEAD",
                "POST" => "POST",
                "PUT" => "PUT",
                "DELETE" => "DELETE",
                _ => "other",
            },
            status: ["1xx", "2xx", "3xx", "4xx", "5xx"][usize::from(status / 100).clamp(1, 5) - 1],
        };
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let latency = requests.entry(series).or_default();
        let took_s = took.as_secs_f64();
        latency.count += 1;
        latency.sum_s += took_s;
        for (bucket, bound) in latency.buckets.iter_mut().zip(BUCKETS_S) {
            *bucket += u64::from(took_s <= bound);
        }
    }

    /// Counts a caller that was not let in.
    pub fn count_refusal(&self, status: u16) {
        let counter = if status == 403 {
            &self.forbidden
        } else {
            &self.unauthenticated
        };
        counter.add(1);
    }

    fn render_requests(&self, text: &mut String) {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.is_empty() {
            return;
        }
        let name = "orrery_http_request_duration_seconds";
        let _ = writeln!(
            text,
            "# HELP {name} Time from a request's arrival to the head of its answer."
        );
        let _ = writeln!(text, "# TYPE {name} histogram");
        for (series, latency) in requests.iter() {
            let labels = format!(
                "route=\"{}\",method=\"{}\",status=\"{}\"",
                escape(&series.route),
                series.method,
                series.status
            );
            for (count, bound) in latency.buckets.iter().zip(BUCKETS_S) {
                let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
            }
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", latency.count);
            let _ = writeln!(text, "{name}_sum{{{labels}}} {}", latency.sum_s);
            let _ = writeln!(text, "{name}_count{{{labels}}} {}", latency.count);
        }
    }
}

/// Counters as Prometheus text. Open like the health checks: it holds counts, and no name of a device, channel or person.
#[utoipa::path(get, path = "/metrics", tag = "gateway", responses((status = 200, content_type = "text/plain", body = String)))]
pub async fn metrics(State(app): State<Shared>) -> Response {
    let mut found = own(&app);
    let asked = join_all(app.metric_sources.iter().map(|source| timeout(PATIENCE, source())));
    found.extend(asked.await.into_iter().flatten().flatten());
    let mut text = render(found);
    app.metrics.render_requests(&mut text);
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response()
}

fn own(app: &Shared) -> Vec<Metric> {
    let counter =
        |name: &str, help: &str, counter: &Counter| Metric::new(MetricKind::Counter, name, help, counter.get() as f64);
    let (metrics, hub) = (&app.metrics, &app.hub);
    let refused = "Requests that were not let in.";
    vec![
        Metric::new(MetricKind::Gauge, "build_info", "The running build.", 1.0).with("version", &app.build),
        Metric::new(
            MetricKind::Gauge,
            "live_clients",
            "Open live streams.",
            hub.clients() as f64,
        ),
        counter("live_messages_total", "Messages handed to live clients.", &hub.messages),
        counter(
            "live_dropped_total",
            "Messages that slow live clients lost.",
            &hub.dropped,
        ),
        counter(
            "ingest_envelopes_total",
            "Envelopes made durable on the bus.",
            &metrics.ingest.accepted,
        ),
        counter(
            "ingest_refused_total",
            "Intake requests refused.",
            &metrics.ingest.refused,
        ),
        counter(
            "ingest_turned_away_total",
            "Intake requests told to come back.",
            &metrics.ingest.turned_away,
        ),
        counter("auth_refused_total", refused, &metrics.unauthenticated).with("reason", "unauthenticated"),
        counter("auth_refused_total", refused, &metrics.forbidden).with("reason", "forbidden"),
    ]
}

fn render(metrics: Vec<Metric>) -> String {
    let mut families: BTreeMap<String, Vec<Metric>> = BTreeMap::new();
    for metric in metrics {
        families.entry(full_name(&metric.name)).or_default().push(metric);
    }
    let mut text = String::new();
    let mut left_out = 0;
    for (name, series) in &families {
        let kind = if series[0].kind == MetricKind::Counter {
            "counter"
        } else {
            "gauge"
        };
        let help = series[0].help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for metric in series.iter().take(MAX_SERIES) {
            let labels: Vec<String> = (metric.labels.iter())
                .map(|(label, value)| format!("{}=\"{}\"", plain(label), escape(value)))
                .collect();
            let labels = if labels.is_empty() {
                String::new()
            } else {
                format!("{{{}}}", labels.join(","))
            };
            let _ = writeln!(text, "{name}{labels} {}", number(metric.value));
        }
        left_out += series.len().saturating_sub(MAX_SERIES);
    }
    let _ = writeln!(
        text,
        "# HELP orrery_metrics_left_out Label sets beyond {MAX_SERIES} of one metric.\n\
         # TYPE orrery_metrics_left_out gauge\norrery_metrics_left_out {left_out}"
    );
    text
}

fn full_name(name: &str) -> String {
    let name = plain(name);
    if name.starts_with("orrery_") {
        name
    } else {
        format!("orrery_{name}")
    }
}

fn plain(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect()
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_once_with_a_prefix_and_escaped_labels() {
        let gauge = |value| Metric::new(MetricKind::Gauge, "lag_seconds", "How far\nbehind.", value);
        let text = render(vec![gauge(1.5).with("topic", "a\"b"), gauge(f64::NAN)]);
        assert_eq!(text.matches("# TYPE orrery_lag_seconds gauge").count(), 1);
        assert!(text.contains("orrery_lag_seconds{topic=\"a\\\"b\"} 1.5\n"), "{text}");
        assert!(
            text.contains("orrery_lag_seconds NaN\n") && text.contains("How far\\nbehind."),
            "{text}"
        );
    }

    #[test]
    fn label_sets_are_bounded() {
        let many = (0..MAX_SERIES + 5)
            .map(|at| Metric::new(MetricKind::Counter, "x_total", "X.", 1.0).with("at", &at.to_string()));
        let text = render(many.collect());
        assert_eq!(text.matches("orrery_x_total{").count(), MAX_SERIES);
        assert!(text.contains("orrery_metrics_left_out 5\n"));
    }

    #[test]
    fn latencies_fall_into_cumulative_buckets() {
        let metrics = Metrics::default();
        let get = axum::http::Method::GET;
        metrics.count_request(Some("/api/v1/x/{id}"), &get, 200, Duration::from_millis(3));
        metrics.count_request(Some("/api/v1/x/{id}"), &get, 204, Duration::from_millis(700));
        let mut text = String::new();
        metrics.render_requests(&mut text);
        let labels = "route=\"/api/v1/x/{id}\",method=\"GET\",status=\"2xx\"";
        assert!(
            text.contains(&format!("_bucket{{{labels},le=\"0.0025\"}} 0\n")),
            "{text}"
        );
        assert!(
            text.contains(&format!("_bucket{{{labels},le=\"0.005\"}} 1\n")),
            "{text}"
        );
        assert!(text.contains(&format!("_bucket{{{labels},le=\"+Inf\"}} 2\n")), "{text}");
    }
}
