//! Clock estimation against simulated truth: error, and how often the stated 95 % interval holds the truth.

#![allow(clippy::unwrap_used)]

mod common;
mod simulated;

use std::io::Write;

use orrery_aligner::clocks::{ClockFilter, OneWay, StampOutcome, WaveOutcome};
use orrery_protocol::{
    AlignedBlock, ClockId, ClockPayload, DeviceNanos, MonoNanos, PayloadType, Probe, SampleBuilder, TaiNanos, Value,
    topics,
};
use proptest::prelude::*;
use simulated::{EPOCH, ONE_WAY, OneWayScenario, Run, SCENARIOS, SECOND, Scenario, Score, quantile};

/// What the filter says at each sample: by the waves that were over by then, as a live sample is aligned.
fn estimates(run: &Run) -> Vec<(i64, f64, f64)> {
    let mut waves = run.waves.iter().peekable();
    let mut filter: Option<ClockFilter> = None;
    run.samples
        .iter()
        .map(|&(host, other)| {
            while let Some(wave) = waves.next_if(|wave| wave.iter().all(|probe| probe.t3 <= host)) {
                match &mut filter {
                    None => filter = ClockFilter::start(wave),
                    Some(filter) => drop(filter.observe(wave)),
                }
            }
            let estimate = filter.as_ref().unwrap().other_from_host(host);
            (host, (estimate.nanos - other) as f64, estimate.sd_nanos)
        })
        .collect()
}

fn score(index: usize, scenario: &Scenario, seeds: std::ops::Range<u64>) -> Score {
    let mut score = Score::default();
    for seed in seeds {
        score.add(&estimates(&scenario.run(seed * 1_000 + index as u64)));
    }
    score
}

fn print_row(name: &str, score: &Score) {
    let (share, error) = score.coverage();
    println!(
        "| {name} | {:.1}, {:.1} | {:.1} ± {:.1} % | ± {:.1} | {:.0} s |",
        quantile(&score.errors, 0.5) / 1e3,
        quantile(&score.errors, 0.95) / 1e3,
        share * 100.0,
        error * 100.0,
        1.96 * quantile(&score.deviations, 0.5) / 1e3,
        quantile(&score.settled, 0.5)
    );
}

/// Seeds that the filter's constants were not chosen on (those were 1 to 60). Pooled, the interval holds 93–97 %; a scenario alone may
/// be off by what its oscillator or network differs from the model, and by three standard errors of its runs.
#[test]
fn the_stated_interval_holds_the_truth_and_the_error_is_small() {
    let mut shares = Vec::new();
    for (index, scenario) in SCENARIOS.iter().enumerate() {
        let score = score(index, scenario, 20_000..20_040);
        print_row(scenario.name, &score);
        let (share, error) = score.coverage();
        let band = 0.93 - 3.0 * error..=0.98 + 3.0 * error;
        assert!(band.contains(&share), "{}: the interval holds {share}", scenario.name);
        // Half the mean delay of an exponential way is what the best probe of a wave is off by at most, most of the time.
        let median = quantile(&score.errors, 0.5);
        assert!(median < 500_000.0, "{}: median error {median} ns", scenario.name);
        shares.push(share);
    }
    let pooled = shares.iter().sum::<f64>() / shares.len() as f64;
    assert!((0.93..=0.97).contains(&pooled), "pooled, the interval holds {pooled}");
}

#[test]
#[ignore = "prints the table of docs/benchmarks.md and writes the runs for tests/references/clocks.py"]
fn scores_beside_pyxdf() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("clock-runs");
    std::fs::create_dir_all(&folder).unwrap();
    for (index, scenario) in SCENARIOS.iter().enumerate() {
        let file = folder.join(format!("{index:02} {}.runs", scenario.name));
        let mut out = std::io::BufWriter::new(std::fs::File::create(file).unwrap());
        for seed in 7_000..7_200 {
            scenario.run(seed * 1_000 + index as u64).write(&mut out).unwrap();
        }
        out.flush().unwrap();
        print_row(scenario.name, &score(index, scenario, 7_000..7_200));
    }
    for (index, scenario) in ONE_WAY.iter().enumerate() {
        print_row(scenario.name, &one_way_score(index, scenario, 7_000..7_200));
    }
    println!("{}", folder.display());
}

fn one_way_score(index: usize, scenario: &OneWayScenario, seeds: std::ops::Range<u64>) -> Score {
    let mut score = Score::default();
    for seed in seeds {
        let pairs = scenario.run(seed * 1_000 + 500 + index as u64);
        let mut model = OneWay::start(pairs[0].0, pairs[0].1);
        let mut samples = Vec::new();
        for (at, &(stamp, received, least)) in pairs.iter().enumerate().skip(1) {
            assert_eq!(
                model.observe(stamp, received),
                StampOutcome::Believed,
                "{}",
                scenario.name
            );
            model.settle();
            if at % 7 == 0 && stamp > 60 * SECOND {
                let estimate = model.line().forward(stamp);
                samples.push((stamp, (estimate.nanos - least) as f64, estimate.sd_nanos));
            }
        }
        score.add(&samples);
    }
    score
}

/// One-way intervals are upper bounds: how rare the least delay is cannot be told from the stamps.
#[test]
fn one_way_follows_the_lower_envelope() {
    for (index, scenario) in ONE_WAY.iter().enumerate() {
        let score = one_way_score(index, scenario, 20_000..20_010);
        print_row(scenario.name, &score);
        let (share, error) = score.coverage();
        let (median, half) = (quantile(&score.errors, 0.5), 1.96 * quantile(&score.deviations, 0.5));
        assert!(
            share > 0.93 - 3.0 * error,
            "{}: the interval holds {share}",
            scenario.name
        );
        assert!(median < 50_000.0, "{}: median error {median} ns", scenario.name);
        assert!(
            half < 150_000.0,
            "{}: an interval of ± {half} ns says nothing",
            scenario.name
        );
    }
}

/// Eight probes of a clock that runs 10 ppm fast, over a path with little queueing.
fn wave(at: i64, slow: i64) -> Vec<Probe> {
    let other_from_host = |host: i64| host + EPOCH + host / 100_000;
    (0..8)
        .map(|n: i64| {
            let t0 = at + n * 2_000_000;
            let (there, back) = (200_000 + slow + n * 37 % 11 * 9_001, 200_000 + n * 53 % 7 * 11_003);
            let (t1, t2) = (other_from_host(t0 + there), other_from_host(t0 + there + 20_000));
            Probe {
                t0,
                t1,
                t2,
                t3: t0 + there + 20_000 + back,
            }
        })
        .collect()
}

#[test]
fn asymmetry_is_bounded_beside_the_uncertainty() {
    let scenario = SCENARIOS.iter().find(|one| one.base.0 != one.base.1).unwrap();
    let mut filter: Option<ClockFilter> = None;
    for wave in &scenario.run(20_000).waves {
        match &mut filter {
            None => filter = ClockFilter::start(wave),
            Some(filter) => drop(filter.observe(wave)),
        }
    }
    let bound = filter.unwrap().asymmetry_nanos();
    let (hidden, half_least) = (
        (scenario.base.0 - scenario.base.1) / 2,
        (scenario.base.0 + scenario.base.1) / 2,
    );
    assert!(hidden <= bound, "{bound} does not bound {hidden}");
    assert!(
        (half_least..half_least + 500_000).contains(&bound),
        "the bound is half the least round trip: {bound}"
    );
}

#[test]
fn a_step_is_doubted_once_then_believed_and_keeps_the_frequency() {
    let mut filter = ClockFilter::start(&wave(0, 0)).unwrap();
    for at in 1..40 {
        assert_eq!(filter.observe(&wave(at * 10 * SECOND, 0)), WaveOutcome::Updated);
    }
    let before = filter.other_from_host(401 * SECOND);
    assert_eq!(filter.observe(&wave(400 * SECOND, 80_000_000)), WaveOutcome::Updated);
    let after = filter.other_from_host(401 * SECOND);
    let moved = (after.nanos - before.nanos).abs();
    assert!(
        moved < 20_000,
        "a wave that queued for 80 ms moved the clock by {moved} ns"
    );

    let stepped = |at: i64| {
        let mut wave = wave(at * SECOND, 0);
        for probe in &mut wave {
            probe.t1 += SECOND;
            probe.t2 += SECOND;
        }
        wave
    };
    assert_eq!(filter.observe(&stepped(410)), WaveOutcome::JumpSuspected);
    let doubted = filter.other_from_host(411 * SECOND).sd_nanos;
    assert!(
        1.96 * doubted > SECOND as f64,
        "in doubt both places are possible: {doubted}"
    );
    assert_eq!(filter.observe(&stepped(420)), WaveOutcome::Reset);
    let (drift, sd) = filter.line().drift_ppb();
    assert!((drift - 10_000.0).abs() < 100.0 && sd < 2_000.0, "{drift} ± {sd} ppb");
    let error = filter.other_from_host(421 * SECOND).nanos - (421 * SECOND + EPOCH + 421 * SECOND / 100_000) - SECOND;
    assert!(error.abs() < 200_000, "{error}");
}

#[test]
fn one_glitch_is_forgotten() {
    let mut filter = ClockFilter::start(&wave(0, 0)).unwrap();
    for at in 1..40 {
        filter.observe(&wave(at * 10 * SECOND, 0));
    }
    let mut glitch = wave(400 * SECOND, 0);
    for probe in &mut glitch {
        probe.t1 += 3_600 * SECOND;
        probe.t2 += 3_600 * SECOND;
    }
    assert_eq!(filter.observe(&glitch), WaveOutcome::JumpSuspected);
    assert_eq!(filter.observe(&wave(410 * SECOND, 0)), WaveOutcome::Updated);
    let estimate = filter.other_from_host(411 * SECOND);
    let error = estimate.nanos - (411 * SECOND + EPOCH + 411 * SECOND / 100_000);
    assert!(
        error.abs() < 50_000 && estimate.sd_nanos < 50_000.0,
        "{error}, {estimate:?}"
    );
}

#[test]
fn one_way_begins_anew_when_the_device_clock_steps() {
    let mut model = OneWay::start(EPOCH, 0);
    for tick in 1..100 {
        model.observe(EPOCH + tick * SECOND, tick * SECOND + 500_000);
        model.settle();
    }
    let mut steps = 0;
    for tick in 100..160 {
        let outcome = model.observe(EPOCH + tick * SECOND + 3_600 * SECOND, tick * SECOND + 500_000);
        steps += u32::from(outcome == StampOutcome::Stepped);
        model.settle();
    }
    assert_eq!(steps, 1);
    let estimate = model.line().forward(EPOCH + 160 * SECOND + 3_600 * SECOND);
    assert!(
        (estimate.nanos - 160 * SECOND - 500_000).abs() < 2_000_000,
        "{estimate:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_evidence_breaks_the_filter(waves in prop::collection::vec(prop::collection::vec(any::<(i64, i64, i64, i64)>(), 0..4), 0..12), at in any::<i64>()) {
        let mut filter: Option<ClockFilter> = None;
        for wave in waves {
            let probes: Vec<Probe> = wave.into_iter().map(|(t0, t1, t2, t3)| Probe { t0, t1, t2, t3 }).collect();
            match &mut filter {
                None => filter = ClockFilter::start(&probes),
                Some(filter) => drop(filter.observe(&probes)),
            }
            if let Some(filter) = &filter {
                let _ = (filter.other_from_host(at), filter.line().inverse(at));
            }
        }
    }

    #[test]
    fn no_stamp_breaks_the_envelope(pairs in prop::collection::vec(any::<(i64, i64)>(), 1..300), at in any::<i64>()) {
        let mut model = OneWay::start(pairs[0].0, pairs[0].1);
        for (device, received) in &pairs {
            model.observe(*device, *received);
            model.settle();
        }
        let _ = model.line().forward(at);
    }

    #[test]
    fn the_inverse_undoes_the_forward(seed in 0u64..50, host in 0i64..1_000_000_000_000) {
        let run = SCENARIOS[1].run(seed);
        let mut filter = ClockFilter::start(&run.waves[0]).unwrap();
        for wave in &run.waves[1..15] {
            filter.observe(wave);
        }
        let there = filter.other_from_host(host).nanos;
        prop_assert!((filter.line().inverse(there).nanos - host).abs() <= 2);
    }
}

/// A sample in nanoseconds since the start: when it was made, when received on the host clock, and its stamp.
#[derive(Clone, Copy)]
struct Sample {
    made: i64,
    received: i64,
    stamp: i64,
}

/// Made every second from `first` on, received 3 ms later, the stamp good.
fn live(first: i64, count: i64) -> Vec<Sample> {
    let sample = |tick| {
        let made = (first + tick) * SECOND;
        Sample {
            made,
            received: made + 3_000_000,
            stamp: common::START + made,
        }
    };
    (0..count).map(sample).collect()
}

/// What the engine makes of samples: (aligned time, uncertainty) of each, the last watermark, and the implausible and late rows.
struct Placed {
    rows: Vec<(i64, i64)>,
    watermark: i64,
    counters: [u64; 2],
}

fn place(samples: &[Sample], probed: bool) -> Placed {
    let mut agent = common::Agent::board();
    let clock = ClockId::session("tclab-01", "s1");
    let mut engine = common::engine(&agent);
    let mut sealed = vec![agent.announce()];
    sealed.extend((0..3).map(|wave| agent.probe(wave * SECOND)));
    for block in samples.chunks(10) {
        let at = block[0].received - 1_000_000;
        let probes = (0..8).map(|n: i64| {
            let t0 = at + n * 300_000;
            let other = common::START + t0 + 100_000;
            Probe {
                t0,
                t1: other,
                t2: other + 10_000,
                t3: t0 + 210_000,
            }
        });
        let wave = ClockPayload {
            clock_id: clock.clone(),
            host: agent.host.clone(),
            probes: probes.collect(),
            pairs: Vec::new(),
        };
        if probed {
            sealed.push(agent.seal(at, PayloadType::Clock, &wave.encode()));
        }
        let mut builder = SampleBuilder::new(&agent.descriptor, agent.host.clone());
        for sample in block {
            builder.push(
                Some(DeviceNanos(sample.stamp)),
                MonoNanos(sample.received),
                &[Value::Float(1.0)],
            );
        }
        let last = block[block.len() - 1].received;
        let payload = builder.take(Some(clock.clone())).unwrap().encode().unwrap();
        sealed.push(agent.seal(last, PayloadType::Samples, &payload));
        sealed.push(agent.heartbeat(last));
    }
    for (offset, one) in sealed.iter().enumerate() {
        assert!(engine.on_raw(&common::message(one, offset as u64)).is_none());
    }
    let (mut rows, mut watermark) = (Vec::new(), i64::MIN);
    for (topic, record) in engine.take_outbox() {
        if topic == topics::ALIGNED {
            let block = AlignedBlock::decode(&record.value).unwrap();
            rows.extend((0..block.len()).map(|row| (block.time(row).0, block.uncertainty_nanos(row))));
            watermark = block.watermark.0;
        }
    }
    let devices = engine.devices_json(TaiNanos(common::START));
    let counter = |name: &str| {
        devices["devices"][0]["counters"][name]
            .as_str()
            .map_or(0, |n| n.parse().unwrap())
    };
    Placed {
        rows,
        watermark,
        counters: [counter("implausible_stamps"), counter("late_rows")],
    }
}

/// The error of each row against the interval that it states; 3 ms is what one way cannot show.
fn assert_honest(name: &str, samples: &[Sample], placed: &Placed) {
    assert_eq!(placed.rows.len(), samples.len(), "{name}");
    for (at, (sample, (time, uncertainty))) in samples.iter().zip(&placed.rows).enumerate() {
        let error = time - common::START - sample.made;
        assert!(
            error.abs() <= 2 * uncertainty + 3_100_000,
            "{name}: row {at} is off by {error} ns and states {uncertainty}"
        );
    }
}

/// A board without a battery starts in 1970, a flipped bit lands in 2080: neither moves the rows after it nor the watermark.
#[test]
fn a_stray_stamp_harms_no_other_row() {
    const IN_2080: i64 = 3_471_292_800 * SECOND;
    type Stray = fn(usize, i64) -> i64;
    let cases: [(&str, Stray, [u64; 2]); 5] = [
        ("none", |_, stamp| stamp, [0, 0]),
        (
            "one of 1970",
            |at, stamp| if at == 65 { 5 * SECOND } else { stamp },
            [1, 1],
        ),
        (
            "one of 2080",
            |at, stamp| if at == 65 { IN_2080 } else { stamp },
            [1, 1],
        ),
        // Only what follows tells that the first stamps were the wrong ones: a one-way clock learns it from eight, and the
        // rows of its block go with them.
        (
            "three before NTP",
            |at, stamp| if at < 3 { at as i64 * SECOND } else { stamp },
            [3, 7],
        ),
        (
            "the first of 2080",
            |at, stamp| if at == 0 { IN_2080 } else { stamp },
            [1, 8],
        ),
    ];
    for (name, stray, implausible) in cases {
        for (probed, implausible) in [true, false].into_iter().zip(implausible) {
            let name = format!("{name}, probed: {probed}");
            let mut samples = live(10, 400);
            for (at, sample) in samples.iter_mut().enumerate() {
                sample.stamp = stray(at, sample.stamp);
            }
            let placed = place(&samples, probed);
            assert_honest(&name, &samples, &placed);
            assert_eq!(placed.counters, [implausible, 0], "{name}");
            let last = common::START + samples[399].received;
            assert!(
                (last - SECOND..=last).contains(&placed.watermark),
                "{name}: the watermark stands at {}",
                placed.watermark
            );
            let widest = placed.rows[100..].iter().map(|row| row.1).max().unwrap();
            assert!(widest < 30_000_000, "{name}: later rows state {widest} ns");
        }
    }
}

#[test]
fn a_backlog_that_the_device_kept_for_hours_stands_by_its_stamps() {
    for probed in [true, false] {
        let mut samples = live(10, 100);
        let cut = samples.len();
        samples.extend(live(120, 3 * 3_600));
        let back = samples[samples.len() - 1].received;
        for (at, sample) in samples[cut..].iter_mut().enumerate() {
            sample.received = back + at as i64 * 10_000;
        }
        samples.extend(live(120 + 3 * 3_600 + 60, 100));
        let placed = place(&samples, probed);
        assert_honest("backlog", &samples, &placed);
        // Doubted at first, then believed: only the first minute may be uncertain by hours.
        let vague = placed.rows.iter().filter(|row| row.1 > SECOND).count();
        assert!(vague <= 61, "probed: {probed}: {vague} rows say nothing");
    }
}

#[test]
fn the_rows_of_a_block_in_which_the_clock_steps_stay_where_they_were() {
    let mut samples = live(10, 300);
    for sample in &mut samples[154..] {
        sample.stamp -= 7_200 * SECOND;
    }
    let placed = place(&samples, false);
    assert_honest("step", &samples, &placed);
    assert!(placed.rows[299].1 < 30_000_000, "learnt anew: {:?}", placed.rows[299]);
}
