//! Properties of what crosses between parties, and the frozen bytes of version 1.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, Float64Array};
use arrow_schema::{DataType, Field};
use orrery_protocol::*;
use proptest::prelude::*;

fn key() -> SealKey {
    SealKey::from_seed(&[7; 32])
}

fn start() -> TaiNanos {
    TaiNanos::parse_rfc3339("2026-11-21T14:32:07.4Z").unwrap()
}

fn chain() -> Chain {
    let boot = BootId::new(start(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    Chain::start(DeviceId::new("tclab-01").unwrap(), boot, None)
}

fn descriptor() -> Descriptor {
    Descriptor {
        stream: StreamId::new("tclab-01/board").unwrap(),
        version: 1,
        title: "TCLab board".to_owned(),
        protocol: "serial".to_owned(),
        channels: vec![
            Channel::f64("t1", "Cel"),
            Channel::f64("q1", "%"),
            Channel::text("note"),
        ],
        nominal_rate_hz: Some(10.0),
        droppable: false,
        max_silence_ms: Some(2_000),
        calibration: None,
    }
}

fn block() -> SampleBlock {
    let clock = ClockId::host("3f2a");
    let mut builder = SampleBuilder::new(&descriptor(), clock);
    builder.push(
        None,
        MonoNanos(1_000),
        &[Value::Float(43.457), Value::Float(30.0), Value::Text("on".to_owned())],
    );
    builder.push(
        Some(DeviceNanos(5)),
        MonoNanos(2_000),
        &[Value::Float(f64::NAN), Value::Null],
    );
    builder.take(Some(ClockId::session("tclab-01", "s1"))).unwrap()
}

fn aligned(stream: &str, times: &[i64], watermark: i64) -> AlignedBlock {
    let values: ArrayRef = Arc::new(Float64Array::from(times.iter().map(|t| *t as f64).collect::<Vec<_>>()));
    let count = times.len();
    let batch = AlignedBlock::batch(
        times.to_vec(),
        vec![10; count],
        BootId([3; 16]),
        vec![9; count],
        (0..count as u32).collect(),
        vec![(Arc::new(Field::new("t1", DataType::Float64, true)), values)],
    )
    .unwrap();
    AlignedBlock {
        stream: StreamId::new(stream).unwrap(),
        descriptor: descriptor().digest(),
        revision: 4,
        watermark: TaiNanos(watermark),
        asymmetry_nanos: 50,
        extra: [("orrery.frontier".to_owned(), "x".to_owned())].into(),
        batch,
    }
}

/// Compares with the committed bytes; with `ORRERY_BLESS=1` writes them, for a deliberate format change.
fn frozen(name: &str, bytes: &[u8]) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    if std::env::var_os("ORRERY_BLESS").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    let expected = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(
        expected == bytes,
        "{name}: the bytes differ from version 1; a format change needs a new version"
    );
}

#[test]
fn the_bytes_of_version_1_are_frozen() {
    let mut chain = chain();
    let first = chain
        .seal(&key(), start(), PayloadType::Descriptor, &descriptor().encode())
        .unwrap();
    let second = chain.seal(&key(), start(), PayloadType::Samples, b"payload").unwrap();
    frozen("envelope-v1.cbor", &first.bytes);
    frozen("envelope-next-v1.cbor", &second.bytes);
    frozen("samples-v1.arrow", &block().encode().unwrap());
    frozen("cose-key-v1.cbor", &key().public().to_cose_key());
    let command = Command {
        id: "c-1".to_owned(),
        device: DeviceId::new("tclab-01").unwrap(),
        channel: "q1".to_owned(),
        value: 45.0,
        issuer: "operator".to_owned(),
        issuer_epoch: 2,
        issuer_sequence: 7,
        apply_by: start().plus(Duration::from_secs(5)),
        hold_until: None,
    };
    frozen("command-v1.cbor", &seal_command(&command, &key()));
    let record = Record {
        kind: RecordKind::Model,
        subject: vec![Subject {
            name: "tclab.mo".to_owned(),
            sha256: Digest::of(b"model"),
        }],
        predicate: serde_json::json!({"version": "1"}),
        at: start(),
    };
    frozen("record-v1.json", &record.encode());
    assert_eq!(Record::decode(&record.encode()).unwrap(), record);
}

#[test]
fn a_chain_links_and_verifies() {
    let mut chain = chain();
    let first = chain.seal(&key(), start(), PayloadType::Log, b"one").unwrap();
    let second = chain.seal(&key(), start(), PayloadType::Log, b"two").unwrap();
    assert_eq!((first.claims.sequence, first.claims.previous), (0, None));
    assert_eq!(
        (second.claims.sequence, second.claims.previous),
        (1, Some(first.digest))
    );
    let verified = Unverified::parse(second.bytes.clone())
        .unwrap()
        .verify(&key().public())
        .unwrap();
    assert_eq!(verified.payload(), b"two");
    assert_eq!(verified.bytes(), second.bytes);
    assert_eq!(verified.digest(), Digest::of(&second.bytes));

    let other = SealKey::from_seed(&[8; 32]).public();
    let (error, back) = *Unverified::parse(second.bytes.clone())
        .unwrap()
        .verify(&other)
        .unwrap_err();
    assert!(matches!(error, EnvelopeError::WrongKey { .. }));
    assert_eq!(back.bytes(), second.bytes);
}

#[test]
fn too_large_a_payload_is_refused_and_the_chain_stands() {
    let mut chain = chain();
    let error = chain
        .seal(&key(), start(), PayloadType::Log, &vec![0; MAX_PAYLOAD + 1])
        .unwrap_err();
    assert_eq!(
        error,
        EnvelopeError::TooLarge {
            length: MAX_PAYLOAD + 1
        }
    );
    let largest = chain
        .seal(&key(), start(), PayloadType::Log, &vec![0; MAX_PAYLOAD])
        .unwrap();
    assert_eq!(largest.claims.sequence, 0);
    assert!(largest.bytes.len() <= MAX_ENVELOPE);
    assert!(Unverified::parse(largest.bytes).is_ok());
}

#[test]
fn blocks_keep_every_value() {
    let block = block();
    let back = SampleBlock::decode(&block.encode().unwrap()).unwrap();
    assert_eq!(
        (&back.stream, back.descriptor, &back.clock_id),
        (&block.stream, block.descriptor, &block.clock_id)
    );
    assert_eq!(back.device_time(0), None);
    assert_eq!(back.device_time(1), Some(DeviceNanos(5)));
    assert_eq!(back.received(1), MonoNanos(2_000));
    assert!(back.check(&descriptor()).is_ok());

    let aligned = aligned("tclab-01/board", &[10, 20], 21);
    let back = AlignedBlock::decode(&aligned.encode().unwrap()).unwrap();
    assert_eq!(back.key(1), aligned.key(1));
    assert_eq!(
        (back.watermark, back.revision, &back.extra),
        (aligned.watermark, 4, &aligned.extra)
    );
    assert_eq!(back.value("t1", 1), Some(20.0));
    assert_eq!(back.channels().map(|(name, _)| name).collect::<Vec<_>>(), ["t1"]);
}

#[test]
fn a_block_that_contradicts_its_descriptor_names_the_column() {
    let mut descriptor = descriptor();
    descriptor.channels[1].name = "q2".to_owned();
    let error = block().check(&descriptor).unwrap_err().to_string();
    assert!(error.contains("`q1` is not in the descriptor"), "{error}");
    let mut twice = block();
    let columns = [0, 1, 2, 2].map(|at| twice.batch.column(at).clone()).to_vec();
    let fields = [0, 1, 2, 2].map(|at| twice.batch.schema().field(at).clone()).to_vec();
    twice.batch = arrow_array::RecordBatch::try_new(Arc::new(arrow_schema::Schema::new(fields)), columns).unwrap();
    let error = twice.check(&descriptor).unwrap_err().to_string();
    assert!(error.contains("`t1` is there twice"), "{error}");
    descriptor.channels[0].name = "time".to_owned();
    assert!(descriptor.check().unwrap_err().to_string().contains("`time`"));
}

#[test]
fn a_command_is_verified_before_it_is_one() {
    let command = Command {
        id: "c-1".to_owned(),
        device: DeviceId::new("tclab-01").unwrap(),
        channel: "q1".to_owned(),
        value: 45.0,
        issuer: "operator".to_owned(),
        issuer_epoch: 2,
        issuer_sequence: 7,
        apply_by: start(),
        hold_until: Some(start()),
    };
    let sealed = seal_command(&command, &key());
    assert_eq!(*verify_command(&sealed, &key().public()).unwrap(), command);
    assert!(verify_command(&sealed, &SealKey::from_seed(&[8; 32]).public()).is_err());
    // An envelope is not a command, however well it is signed.
    let envelope = chain()
        .seal(&key(), start(), PayloadType::Log, &command.encode())
        .unwrap();
    assert!(verify_command(&envelope.bytes, &key().public()).is_err());
}

#[test]
fn the_digest_sees_content_and_order_but_not_batches_or_revisions() {
    let whole = aligned("a/b", &[10, 20, 30], 31);
    let digest = |parts: &[(&AlignedBlock, usize, usize)]| {
        let mut digest = ReplayDigest::new();
        for (block, first, count) in parts {
            digest.rows(block.stream.as_str(), &block.batch, *first, *count);
        }
        digest.finish()
    };
    let mut later = whole.clone();
    later.revision = 99;
    assert_eq!(digest(&[(&whole, 0, 3)]), digest(&[(&whole, 0, 1), (&later, 1, 2)]));
    assert_ne!(digest(&[(&whole, 0, 3)]), digest(&[(&whole, 0, 2)]));
    assert_ne!(
        digest(&[(&whole, 0, 1), (&whole, 1, 1)]),
        digest(&[(&whole, 1, 1), (&whole, 0, 1)])
    );
    let other = aligned("a/c", &[10, 20, 30], 31);
    assert_ne!(digest(&[(&whole, 0, 3)]), digest(&[(&other, 0, 3)]));
}

proptest! {
    #[test]
    fn one_flipped_bit_is_never_accepted(at in 0usize..4096, bit in 0u8..8) {
        let sealed = chain().seal(&key(), start(), PayloadType::Log, b"a payload worth protecting").unwrap();
        let mut bytes = sealed.bytes.clone();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let accepted = Unverified::parse(bytes).ok().and_then(|envelope| envelope.verify(&key().public()).ok());
        prop_assert!(accepted.is_none());
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Unverified::parse(bytes.clone());
        let _ = SampleBlock::decode(&bytes);
        let _ = AlignedBlock::decode(&bytes);
        let _ = verify_command(&bytes, &key().public());
        let _ = (ClockPayload::decode(&bytes), HeartbeatPayload::decode(&bytes), Descriptor::decode(&bytes));
        let _ = Record::decode(&bytes);
    }

    #[test]
    fn damaged_blocks_never_panic(flips in prop::collection::vec((0usize..4096, any::<u8>()), 1..6), cut in 0usize..4096) {
        for good in [block().encode().unwrap(), aligned("a/b", &[1, 2, 3], 4).encode().unwrap()] {
            let mut bytes = good;
            for (at, value) in &flips {
                let at = at % bytes.len();
                bytes[at] = *value;
            }
            let _ = (SampleBlock::decode(&bytes), AlignedBlock::decode(&bytes));
            bytes.truncate(cut % bytes.len());
            let _ = (SampleBlock::decode(&bytes), AlignedBlock::decode(&bytes));
        }
    }

    /// Whatever stands where the two times belong, the block is refused by name or reads without a panic.
    #[test]
    fn a_block_with_other_columns_is_refused(
        order in Just((0usize..5).collect::<Vec<_>>()).prop_shuffle(),
        keep in 0usize..=5,
        cast in prop::option::of((0usize..5, prop::sample::select(vec![DataType::Utf8, DataType::Float64, DataType::Int64]))),
    ) {
        let mut altered = block();
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for at in order.iter().take(keep).copied() {
            let (field, column) = (altered.batch.schema().field(at).clone(), altered.batch.column(at).clone());
            match &cast {
                Some((changed, kind)) if *changed == at => {
                    fields.push(field.with_data_type(kind.clone()).with_nullable(true));
                    columns.push(arrow_array::new_null_array(kind, column.len()));
                }
                _ => {
                    fields.push(field);
                    columns.push(column);
                }
            }
        }
        let schema = Arc::new(arrow_schema::Schema::new(fields.clone()));
        let rows = arrow_array::RecordBatchOptions::new().with_row_count(Some(2));
        altered.batch = arrow_array::RecordBatch::try_new_with_options(schema, columns, &rows).unwrap();
        let stands = |at: usize, name: &str| {
            fields.get(at).is_some_and(|field| field.name() == name && *field.data_type() == DataType::Int64)
        };
        let nulls = cast.is_some_and(|(changed, _)| changed == 1);
        match SampleBlock::decode(&altered.encode().unwrap()) {
            Ok(back) => {
                prop_assert!(stands(0, "device_time") && stands(1, "received") && !nulls);
                let _ = (back.device_time(1), back.received(1), back.check(&descriptor()));
            }
            Err(error) => {
                let named = error.to_string();
                prop_assert!(named.contains("`device_time`") || named.contains("`received`"), "{}", named);
                prop_assert!(!(stands(0, "device_time") && stands(1, "received")) || nulls);
            }
        }
    }
}
