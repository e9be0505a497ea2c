//! The bus on a real Apache Kafka: the one suite, and what only a broker can do to us.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use orrery_bus::{BusError, From, KafkaBus, KafkaConfig, Record, SaslConfig, SharedBus, Subscription, conformance};
use orrery_protocol::{ManualClock, TaiNanos};
use orrery_tests::kafka::{Kafka, PASSWORD, USER};

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(TaiNanos(1_800_000_000_000_000_000)))
}

async fn connect(address: String, config: KafkaConfig) -> Result<KafkaBus, BusError> {
    KafkaBus::connect(&[address], config, clock()).await
}

fn impatient() -> KafkaConfig {
    KafkaConfig {
        request_timeout_ms: 4_000,
        ..KafkaConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_conforms() {
    let kafka = Kafka::start();
    let open = || async {
        let connected = connect(kafka.address(), KafkaConfig::default()).await;
        Arc::new(connected.unwrap()) as SharedBus
    };
    conformance::run(open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_is_named_with_the_remedy() {
    let refused = connect("127.0.0.1:1".to_owned(), impatient()).await.err().unwrap();
    assert!(matches!(refused, BusError::Unreachable { .. }), "{refused:?}");
    let text = refused.to_string();
    assert!(
        text.contains("127.0.0.1:1") && text.contains("start the broker"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_named_and_right_ones_work() {
    let kafka = Kafka::start();
    let login = |password: &str| KafkaConfig {
        sasl: Some(SaslConfig {
            mechanism: "PLAIN".to_owned(),
            username: USER.to_owned(),
            password: password.to_owned(),
        }),
        ..impatient()
    };
    let refused = connect(kafka.sasl_address(), login("wrong")).await.err().unwrap();
    assert!(matches!(refused, BusError::Denied { .. }), "{refused:?}");
    let text = refused.to_string();
    assert!(
        text.contains(&kafka.sasl_address()) && text.contains("credentials"),
        "{text}"
    );
    assert!(!text.contains("wrong"), "the password is not printed: {text}");
    let bus = connect(kafka.sasl_address(), login(PASSWORD)).await.unwrap();
    orrery_bus::Bus::publish(&bus, "secured", vec![Record::new("k", "v")])
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_and_returns_loses_nothing_that_was_acknowledged() {
    let mut kafka = Kafka::start();
    let bus: SharedBus = Arc::new(connect(kafka.address(), KafkaConfig::default()).await.unwrap());
    let mut reader = bus.subscribe("outage", From::Earliest).await.unwrap();
    bus.publish("outage", vec![Record::new("k", "0")]).await.unwrap();
    assert_eq!(read(&mut reader, 1).await, ["0"]);
    kafka.kill();
    let during = {
        let bus = Arc::clone(&bus);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { bus.publish("outage", vec![Record::new("k", "1")]).await });
        tasks
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    tokio::task::block_in_place(|| kafka.resume());
    let published = during.join_all().await;
    assert!(
        published[0].is_ok(),
        "a publish waits for the broker to return: {published:?}"
    );
    bus.publish("outage", vec![Record::new("k", "2")]).await.unwrap();
    assert_eq!(read(&mut reader, 2).await, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_without_a_broker_fails_in_time_and_says_where() {
    let mut kafka = Kafka::start();
    let config = KafkaConfig {
        publish_timeout_ms: 2_000,
        ..impatient()
    };
    let bus = connect(kafka.address(), config).await.unwrap();
    orrery_bus::Bus::publish(&bus, "gone", vec![Record::new("k", "0")])
        .await
        .unwrap();
    kafka.kill();
    let before = Instant::now();
    let refused = orrery_bus::Bus::publish(&bus, "gone", vec![Record::new("k", "1")])
        .await
        .unwrap_err();
    assert!(refused.to_string().contains(&kafka.address()), "{refused}");
    assert!(matches!(refused, BusError::Unreachable { .. }), "{refused:?}");
    assert!(before.elapsed() < Duration::from_secs(15));
    let before = Instant::now();
    drop(bus);
    assert!(
        before.elapsed() < Duration::from_millis(200),
        "closing a client never holds up an async thread"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_lies_in_the_partition_that_java_clients_choose() {
    let kafka = Kafka::start();
    let config = KafkaConfig {
        partitions: 12,
        ..KafkaConfig::default()
    };
    let bus = connect(kafka.address(), config).await.unwrap();
    for key in ["tclab-01", "chamber-ctl", "power-meter", "room-sensor", "a", "21"] {
        let at = orrery_bus::Bus::publish(&bus, "partitioned", vec![Record::new(key, "")])
            .await
            .unwrap();
        assert_eq!(at[0].partition, (murmur2(key.as_bytes()) & 0x7fff_ffff) % 12, "{key}");
    }
}

/// `org.apache.kafka.common.utils.Utils.murmur2`, whose own test gives murmur2("21") = -973932308.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c_u32 ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, byte| (tail << 8) | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[test]
fn the_reference_hash_is_java_s() {
    assert_eq!(murmur2(b"21") as i32, -973_932_308);
    assert_eq!(murmur2(b"foobar") as i32, -790_332_482);
}

async fn read(reader: &mut Box<dyn Subscription>, count: usize) -> Vec<String> {
    let mut got = Vec::new();
    while got.len() < count {
        let batch = tokio::time::timeout(Duration::from_secs(30), reader.next())
            .await
            .expect("records arrive")
            .unwrap();
        got.extend(
            batch
                .iter()
                .map(|message| String::from_utf8_lossy(&message.value).into_owned()),
        );
    }
    got
}
