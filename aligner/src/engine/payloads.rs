//! What each kind of payload does.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use orrery_bus::{Message, Record};
use orrery_protocol::{
    AckPayload, AlignedBlock, Channel, ChannelType, Claims, ClockId, ClockPayload, Descriptor, DeviceId, Envelope,
    EventPayload, HeartbeatPayload, LogPayload, LossPayload, MonoNanos, PayloadType, SampleBlock, StreamId, TaiNanos,
    Verified, topics,
};

use super::{Engine, StreamState};
use crate::align::{TracePlace, align, keyed_batch};
use crate::clocks::{DeviceClocks, Place, Stamps};

/// Streams the aligner makes from payloads that are not samples.
const DERIVED: [&str; 3] = ["acks", "log", "events"];

type Outcome = Result<(), String>;

impl Engine {
    pub(super) fn on_payload(&mut self, envelope: &Verified<Envelope>, place: Place) -> Outcome {
        let (claims, payload) = (envelope.claims(), envelope.payload());
        let text = |error: orrery_protocol::PayloadError| error.to_string();
        match claims.payload_type {
            PayloadType::Samples => {
                let block = SampleBlock::decode(payload).map_err(|error| error.to_string())?;
                self.on_samples(claims, place, &block)
            }
            PayloadType::Descriptor => self.on_descriptor(claims, Descriptor::decode(payload).map_err(text)?),
            PayloadType::Clock => self.on_clock(claims, place, &ClockPayload::decode(payload).map_err(text)?),
            PayloadType::Heartbeat => {
                self.on_heartbeat(claims, place, HeartbeatPayload::decode(payload).map_err(text)?)
            }
            PayloadType::Loss => self.on_loss(claims, &LossPayload::decode(payload).map_err(text)?),
            PayloadType::Ack => self.on_ack(claims, place, &AckPayload::decode(payload).map_err(text)?),
            PayloadType::Log => self.on_log(claims, place, &LogPayload::decode(payload).map_err(text)?),
            PayloadType::Event => self.on_event(claims, place, &EventPayload::decode(payload).map_err(text)?),
            // Archived, which is all that is asked for until something reads them.
            PayloadType::Frame | PayloadType::Key => Ok(()),
        }
    }

    fn on_descriptor(&mut self, claims: &Claims, descriptor: Descriptor) -> Outcome {
        if descriptor.stream.device() != claims.device_id {
            return Err(format!(
                "it describes `{}`, a stream of another device",
                descriptor.stream
            ));
        }
        if DERIVED.contains(&descriptor.stream.name()) {
            return Err(format!(
                "the name `{}` is Orrery's own, choose another",
                descriptor.stream
            ));
        }
        self.announce(descriptor)
    }

    /// Learns a descriptor and, when it is news, keeps and publishes it.
    fn announce(&mut self, descriptor: Descriptor) -> Outcome {
        descriptor.check().map_err(|error| error.to_string())?;
        let descriptor = Arc::new(descriptor);
        let stream = descriptor.stream.clone();
        if self
            .streams
            .entry(stream.clone())
            .or_default()
            .add(Arc::clone(&descriptor))?
        {
            let record = Record::new(stream.as_str().as_bytes().to_vec(), descriptor.encode());
            self.outbox.push((topics::STREAMS, record));
            self.pending.descriptors.push(descriptor);
        }
        Ok(())
    }

    /// Learns what a graph announced on `orrery.streams`, so that its traces have units.
    pub fn on_stream_announcement(&mut self, message: &Message) {
        let Ok(descriptor) = Descriptor::decode(&message.value) else {
            return;
        };
        let stream = descriptor.stream.clone();
        if self.door.devices().contains_key(&stream.device()) || descriptor.check().is_err() {
            return;
        }
        let descriptor = Arc::new(descriptor);
        match self
            .streams
            .entry(stream.clone())
            .or_default()
            .add(Arc::clone(&descriptor))
        {
            Ok(true) => self.pending.descriptors.push(descriptor),
            Ok(false) => {}
            Err(why) => {
                tracing::warn!(%stream, why, "a graph's descriptor does not fit its stream")
            }
        }
    }

    fn on_samples(&mut self, claims: &Claims, place: Place, block: &SampleBlock) -> Outcome {
        if block.stream.device() != claims.device_id {
            return Err(format!(
                "its samples are of `{}`, a stream of another device",
                block.stream
            ));
        }
        let Some(state) = self.streams.get(&block.stream) else {
            return Err(format!("no descriptor of `{}` came before it", block.stream));
        };
        // A descriptor lost in a hole is no reason to lose samples whose columns fit the one in force.
        let descriptor = state.descriptors.get(&block.descriptor).or(state.latest.as_ref());
        let Some(descriptor) = descriptor else {
            return Err(format!("`{}` has no descriptor", block.stream));
        };
        block.check(descriptor).map_err(|error| error.to_string())?;
        let digest = descriptor.digest();
        if block.is_empty() {
            return Ok(());
        }

        let bound = self.one_way_bound_nanos();
        let clocks = self.clocks.entry(claims.device_id.clone()).or_default();
        let fallback = block.device_clock_id.clone().or_else(|| {
            let stamped = (0..block.len()).any(|row| block.device_time(row).is_some());
            stamped.then(|| ClockId::session(claims.device_id.as_str(), "unnamed"))
        });
        let stamps = Stamps {
            host: &block.clock_id,
            device: fallback.as_ref(),
            place,
        };
        let last_received = block.received(block.len() - 1);
        if !clocks.knows_host(stamps.host) {
            clocks.observe_wall(place, stamps.host, last_received, claims.timestamp);
            self.pending.clocks.insert(claims.device_id.clone());
        }
        let mut believed = Vec::new();
        if stamps.device.is_some() {
            let pairs = (0..block.len()).filter_map(|row| Some((block.device_time(row)?, block.received(row))));
            believed = clocks.observe_stamps(stamps, pairs);
            self.pending.clocks.insert(claims.device_id.clone());
        }
        let maps = clocks.maps(stamps, bound).ok_or("its host clock is unknown")?;
        let rows = align(block, place, &maps, &believed).map_err(|error| error.to_string())?;

        let model = stamps
            .device
            .is_some()
            .then(|| clocks.model(&claims.device_id, stamps, last_received, bound))
            .flatten();
        let news = clocks.news(model);
        let stamped_by = (block.clock_id.clone(), fallback.clone());
        self.publish_model(news);

        let activity = self.activity.entry(claims.device_id.clone()).or_default();
        activity.stamped_by = Some(stamped_by);
        activity.last_mono = activity.last_mono.max(last_received.0);
        activity.last_sample = activity
            .last_sample
            .max(rows.times.iter().max().map(|time| TaiNanos(*time)));
        if rows.implausible > 0 {
            self.count(Some(&claims.device_id), "implausible_stamps", rows.implausible);
        }
        self.emit(
            &block.stream,
            digest,
            rows.batch,
            &rows.times,
            rows.asymmetry_nanos,
            rows.delay_nanos,
        );
        Ok(())
    }

    /// Keeps rows and publishes them at once, with the watermark after them.
    fn emit(
        &mut self,
        stream: &StreamId,
        descriptor: orrery_protocol::Digest,
        batch: RecordBatch,
        times: &[i64],
        asymmetry_nanos: i64,
        delay_nanos: i64,
    ) {
        let device = stream.device();
        let held = self.is_held(&device);
        let revision = self.revision;
        let state = self.streams.entry(stream.clone()).or_default();
        let late = state.persistent.watermark.rows(times, delay_nanos);
        state.persistent.watermark.settle(held);
        state.persistent.asymmetry_nanos = asymmetry_nanos;
        state.note_times(times);
        let watermark = state.watermark();
        self.pending.streams.insert(stream.clone());
        self.keep_rows(stream.as_str(), batch.clone());
        self.count(Some(&device), "rows", times.len() as u64);
        if late > 0 {
            self.count(Some(&device), "late_rows", late);
        }
        self.publish_block(AlignedBlock {
            stream: stream.clone(),
            descriptor,
            revision,
            watermark,
            asymmetry_nanos,
            extra: Default::default(),
            batch,
        });
    }

    fn publish_block(&mut self, block: AlignedBlock) {
        match block.encode() {
            Ok(bytes) => {
                self.outbox.push((
                    topics::ALIGNED,
                    Record::new(block.stream.as_str().as_bytes().to_vec(), bytes),
                ));
            }
            Err(error) => {
                tracing::error!(stream = %block.stream, %error, "an aligned block could not be encoded")
            }
        }
    }

    fn publish_model(&mut self, news: Option<orrery_protocol::ClockModel>) {
        if let Some(model) = news {
            let key = model.device_id.as_str().as_bytes().to_vec();
            self.outbox.push((topics::CLOCK, Record::new(key, model.encode())));
        }
    }

    fn on_clock(&mut self, claims: &Claims, place: Place, payload: &ClockPayload) -> Outcome {
        let bound = self.one_way_bound_nanos();
        let activity = self.activity.entry(claims.device_id.clone()).or_default();
        let clocks = self.clocks.entry(claims.device_id.clone()).or_default();
        let late_before = clocks.late_evidence();
        let outcome = clocks.observe(place, payload);
        tracing::debug!(device = %claims.device_id, clock = %payload.clock_id, ?outcome, "a wave of probes");
        self.pending.clocks.insert(claims.device_id.clone());
        if let Some(at) = payload.probes.iter().map(|probe| probe.t3).max() {
            activity.last_mono = activity.last_mono.max(at);
        }
        let at = MonoNanos(activity.last_mono);
        let host_model = clocks.model(
            &claims.device_id,
            Stamps {
                host: &payload.host,
                device: None,
                place,
            },
            at,
            bound,
        );
        let mut news = vec![clocks.news(host_model)];
        if payload.clock_id != payload.host {
            let stamps = Stamps {
                host: &payload.host,
                device: Some(&payload.clock_id),
                place,
            };
            let model = clocks.model(&claims.device_id, stamps, at, bound);
            news.push(clocks.news(model));
        }
        let late = clocks.late_evidence() - late_before;
        for model in news {
            self.publish_model(model);
        }
        if late > 0 {
            self.count(Some(&claims.device_id), "late_evidence", late);
        }
        Ok(())
    }

    fn on_heartbeat(&mut self, claims: &Claims, place: Place, payload: HeartbeatPayload) -> Outcome {
        let clocks = self.clocks.entry(claims.device_id.clone()).or_default();
        let received = clocks.reference_from_mono(&payload.clock_id, place, payload.complete_until);
        let activity = self.activity.entry(claims.device_id.clone()).or_default();
        activity.agent = payload.counters;
        activity.last_mono = activity.last_mono.max(payload.complete_until.0);
        self.pending.active.insert(claims.device_id.clone());
        let Some(received) = received else {
            return Ok(());
        };
        let chain = self.door.chain(&claims.device_id, place.boot);
        let undelivered = payload.except.iter().any(|(first, last)| {
            first <= last && !chain.is_some_and(|chain| chain.accepted.contains_range(*first, *last))
        });
        if undelivered {
            return Ok(());
        }
        let mut moved = Vec::new();
        for (stream, state) in self.streams_of(&claims.device_id) {
            if payload.streams.is_empty() || payload.streams.contains(&stream) {
                let watermark = &mut state.persistent.watermark;
                watermark.complete_until(received.time, received.uncertainty_nanos);
                moved.push(stream);
            }
        }
        self.pending.streams.extend(moved);
        Ok(())
    }

    fn streams_of(&mut self, device: &DeviceId) -> Vec<(StreamId, &mut StreamState)> {
        self.streams
            .iter_mut()
            .filter(|(stream, state)| {
                stream.device() == *device && state.latest.is_some() && !DERIVED.contains(&stream.name())
            })
            .map(|(stream, state)| (stream.clone(), state))
            .collect()
    }

    /// Publishes the watermarks that may now move: after a heartbeat, or when what held them back is gone.
    pub(super) fn release_watermarks(&mut self, device: &DeviceId) {
        let held = self.is_held(device);
        let revision = self.revision;
        let mut blocks = Vec::new();
        for (stream, state) in self.streams_of(device) {
            if !state.persistent.watermark.settle(held) {
                continue;
            }
            let Some(descriptor) = &state.latest else {
                continue;
            };
            let schema = crate::columns::aligned_schema(&state.fields);
            blocks.push(AlignedBlock {
                stream,
                descriptor: descriptor.digest(),
                revision,
                watermark: state.watermark(),
                asymmetry_nanos: state.persistent.asymmetry_nanos,
                extra: Default::default(),
                batch: RecordBatch::new_empty(schema),
            });
        }
        for block in blocks {
            self.pending.streams.insert(block.stream.clone());
            self.publish_block(block);
        }
    }

    /// A young hole in the newest chain holds the watermarks back; an old one no longer does, so that a loss nobody
    /// recorded cannot stop the world. Age is measured on the device's own seal times: a pure function of its chain.
    fn is_held(&self, device: &DeviceId) -> bool {
        let Some((_, chain)) = self.door.chains_of(device).last() else {
            return false;
        };
        let Some((_, now)) = chain.head else {
            return false;
        };
        let wait = i64::try_from(self.config.hole_wait_ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
        chain
            .pending()
            .any(|gap| gap.from.is_some() && now.nanos_since(gap.to) < wait)
    }

    fn on_loss(&mut self, claims: &Claims, payload: &LossPayload) -> Outcome {
        if payload.first > payload.last {
            return Err(format!("its range {}–{} is empty", payload.first, payload.last));
        }
        // An agent tells of its past only: a boot to come would stand behind all real ones.
        if payload.boot_id > claims.boot_id && self.door.chain(&claims.device_id, payload.boot_id).is_none() {
            let (lost, own) = (payload.boot_id, claims.boot_id);
            return Err(format!(
                "it is about boot {lost}, which is unknown and later than its own, {own}"
            ));
        }
        self.door
            .chain_mut(&claims.device_id, payload.boot_id)
            .lose(payload, claims.timestamp);
        self.pending.chains.insert((claims.device_id.clone(), payload.boot_id));
        self.count(Some(&claims.device_id), "losses", 1);
        Ok(())
    }

    fn on_ack(&mut self, claims: &Claims, place: Place, ack: &AckPayload) -> Outcome {
        let text = |name: &str, value: Option<&str>| derived(Channel::text(name), StringArray::from(vec![value]));
        let integer = |name: &str, value: u64| {
            let channel = Channel {
                kind: ChannelType::I64,
                ..Channel::f64(name, "1")
            };
            derived(
                channel,
                Int64Array::from(vec![i64::try_from(value).unwrap_or(i64::MAX)]),
            )
        };
        let columns = vec![
            text("command_id", Some(&ack.command_id)),
            text("channel", Some(&ack.channel)),
            text("status", Some(ack.status.as_str())),
            derived(Channel::f64("value", "1"), Float64Array::from(vec![ack.value])),
            text("reason", ack.reason.as_deref()),
            integer("issuer_epoch", ack.issuer_epoch),
            integer("issuer_sequence", ack.issuer_sequence),
        ];
        self.on_derived(claims, place, "acks", (&ack.clock_id, ack.at), columns)
    }

    fn on_log(&mut self, claims: &Claims, place: Place, log: &LogPayload) -> Outcome {
        let text = |name: &str, value: &str| derived(Channel::text(name), StringArray::from(vec![value]));
        let columns = vec![text("level", &log.level), text("message", &log.message)];
        self.on_derived(claims, place, "log", (&log.clock_id, log.at), columns)
    }

    fn on_event(&mut self, claims: &Claims, place: Place, event: &EventPayload) -> Outcome {
        let text = |name: &str, value: &str| derived(Channel::text(name), StringArray::from(vec![value]));
        let columns = vec![text("name", &event.name), text("text", &event.text)];
        self.on_derived(claims, place, "events", (&event.clock_id, event.at), columns)
    }

    /// One row of a stream that the aligner makes itself.
    fn on_derived(
        &mut self,
        claims: &Claims,
        place: Place,
        name: &str,
        (host, at): (&ClockId, MonoNanos),
        columns: Vec<(Channel, ArrayRef)>,
    ) -> Outcome {
        let stream = StreamId::of(&claims.device_id, name).map_err(|error| error.to_string())?;
        let descriptor = Descriptor {
            stream: stream.clone(),
            version: 1,
            title: format!("{} of {}", name, claims.device_id),
            protocol: "orrery".to_owned(),
            channels: columns.iter().map(|(channel, _)| channel.clone()).collect(),
            nominal_rate_hz: None,
            droppable: false,
            max_silence_ms: None,
            calibration: None,
        };
        let digest = descriptor.digest();
        self.announce(descriptor)?;
        let clocks: &mut DeviceClocks = self.clocks.entry(claims.device_id.clone()).or_default();
        if !clocks.knows_host(host) {
            clocks.observe_wall(place, host, at, claims.timestamp);
            self.pending.clocks.insert(claims.device_id.clone());
        }
        let aligned = clocks
            .reference_from_mono(host, place, at)
            .ok_or("its host clock is unknown")?;
        let channels = columns
            .into_iter()
            .map(|(channel, column)| {
                let field = arrow::datatypes::Field::new(&channel.name, channel.kind.data_type(), true);
                (Arc::new(field), column)
            })
            .collect();
        let times = [aligned.time.0];
        let batch =
            keyed_batch(&times, vec![aligned.uncertainty_nanos], place, channels).map_err(|error| error.to_string())?;
        self.emit(&stream, digest, batch, &times, aligned.asymmetry_nanos, 0);
        Ok(())
    }

    /// Takes a message of `orrery.traces`: rows of a graph, already on the reference timeline.
    pub fn on_trace(&mut self, message: &Message) {
        self.note_offset(message);
        let block = match AlignedBlock::decode(&message.value) {
            Ok(block) => block,
            Err(error) => {
                self.count(None, "bad_traces", 1);
                self.dead_letter("bad_trace", &error.to_string(), None, message.value.clone());
                return;
            }
        };
        let state = self.streams.entry(block.stream.clone()).or_default();
        let place = |row: usize| {
            let key = block.key(row);
            TracePlace {
                time: key.time,
                boot: key.boot,
                sequence: key.sequence,
                index: key.index,
            }
        };
        // A graph that restarts goes over ground it has covered: what is not beyond the last row came before.
        let known = state.persistent.trace;
        let first = (0..block.len())
            .find(|row| known.is_none_or(|known| place(*row).time > known.time))
            .unwrap_or(block.len());
        if first == block.len() {
            return;
        }
        state.persistent.trace = Some(place(block.len() - 1));
        let batch = block.batch.slice(first, block.len() - first);
        let fields = batch.schema().fields()[crate::columns::ALIGNED_KEYS..].to_vec();
        match crate::columns::union_fields(&state.fields, &fields) {
            Ok(union) => state.fields = union,
            Err(why) => {
                self.count(None, "bad_traces", 1);
                self.dead_letter("bad_trace", &why, None, message.value.clone());
                return;
            }
        }
        let times: Vec<i64> = (first..block.len()).map(|row| block.time(row).0).collect();
        state.note_times(&times);
        self.pending.streams.insert(block.stream.clone());
        let schema = Arc::new(arrow::datatypes::Schema::new(batch.schema().fields().clone()));
        match RecordBatch::try_new(schema, batch.columns().to_vec()) {
            Ok(batch) => self.keep_rows(block.stream.as_str(), batch),
            Err(error) => {
                tracing::error!(stream = %block.stream, %error, "a trace block could not be kept")
            }
        }
    }
}

fn derived(channel: Channel, column: impl arrow::array::Array + 'static) -> (Channel, ArrayRef) {
    (channel, Arc::new(column))
}
