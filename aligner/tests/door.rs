//! Foreign bytes at the door: any of them get a verdict, none of them a panic, and nothing enters uninvited.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Agent, SECOND};
use orrery_aligner::{Admission, Door, Verdict};
use orrery_protocol::{
    BootId, Chain, Claims, Digest, HeartbeatPayload, LossPayload, MonoNanos, PayloadType, SealKey, Sealed, TaiNanos,
};
use proptest::prelude::*;

fn door(agent: &Agent) -> Door {
    let mut door = Door::new();
    door.device_mut(&agent.id).enrol(agent.key.public(), TaiNanos(0));
    door
}

fn verdict(admission: &Admission) -> Verdict {
    match admission {
        Admission::Accepted { .. } => Verdict::Accepted,
        Admission::Refused(refusal) => refusal.verdict,
        Admission::Ask(_) => Verdict::Duplicate,
    }
}

fn some_envelopes(agent: &mut Agent, count: i64) -> Vec<Sealed> {
    (0..count)
        .map(|at| agent.seal(at * SECOND, PayloadType::Log, format!("line {at}").as_bytes()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_get_a_verdict(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut door = door(&Agent::board());
        prop_assert_ne!(verdict(&door.admit(bytes)), Verdict::Accepted);
    }

    #[test]
    fn an_altered_envelope_never_enters(at in any::<prop::sample::Index>(), flip in 1u8..=255, cut in prop::option::of(any::<prop::sample::Index>())) {
        let mut agent = Agent::board();
        let mut door = door(&agent);
        let mut bytes = agent.samples(0, SECOND, 3).bytes;
        let place = at.index(bytes.len());
        bytes[place] ^= flip;
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        prop_assert_ne!(verdict(&door.admit(bytes)), Verdict::Accepted);
    }

    /// In whatever order they come and however often, each enters once, and no hole remains or appears.
    #[test]
    fn every_envelope_enters_exactly_once(order in prop::collection::vec(0usize..20, 0..120)) {
        let mut agent = Agent::board();
        let sealed = some_envelopes(&mut agent, 20);
        let mut door = door(&agent);
        let mut entered = std::collections::BTreeSet::new();
        for at in order.into_iter().chain(0..20) {
            let admitted = verdict(&door.admit(sealed[at].bytes.clone()));
            let expected = if entered.insert(at) { Verdict::Accepted } else { Verdict::Duplicate };
            prop_assert_eq!(admitted, expected);
            let chain = door.chain(&agent.id, agent.chain.boot_id()).unwrap();
            let missing: u64 = chain.gaps.iter().map(|gap| gap.last - gap.first + 1).sum();
            let top = *entered.last().unwrap() as u64;
            prop_assert_eq!(missing + entered.len() as u64, top + 1, "holes and what came make up all sequences");
        }
        let chain = door.chain(&agent.id, agent.chain.boot_id()).unwrap();
        prop_assert!(chain.gaps.is_empty());
        prop_assert_eq!(chain.breaks, 0);
    }
}

#[test]
fn foreign_payloads_under_a_good_signature_do_not_break_anything() {
    use proptest::test_runner::{TestRng, TestRunner};
    let mut runner = TestRunner::new_with_rng(
        ProptestConfig::with_cases(300),
        TestRng::deterministic_rng(prop::test_runner::RngAlgorithm::ChaCha),
    );
    let mut agent = Agent::board();
    let good = agent.samples(0, SECOND, 4);
    let mut payload = orrery_protocol::Unverified::parse(good.bytes)
        .unwrap()
        .verify(&agent.key.public())
        .unwrap()
        .payload()
        .to_vec();
    payload.truncate(4096);
    let strategy = (
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        0usize..10,
    );
    let mut engine = common::engine(&agent);
    engine.on_raw(&common::message(&agent.announce(), 0));
    let cell = std::cell::RefCell::new((engine, agent, 1u64));
    runner
        .run(&strategy, |(flips, kind)| {
            let (engine, agent, offset) = &mut *cell.borrow_mut();
            let mut foreign = payload.clone();
            for (at, value) in flips {
                let at = at.index(foreign.len());
                foreign[at] = value;
            }
            let sealed = agent.seal(SECOND, PayloadType::ALL[kind], &foreign);
            *offset += 1;
            prop_assert!(engine.on_raw(&common::message(&sealed, *offset)).is_none());
            Ok(())
        })
        .unwrap();
    let (engine, ..) = &mut *cell.borrow_mut();
    assert!(engine.seal(TaiNanos(1)).is_ok());
}

fn loss(boot_id: BootId, first: u64, last: u64, last_digest: Digest) -> LossPayload {
    LossPayload {
        boot_id,
        first,
        last,
        reason: "the disk was full".to_owned(),
        last_digest,
    }
}

fn counter(engine: &orrery_aligner::Engine, name: &str) -> String {
    let devices = engine.devices_json(TaiNanos(0));
    devices["devices"][0]["counters"][name]
        .as_str()
        .unwrap_or("0")
        .to_owned()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A good signature over the ends of every range: an answer for each, a commit and a page after them.
    #[test]
    fn extreme_claims_do_not_break_the_engine(all in prop::collection::vec(
        (edge_u64(), edge_i64(), edge_u64(), edge_u64(), edge_i64(), 0u8..4, any::<bool>()), 1..24,
    )) {
        let mut agent = Agent::board();
        let mut engine = common::engine(&agent);
        for (offset, one) in [agent.announce(), agent.probe(0)].iter().enumerate() {
            engine.on_raw(&common::message(one, offset as u64));
        }
        for (offset, (sequence, at, first, last, until, kind, other)) in all.into_iter().enumerate() {
            let own = agent.chain.boot_id();
            let boot_id = if other { BootId([0; 16]) } else { own };
            let (payload_type, payload) = match kind {
                0 => (PayloadType::Heartbeat, HeartbeatPayload {
                    clock_id: agent.host.clone(),
                    complete_until: MonoNanos(until),
                    streams: Vec::new(),
                    except: vec![(first, last), (last, first)],
                    counters: Default::default(),
                }.encode()),
                1 => (PayloadType::Loss, loss(if last % 2 == 0 { own } else { boot_id }, first, last, Digest([1; 32])).encode()),
                2 => {
                    let mut builder = orrery_protocol::SampleBuilder::new(&agent.descriptor, agent.host.clone());
                    for (stamp, received) in [(at, until), (until, at)] {
                        builder.push(Some(orrery_protocol::DeviceNanos(stamp)), MonoNanos(received), &[]);
                    }
                    let clock = orrery_protocol::ClockId::session("tclab-01", "s1");
                    (PayloadType::Samples, builder.take(Some(clock)).unwrap().encode().unwrap())
                }
                _ => (PayloadType::Log, Vec::new()),
            };
            let claims = Claims {
                device_id: agent.id.clone(),
                boot_id,
                sequence,
                timestamp: TaiNanos(at),
                payload_type,
                previous: None,
                attested: false,
            };
            let bytes = orrery_protocol::seal(&claims, &payload, &agent.key).unwrap();
            let digest = Digest::of(&bytes);
            let sealed = Sealed { claims, bytes, digest };
            if let Some(question) = engine.on_raw(&common::message(&sealed, 2 + offset as u64)) {
                engine.answer(question, None);
            }
        }
        let _ = engine.devices_json(TaiNanos(i64::MAX));
        engine.revoke(&agent.id, &agent.key.key_id(), TaiNanos(0)).unwrap();
        prop_assert!(engine.seal(TaiNanos(1)).is_ok());
    }
}

fn edge_u64() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..6, u64::MAX - 3..=u64::MAX, any::<u64>()]
}

fn edge_i64() -> impl Strategy<Value = i64> {
    prop_oneof![-3i64..3, i64::MAX - 3..=i64::MAX, i64::MIN..=i64::MIN + 3, any::<i64>()]
}

#[test]
fn the_digests_of_few_boots_are_kept_at_hand() {
    let mut agent = Agent::board();
    let mut door = door(&agent);
    let mut firsts = Vec::new();
    for random in 1..=9 {
        agent.reboot(random);
        firsts.extend(some_envelopes(&mut agent, 1));
    }
    for sealed in &firsts {
        assert_eq!(verdict(&door.admit(sealed.bytes.clone())), Verdict::Accepted);
    }
    assert!(matches!(door.admit(firsts[0].bytes.clone()), Admission::Ask(_)));
    assert!(matches!(door.admit(firsts[8].bytes.clone()), Admission::Refused(_)));
}

#[test]
fn a_boot_without_its_end_shows_an_open_hole_until_it_comes_or_is_lost() {
    let mut agent = Agent::board();
    let first = some_envelopes(&mut agent, 5);
    let boot = agent.chain.boot_id();
    agent.reboot(30);
    let second = some_envelopes(&mut agent, 2);
    let admitted = |envelopes: &[&Sealed]| {
        let mut door = door(&Agent::board());
        for sealed in envelopes {
            assert_eq!(verdict(&door.admit(sealed.bytes.clone())), Verdict::Accepted);
        }
        door
    };
    // The later boot alone says nothing: the one before may never have been ours. Then its beginning comes, then its end.
    let mut door = admitted(&[&second[0], &second[1]]);
    assert_eq!(door.open_ends(&agent.id), []);
    for sealed in &first[..3] {
        door.admit(sealed.bytes.clone());
        let open = door.open_ends(&agent.id);
        assert_eq!(open.len(), 1, "{open:?}");
        assert_eq!((open[0].0, open[0].1.first), (boot, sealed.claims.sequence + 1));
        assert!(open[0].1.from.is_some());
    }
    let explained = |digest: Digest| {
        let mut door = admitted(&[&first[0], &first[1], &first[2], &second[0]]);
        door.chain_mut(&agent.id, boot)
            .lose(&loss(boot, 3, 4, digest), TaiNanos(9));
        door.open_ends(&agent.id).is_empty()
    };
    assert!(explained(first[4].digest));
    assert!(!explained(first[3].digest), "the loss names another end");
    for sealed in &first[3..] {
        door.admit(sealed.bytes.clone());
    }
    assert_eq!(door.open_ends(&agent.id), []);
    assert_eq!(door.chain(&agent.id, boot).unwrap().breaks, 0);

    // A folder that was wiped starts over, and a second boot after the same end hides the first.
    let wiped = Chain::start(
        agent.id.clone(),
        BootId::new(common::start().plus(std::time::Duration::from_secs(90)), [9; 10]),
        None,
    )
    .seal(&agent.key, TaiNanos(0), PayloadType::Log, b"x")
    .unwrap();
    door.admit(wiped.bytes);
    assert_eq!(door.open_ends(&agent.id), []);
    let beside = BootId::new(common::start().plus(std::time::Duration::from_secs(60)), [9; 10]);
    let beside = Chain::start(agent.id.clone(), beside, Some(first[4].digest))
        .seal(&agent.key, TaiNanos(0), PayloadType::Log, b"x")
        .unwrap();
    door.admit(beside.bytes);
    assert_eq!(door.open_ends(&agent.id).len(), 1);
}

#[test]
fn what_fills_or_explains_a_hole_must_link() {
    let mut agent = Agent::board();
    let sealed = some_envelopes(&mut agent, 6);
    let boot = agent.chain.boot_id();
    let with_hole = || {
        let mut door = door(&Agent::board());
        for at in [0, 1, 4, 5] {
            door.admit(sealed[at].bytes.clone());
        }
        door
    };
    for (digest, lost, breaks) in [(sealed[3].digest, true, 0), (sealed[2].digest, false, 1)] {
        let mut door = with_hole();
        door.chain_mut(&agent.id, boot)
            .lose(&loss(boot, 2, 3, digest), TaiNanos(9));
        let chain = door.chain(&agent.id, boot).unwrap();
        assert_eq!((chain.pending().count() == 0, chain.breaks), (lost, breaks));
    }
    let mut twin = Chain::start(agent.id.clone(), boot, None);
    let forked: Vec<Sealed> = (0..4)
        .map(|_| {
            twin.seal(&agent.key, TaiNanos(0), PayloadType::Log, b"another line")
                .unwrap()
        })
        .collect();
    for (two, three, breaks) in [(&sealed, &sealed, 0), (&forked, &sealed, 2), (&forked, &forked, 2)] {
        for order in [[&two[2], &three[3]], [&three[3], &two[2]]] {
            let mut door = with_hole();
            for one in order {
                assert_eq!(verdict(&door.admit(one.bytes.clone())), Verdict::Accepted);
            }
            let chain = door.chain(&agent.id, boot).unwrap();
            assert_eq!((chain.gaps.len(), chain.breaks), (0, breaks));
        }
    }
}

#[test]
fn a_revoked_key_lets_in_only_what_belongs_before_its_revocation() {
    let mut agent = Agent::board();
    let mut engine = common::engine(&agent);
    let mut offset = 0;
    let mut send = |engine: &mut orrery_aligner::Engine, sealed: &Sealed| {
        offset += 1;
        assert!(engine.on_raw(&common::message(sealed, offset)).is_none());
    };
    let session = agent.session(3);
    for (at, sealed) in session.iter().enumerate() {
        if at != 5 {
            send(&mut engine, sealed);
        }
    }
    // A loss of a boot to come does not move the end of the real ones.
    let far = agent.seal(
        0,
        PayloadType::Loss,
        &loss(BootId([0xff; 16]), 0, 9, Digest([0; 32])).encode(),
    );
    send(&mut engine, &far);
    assert_eq!(counter(&engine, "bad_payloads"), "1");

    let key = agent.key.key_id();
    let stranger = SealKey::from_seed(&[3; 32]).key_id();
    assert!(engine.revoke(&agent.id, &stranger, TaiNanos(0)).is_err());
    assert!(engine.revoke(&agent.id, &key, TaiNanos(0)).unwrap());
    assert!(!engine.revoke(&agent.id, &key, TaiNanos(0)).unwrap(), "once is enough");
    let accepted = || (session.len() + 1).to_string();
    send(&mut engine, &session[5]);
    assert_eq!(
        (counter(&engine, "accepted"), counter(&engine, "revoked")),
        (accepted(), "0".to_owned())
    );

    send(&mut engine, &agent.heartbeat(60 * SECOND));
    for boot in [BootId([0; 16]), BootId([0xff; 16])] {
        let mut thief = Chain::start(agent.id.clone(), boot, None);
        send(
            &mut engine,
            &thief.seal(&agent.key, TaiNanos(0), PayloadType::Log, b"x").unwrap(),
        );
    }
    assert_eq!(
        (counter(&engine, "accepted"), counter(&engine, "revoked")),
        (accepted(), "3".to_owned())
    );

    let again = engine
        .enrol(&agent.id, agent.key.public(), None, None, TaiNanos(1))
        .unwrap_err();
    assert!(again.to_string().contains("was revoked"), "{again}");
    agent.key = SealKey::from_seed(&[4; 32]);
    assert!(
        engine
            .enrol(&agent.id, agent.key.public(), None, None, TaiNanos(1))
            .unwrap()
    );
    send(&mut engine, &agent.heartbeat(61 * SECOND));
    assert_eq!(counter(&engine, "accepted"), (session.len() + 2).to_string());
}
