//! A graph bound to its compiled model: names become indices, units become conversions, or the graph is refused.

use orrery_lang::Meta;
use orrery_protocol::{AlignedBlock, Digest, StreamId};

use crate::error::GraphError;
use crate::graph::{ChannelRef, Graph, Mode, Uncertainty, nearest};
use crate::units::Conversion;

/// What progress needs to know of a graph, with nothing left to look up or to go wrong.
#[derive(Debug, Clone)]
pub struct Layout {
    /// SHA-256 over graph and model: runs take their names from it.
    pub identity: [u8; 32],
    /// Tick length.
    pub tick_nanos: i64,
    /// Silence of a gating stream that ends a run.
    pub reset_after_nanos: i64,
    /// The streams, in the order of their names.
    pub streams: Vec<StreamLayout>,
    /// The model's inputs that are bound, in the node's order.
    pub inputs: Vec<InputLayout>,
    /// Start values from measurements.
    pub starts: Vec<StartLayout>,
    /// Parameter values from the graph file, (index, value in the model's unit).
    pub parameters: Vec<(usize, f64)>,
    /// The published channels.
    pub outputs: Vec<OutputLayout>,
}

/// A stream that feeds the graph.
#[derive(Debug, Clone)]
pub struct StreamLayout {
    /// The stream.
    pub id: StreamId,
    /// The graph stands on it.
    pub gating: bool,
    /// Read so much behind the tick.
    pub delay_nanos: i64,
    /// How long a tick waits for it.
    pub max_wait_nanos: i64,
    /// The channels the graph reads.
    pub channels: Vec<String>,
    /// Which of them a run cannot start without.
    pub required: Vec<bool>,
    /// Which of them a tick needs the sample after its end of, for the line to it.
    pub interpolated: Vec<bool>,
}

/// A bound model input.
#[derive(Debug, Clone)]
pub struct InputLayout {
    /// Its name in the model.
    pub name: String,
    /// Index of the stream.
    pub stream: usize,
    /// Index of the channel in the stream's layout.
    pub channel: usize,
    /// From the channel's unit to the model's.
    pub conversion: Conversion,
    /// In the model's unit.
    pub default: Option<f64>,
    /// The line between samples, rather than the last one held.
    pub linear: bool,
}

/// A state that starts from a measurement.
#[derive(Debug, Clone)]
pub struct StartLayout {
    /// Index of the state in the model.
    pub index: usize,
    /// Index of the stream.
    pub stream: usize,
    /// Index of the channel in the stream's layout.
    pub channel: usize,
    /// From the channel's unit to the model's.
    pub conversion: Conversion,
}

/// A published channel.
#[derive(Debug, Clone)]
pub struct OutputLayout {
    /// Its name on the output stream.
    pub name: String,
    /// Index of the model's column.
    pub index: usize,
    /// From the model's unit to the published one.
    pub conversion: Conversion,
    /// The published unit (UCUM).
    pub unit: String,
    /// Stream and channel it is compared with.
    pub measured: Option<(usize, usize)>,
    /// How uncertain it is.
    pub uncertainty: Uncertainty,
}

impl Layout {
    /// Binds a graph to its model. The node's inputs are the model's, in the model's order.
    ///
    /// # Errors
    /// [`GraphError::Binding`] names the key, and the nearest name or the unit that would fit.
    pub fn bind(
        graph: &Graph,
        meta: &Meta,
        graph_digest: &Digest,
        model_digest: &[u8; 32],
    ) -> Result<Self, GraphError> {
        let mut binder = Binder {
            graph,
            meta,
            streams: stream_layouts(graph),
        };
        let inputs = binder.inputs()?;
        let starts = binder.starts()?;
        let parameters = binder.parameters()?;
        let outputs = binder.outputs()?;
        let identity = Digest::of(&[graph_digest.0.as_slice(), model_digest.as_slice()].concat()).0;
        Ok(Self {
            identity,
            tick_nanos: graph.tick_nanos(),
            reset_after_nanos: millis(graph.reset_after_ms),
            streams: binder.streams,
            inputs,
            starts,
            parameters,
            outputs,
        })
    }

    /// The index of a stream.
    pub fn stream_index(&self, id: &StreamId) -> Option<usize> {
        self.streams.iter().position(|stream| &stream.id == id)
    }

    /// Says which channel the graph reads and a block of that stream does not have: nobody knows before the first block comes.
    pub fn lacking(&self, block: &AlignedBlock) -> Option<String> {
        let stream = &self.streams[self.stream_index(&block.stream)?];
        if block.is_empty() {
            return None;
        }
        let lacking = stream
            .channels
            .iter()
            .find(|channel| block.channel(channel).is_none())?;
        let has: Vec<String> = block.channels().map(|(name, _)| name).collect();
        let id = &stream.id;
        Some(format!(
            "stream `{id}` has no channel `{lacking}`, it has {}; correct the graph's binding",
            has.join(", ")
        ))
    }
}

fn millis(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000)
}

fn stream_layouts(graph: &Graph) -> Vec<StreamLayout> {
    let layout = |(id, binding): (&StreamId, &crate::graph::StreamBinding)| StreamLayout {
        id: id.clone(),
        gating: binding.gating,
        delay_nanos: millis(binding.delay_ms),
        max_wait_nanos: millis(binding.max_wait_ms),
        channels: Vec::new(),
        required: Vec::new(),
        interpolated: Vec::new(),
    };
    graph.streams.iter().map(layout).collect()
}

struct Binder<'a> {
    graph: &'a Graph,
    meta: &'a Meta,
    streams: Vec<StreamLayout>,
}

impl Binder<'_> {
    fn inputs(&mut self) -> Result<Vec<InputLayout>, GraphError> {
        for name in self.graph.inputs.keys() {
            if self.meta.input(name).is_none() {
                let known = nearest(name, self.meta.inputs.iter().map(|var| var.name.as_str()));
                return Err(self.refuse(
                    format!("inputs.{name}"),
                    format!("model `{}` has no input `{name}`{known}", self.meta.model),
                ));
            }
        }
        let mut inputs = Vec::with_capacity(self.meta.inputs.len());
        for var in &self.meta.inputs {
            let key = format!("inputs.{}", var.name);
            let Some(binding) = self.graph.inputs.get(&var.name) else {
                let problem = format!(
                    "the model's input `{}` [{}] is not bound; bind it to a stream's channel",
                    var.name, var.unit
                );
                return Err(self.refuse(key, problem));
            };
            let conversion = self.conversion(&key, &binding.unit, &var.unit)?;
            let (stream, channel) = self.channel(&binding.stream, &binding.channel, binding.default.is_none());
            let default = binding.default.map(|value| conversion.apply(value));
            let linear = binding.mode == Mode::Interpolate;
            self.streams[stream].interpolated[channel] |= linear;
            inputs.push(InputLayout {
                name: var.name.clone(),
                stream,
                channel,
                conversion,
                default,
                linear,
            });
        }
        Ok(inputs)
    }

    fn starts(&mut self) -> Result<Vec<StartLayout>, GraphError> {
        let mut starts = Vec::new();
        for (name, binding) in &self.graph.start {
            let key = format!("start.{name}");
            let Some(index) = self.meta.state(name) else {
                let known = nearest(name, self.meta.states.iter().map(|var| var.name.as_str()));
                return Err(self.refuse(key, format!("model `{}` has no state `{name}`{known}", self.meta.model)));
            };
            let conversion = self.conversion(&key, &binding.unit, &self.meta.states[index].unit)?;
            let (stream, channel) = self.reference(&binding.measured, true);
            starts.push(StartLayout {
                index,
                stream,
                channel,
                conversion,
            });
        }
        Ok(starts)
    }

    fn parameters(&self) -> Result<Vec<(usize, f64)>, GraphError> {
        let mut parameters = Vec::new();
        for (name, quantity) in &self.graph.parameters {
            let key = format!("parameters.{name}");
            let Some(index) = self.meta.parameter(name) else {
                let known = nearest(name, self.meta.parameters.iter().map(|var| var.name.as_str()));
                return Err(self.refuse(
                    key,
                    format!("model `{}` has no parameter `{name}`{known}", self.meta.model),
                ));
            };
            let var = &self.meta.parameters[index];
            let value = self.conversion(&key, &quantity.unit, &var.unit)?.apply(quantity.value);
            let inside = var.min.is_none_or(|min| value >= min) && var.max.is_none_or(|max| value <= max);
            if !inside || !value.is_finite() {
                let bounds = format!(
                    "{} to {}",
                    var.min.unwrap_or(f64::NEG_INFINITY),
                    var.max.unwrap_or(f64::INFINITY)
                );
                return Err(self.refuse(
                    key,
                    format!("{value} {} is outside the model's bounds {bounds}", var.unit),
                ));
            }
            parameters.push((index, value));
        }
        Ok(parameters)
    }

    fn outputs(&mut self) -> Result<Vec<OutputLayout>, GraphError> {
        let mut outputs = Vec::new();
        for (name, binding) in &self.graph.outputs {
            let key = format!("outputs.{name}");
            let Some(index) = self.meta.column(&binding.from) else {
                let known = nearest(&binding.from, self.meta.columns.iter().map(|var| var.name.as_str()));
                let problem = format!("model `{}` has no variable `{}`{known}", self.meta.model, binding.from);
                return Err(self.refuse(format!("{key}.from"), problem));
            };
            let conversion = self.conversion(&key, &self.meta.columns[index].unit, &binding.unit)?;
            let measured = binding
                .measured
                .as_ref()
                .map(|measured| self.reference(measured, false));
            outputs.push(OutputLayout {
                name: name.clone(),
                index,
                conversion,
                unit: binding.unit.clone(),
                measured,
                uncertainty: binding.uncertainty,
            });
        }
        Ok(outputs)
    }

    fn reference(&mut self, channel: &ChannelRef, required: bool) -> (usize, usize) {
        self.channel(&channel.stream, &channel.channel, required)
    }

    /// The place of a channel, added if it is new.
    fn channel(&mut self, stream: &StreamId, channel: &str, required: bool) -> (usize, usize) {
        let stream = self
            .streams
            .iter()
            .position(|layout| &layout.id == stream)
            .expect("Graph::parse checked that every stream is listed");
        let layout = &mut self.streams[stream];
        let at = layout
            .channels
            .iter()
            .position(|known| known == channel)
            .unwrap_or_else(|| {
                layout.channels.push(channel.to_owned());
                layout.required.push(false);
                layout.interpolated.push(false);
                layout.channels.len() - 1
            });
        layout.required[at] |= required;
        (stream, at)
    }

    fn conversion(&self, key: &str, from: &str, to: &str) -> Result<Conversion, GraphError> {
        Conversion::between(from, to).ok_or_else(|| {
            self.refuse(
                format!("{key}.unit"),
                format!("a value in `{from}` cannot become one in `{to}`; correct the unit or the binding"),
            )
        })
    }

    fn refuse(&self, key: String, problem: String) -> GraphError {
        GraphError::Binding {
            graph: self.graph.id.to_string(),
            key,
            problem,
        }
    }
}
