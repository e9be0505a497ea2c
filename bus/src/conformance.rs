//! What every bus promises, as one suite. A test gives it a way to open the bus, again and again, on the
//! same data; see `bus/tests/journal_conformance.rs` and `tests/tests/bus_kafka.rs`.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::{BusError, From, MAX_RECORD_BYTES, Message, Position, Record, SharedBus, Subscription};

/// Longer than any healthy step takes; a bus that hangs fails the suite instead of stopping it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough for an uninvited record to show up.
const SILENCE: Duration = Duration::from_millis(300);

/// Runs the whole suite. `open` opens the bus on the same data each time; the suite drops the last one before.
///
/// # Panics
/// At the first promise that is not kept.
pub async fn run<F, Fut>(open: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = SharedBus>,
{
    acknowledged_records_survive_unaltered(&open).await;
    groups_resume_where_they_committed(&open).await;
    let bus = open().await;
    keys_keep_their_order_among_concurrent_publishers(&bus).await;
    a_reader_resumes_at_its_offsets(&bus).await;
    a_reader_beyond_the_end_starts_over(&bus).await;
    latest_sees_only_what_comes_after(&bus).await;
    big_records_pass_and_too_big_ones_are_refused(&bus).await;
    a_dropped_wait_loses_nothing(&bus).await;
    ends_are_next_offsets(&bus).await;
    bad_names_are_refused(&bus).await;
}

async fn acknowledged_records_survive_unaltered<F, Fut>(open: &F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = SharedBus>,
{
    let topic = "conformance.durable";
    let headers = |n: usize| {
        vec![
            ("ce_id".to_owned(), n.to_string()),
            ("ce_id".to_owned(), "é ∑".to_owned()),
        ]
    };
    let every_byte: Vec<u8> = (0..=255).collect();
    let sent = vec![
        Record::new("a", every_byte).with_headers(headers(0)),
        Record::new("a", ""),
        Record::new(vec![0xFF, 0x00], "binary key").with_headers(headers(2)),
        Record::new("a", "last"),
    ];
    let bus = open().await;
    let positions = publish(&bus, topic, sent.clone()).await;
    assert_eq!(positions.len(), sent.len());
    drop(bus);
    let bus = open().await;
    let mut reader = subscribe(&bus, topic, From::Earliest).await;
    let got = read(&mut reader, sent.len()).await;
    for (record, position) in sent.iter().zip(&positions) {
        let message = got
            .iter()
            .find(|message| at(message) == *position)
            .expect("every position is read back");
        assert_eq!(message.topic, topic);
        assert_eq!(message.key, record.key);
        assert_eq!(message.headers, record.headers);
        assert_eq!(message.value, record.value);
        assert!(message.appended.0 > 0, "a record carries when it was appended");
    }
    assert_silent(&mut reader).await;
}

async fn groups_resume_where_they_committed<F, Fut>(open: &F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = SharedBus>,
{
    let topic = "conformance.groups";
    let bus = open().await;
    publish(&bus, topic, numbered("k", 0..10)).await;
    assert_eq!(bus.committed("first", topic).await.expect("committed answers"), []);
    let mut reader = subscribe(&bus, topic, From::Group("first".to_owned())).await;
    let got = read(&mut reader, 10).await;
    let resume = got[3].next_position();
    bus.commit("first", topic, got[1].next_position())
        .await
        .expect("a commit is stored");
    bus.commit("first", topic, resume)
        .await
        .expect("a later commit is stored");
    drop(reader);
    drop(bus);
    let bus = open().await;
    assert_eq!(
        bus.committed("first", topic).await.expect("committed answers"),
        [resume]
    );
    let mut reader = subscribe(&bus, topic, From::Group("first".to_owned())).await;
    assert_eq!(
        texts(&read(&mut reader, 6).await),
        (4..10).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    assert_silent(&mut reader).await;
    let mut other = subscribe(&bus, topic, From::Group("second".to_owned())).await;
    assert_eq!(
        read(&mut other, 10).await.len(),
        10,
        "another group starts at the oldest record"
    );
}

async fn keys_keep_their_order_among_concurrent_publishers(bus: &SharedBus) {
    let topic = "conformance.order";
    let publishers = (0..8).map(|publisher| async move {
        for start in (0..60).step_by(3) {
            publish(bus, topic, numbered(&format!("key-{publisher}"), start..start + 3)).await;
        }
    });
    join_all(publishers).await;
    let mut reader = subscribe(bus, topic, From::Earliest).await;
    let got = read(&mut reader, 8 * 60).await;
    let mut by_key: BTreeMap<Bytes, Vec<String>> = BTreeMap::new();
    let mut by_partition: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for message in &got {
        by_key
            .entry(message.key.clone())
            .or_default()
            .extend(texts(std::slice::from_ref(message)));
        by_partition.entry(message.partition).or_default().push(message.offset);
    }
    assert_eq!(by_key.len(), 8);
    for (key, values) in by_key {
        assert_eq!(values, (0..60).map(|n| n.to_string()).collect::<Vec<_>>(), "{key:?}");
    }
    for offsets in by_partition.values() {
        assert!(
            offsets.windows(2).all(|pair| pair[0] < pair[1]),
            "offsets rise strictly"
        );
    }
    assert_silent(&mut reader).await;
}

async fn a_reader_resumes_at_its_offsets(bus: &SharedBus) {
    let topic = "conformance.resume";
    let records: Vec<Record> = (0..40)
        .flat_map(|n| numbered(&format!("key-{}", n % 5), n..n + 1))
        .collect();
    publish(bus, topic, records).await;
    let mut reader = subscribe(bus, topic, From::Earliest).await;
    let all = read(&mut reader, 40).await;
    let (before, after) = all.split_at(17);
    let mut resume: BTreeMap<u32, u64> = BTreeMap::new();
    before.iter().for_each(|message| {
        resume.insert(message.partition, message.offset + 1);
    });
    let positions = resume
        .iter()
        .map(|(&partition, &offset)| Position { partition, offset })
        .collect();
    let mut reader = subscribe(bus, topic, From::Offsets(positions)).await;
    let mut rest = read(&mut reader, after.len()).await;
    let mut expected = after.to_vec();
    rest.sort_by_key(at);
    expected.sort_by_key(at);
    assert_eq!(rest, expected);
    let stray = vec![Position {
        partition: 9_999,
        offset: 0,
    }];
    let refused = bus.subscribe(topic, From::Offsets(stray)).await;
    assert!(matches!(
        refused.err(),
        Some(BusError::NoPartition { partition: 9_999, .. })
    ));
}

/// A topic that lost records takes offsets again that its readers have passed: they must not wait there.
async fn a_reader_beyond_the_end_starts_over(bus: &SharedBus) {
    let topic = "conformance.beyond";
    let published = publish(bus, topic, numbered("k", 0..3)).await;
    let partition = published.last().expect("three were published").partition;
    let beyond = Position { partition, offset: 900 };
    bus.commit("beyond", topic, beyond).await.expect("a commit is stored");
    for from in [From::Offsets(vec![beyond]), From::Group("beyond".to_owned())] {
        let mut reader = subscribe(bus, topic, from).await;
        assert_eq!(texts(&read(&mut reader, 3).await), ["0", "1", "2"]);
    }
}

async fn latest_sees_only_what_comes_after(bus: &SharedBus) {
    let topic = "conformance.latest";
    publish(bus, topic, numbered("k", 0..5)).await;
    let mut reader = subscribe(bus, topic, From::Latest).await;
    assert_silent(&mut reader).await;
    publish(bus, topic, numbered("k", 5..8)).await;
    assert_eq!(texts(&read(&mut reader, 3).await), ["5", "6", "7"]);
}

async fn big_records_pass_and_too_big_ones_are_refused(bus: &SharedBus) {
    let topic = "conformance.big";
    let value = |len: usize| -> Vec<u8> { (0..len).map(|i| (i * 31 % 251) as u8).collect() };
    let sizes = [512 * 1024, 2 * 1024 * 1024, MAX_RECORD_BYTES - 64];
    for size in sizes {
        publish(bus, topic, vec![Record::new("k", value(size))]).await;
    }
    let too_big = vec![Record::new("k", "first"), Record::new("k", value(MAX_RECORD_BYTES))];
    let refused = bus.publish(topic, too_big).await;
    assert!(matches!(refused, Err(BusError::TooLarge { .. })), "{refused:?}");
    let mut reader = subscribe(bus, topic, From::Earliest).await;
    for (message, size) in read(&mut reader, sizes.len()).await.iter().zip(sizes) {
        assert!(message.value == value(size), "a record of {size} bytes is unaltered");
    }
    assert_silent(&mut reader).await;
}

async fn a_dropped_wait_loses_nothing(bus: &SharedBus) {
    let topic = "conformance.waits";
    let mut reader = subscribe(bus, topic, From::Earliest).await;
    let publisher = async {
        for n in 0..30 {
            publish(bus, topic, numbered("k", n..n + 1)).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let impatient = async {
        let mut got = Vec::new();
        while got.len() < 30 {
            if let Ok(batch) = tokio::time::timeout(Duration::from_micros(500), reader.next()).await {
                got.extend(batch.expect("the topic can be read"));
            }
        }
        got
    };
    let both = async { tokio::join!(publisher, impatient).1 };
    let got = tokio::time::timeout(PATIENCE, both)
        .await
        .expect("nothing is lost to dropped waits");
    assert_eq!(texts(&got), (0..30).map(|n| n.to_string()).collect::<Vec<_>>());
}

async fn ends_are_next_offsets(bus: &SharedBus) {
    let topic = "conformance.ends";
    let before = bus.end(topic).await.expect("an empty topic has an end");
    assert!(before.iter().all(|position| position.offset == 0), "{before:?}");
    let published = publish(bus, topic, numbered("k", 0..3)).await;
    let last = published.last().expect("three were published");
    let after = bus.end(topic).await.expect("the end is known");
    let end = after
        .iter()
        .find(|position| position.partition == last.partition)
        .expect("the partition is there");
    assert_eq!(end.offset, last.offset + 1);
    assert_eq!(publish(bus, topic, Vec::new()).await, []);
}

async fn bad_names_are_refused(bus: &SharedBus) {
    for name in ["", "..", "a/b", ".groups", "a b", "a@b"] {
        let refused = bus.publish(name, numbered("k", 0..1)).await;
        assert!(
            matches!(refused, Err(BusError::BadName { .. })),
            "{name:?}: {refused:?}"
        );
        let refused = bus
            .commit(
                name,
                "conformance.ends",
                Position {
                    partition: 0,
                    offset: 0,
                },
            )
            .await;
        assert!(
            matches!(refused, Err(BusError::BadName { .. })),
            "{name:?}: {refused:?}"
        );
    }
}

fn numbered(key: &str, numbers: std::ops::Range<usize>) -> Vec<Record> {
    numbers.map(|n| Record::new(key.to_owned(), n.to_string())).collect()
}

fn texts(messages: &[Message]) -> Vec<String> {
    messages
        .iter()
        .map(|message| String::from_utf8_lossy(&message.value).into_owned())
        .collect()
}

fn at(message: &Message) -> Position {
    Position {
        partition: message.partition,
        offset: message.offset,
    }
}

async fn publish(bus: &SharedBus, topic: &str, records: Vec<Record>) -> Vec<Position> {
    let published = tokio::time::timeout(PATIENCE, bus.publish(topic, records)).await;
    published
        .expect("publish answers in time")
        .expect("records are published")
}

async fn subscribe(bus: &SharedBus, topic: &str, from: From) -> Box<dyn Subscription> {
    let subscribed = tokio::time::timeout(PATIENCE, bus.subscribe(topic, from)).await;
    subscribed
        .expect("subscribe answers in time")
        .expect("a topic can be subscribed")
}

/// Reads exactly `count` messages.
async fn read(reader: &mut Box<dyn Subscription>, count: usize) -> Vec<Message> {
    let mut got = Vec::new();
    while got.len() < count {
        let batch = tokio::time::timeout(PATIENCE, reader.next()).await;
        let batch = batch.unwrap_or_else(|_| panic!("only {} of {count} records arrived", got.len()));
        let batch = batch.expect("the topic can be read");
        assert!(!batch.is_empty(), "a batch is never empty");
        got.extend(batch);
    }
    assert_eq!(got.len(), count, "nothing arrives uninvited");
    got
}

async fn assert_silent(reader: &mut Box<dyn Subscription>) {
    let uninvited = tokio::time::timeout(SILENCE, reader.next()).await;
    assert!(uninvited.is_err(), "nothing arrives uninvited: {uninvited:?}");
}
