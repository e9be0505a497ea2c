//! What the types of a graph cannot say: values in range, names that exist. Each refusal is (key, problem).

use orrery_protocol::StreamId;

use super::{Condition, Graph};

impl Graph {
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let fail = |key: &str, problem: String| Err((key.to_owned(), problem));
        if !(1..=3_600_000).contains(&self.tick_ms) {
            return fail("tick_ms", format!("{} is outside 1 to 3600000", self.tick_ms));
        }
        if !self.streams.values().any(|stream| stream.gating) {
            return fail(
                "streams",
                "no stream is gating; set `gating = true` on the one the graph stands on".into(),
            );
        }
        for (id, stream) in &self.streams {
            if stream.gating && stream.delay_ms > 0 {
                return fail(
                    &format!("streams.{id}.delay_ms"),
                    "a gating stream has no delay; remove one of the two".into(),
                );
            }
            if stream.delay_ms > 3_600_000 || stream.max_wait_ms > 3_600_000 {
                return fail(
                    &format!("streams.{id}"),
                    "delay_ms and max_wait_ms go up to 3600000".into(),
                );
            }
        }
        for (name, input) in &self.inputs {
            self.check_stream(&format!("inputs.{name}.stream"), &input.stream)?;
        }
        for (name, start) in &self.start {
            self.check_stream(&format!("start.{name}.measured"), &start.measured.stream)?;
        }
        if self.outputs.is_empty() {
            return fail("outputs", "the graph publishes nothing; add one output".into());
        }
        for (name, output) in &self.outputs {
            let key = format!("outputs.{name}");
            if name.is_empty() || name.ends_with("_sd") || name.ends_with("_residual") {
                return fail(
                    &key,
                    "names ending in _sd and _residual are taken by the columns the runtime adds".into(),
                );
            }
            if let Some(measured) = &output.measured {
                self.check_stream(&format!("{key}.measured"), &measured.stream)?;
                if self.streams[&measured.stream].delay_ms > 0 {
                    let problem = format!(
                        "`{}` is read with a delay; compare with a stream without one",
                        measured.stream
                    );
                    return Err((format!("{key}.measured"), problem));
                }
            }
            let u = &output.uncertainty;
            let all_sane = [u.start, u.live, u.held_per_sqrt_s]
                .iter()
                .all(|x| x.is_finite() && *x >= 0.0);
            if !all_sane || !u.settle_s.is_finite() || u.settle_s * 1000.0 < 2.0 * f64::from(self.tick_ms) {
                return fail(
                    &format!("{key}.uncertainty"),
                    "start, live and held_per_sqrt_s are at least 0, settle_s at least two ticks".into(),
                );
            }
        }
        self.check_controls()
    }

    fn check_controls(&self) -> Result<(), (String, String)> {
        for control in &self.controls {
            let key = format!("control.{}", control.channel);
            let ordered = control.low <= control.off && control.off <= control.high;
            if !ordered {
                return Err((
                    key,
                    format!(
                        "low {} ≤ off {} ≤ high {} does not hold",
                        control.low, control.off, control.high
                    ),
                ));
            }
            if !self.inputs.contains_key(&control.input) {
                let known = nearest(&control.input, self.inputs.keys().map(String::as_str));
                return Err((
                    format!("{key}.input"),
                    format!("`{}` is not an input of this graph{known}", control.input),
                ));
            }
            self.check_stream(&format!("{key}.readback"), &control.readback.stream)?;
        }
        for interlock in &self.interlocks {
            let key = format!("interlock.{}", interlock.id);
            match &interlock.condition {
                Condition::Below { channels, .. } => {
                    for channel in channels {
                        self.check_stream(&format!("{key}.channels"), &channel.stream)?;
                    }
                }
                Condition::ForecastBelow { outputs, horizon_s, .. } => {
                    if !(1..=crate::forecast::MAX_HORIZON_S).contains(horizon_s) {
                        let most = crate::forecast::MAX_HORIZON_S;
                        return Err((
                            format!("{key}.horizon_s"),
                            format!("{horizon_s} is outside 1 to {most}"),
                        ));
                    }
                    for output in outputs {
                        if !self.outputs.contains_key(output) {
                            let known = nearest(output, self.outputs.keys().map(String::as_str));
                            return Err((
                                format!("{key}.outputs"),
                                format!("`{output}` is not an output of this graph{known}"),
                            ));
                        }
                    }
                }
                Condition::Answers { stream, .. } => self.check_stream(&format!("{key}.stream"), stream)?,
            }
        }
        Ok(())
    }

    fn check_stream(&self, key: &str, stream: &StreamId) -> Result<(), (String, String)> {
        if self.streams.contains_key(stream) {
            return Ok(());
        }
        let known = nearest(stream.as_str(), self.streams.keys().map(StreamId::as_str));
        Err((
            key.to_owned(),
            format!("`{stream}` is not listed under [streams]{known}"),
        ))
    }
}

/// ` (did you mean `x`?)`, or nothing when no known name is near.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(2))
        .map(|(_, candidate)| format!(" (did you mean `{candidate}`?)"))
        .unwrap_or_default()
}
