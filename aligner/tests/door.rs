//! Foreign bytes at the door: any of them get a verdict, none of them a panic, and nothing enters uninvited.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Agent, SECOND};
use orrery_aligner::{Admission, Door, Verdict};
use orrery_protocol::{PayloadType, Sealed, TaiNanos};
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
