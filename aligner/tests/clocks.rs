//! Clock estimation against simulated truth: error, and how often the stated 95 % interval holds the truth.

#![allow(clippy::unwrap_used)]

use orrery_aligner::clocks::{ClockFilter, OneWay, WaveOutcome};
use orrery_protocol::Probe;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp, Normal};

const SECOND: i64 = 1_000_000_000;
/// Where the truth starts: a date, so that rounding shows if an f64 ever holds it.
const EPOCH: i64 = 1_795_000_000 * SECOND;

/// The truth: a clock that is off by `offset` and runs fast by `drift_ppm`, random walk of frequency on top.
struct Truth {
    offset: i64,
    drift: f64,
    walk: Vec<f64>,
}

impl Truth {
    fn new(rng: &mut ChaCha8Rng, drift_ppm: f64, wander_ppb: f64, seconds: usize) -> Self {
        let step = Normal::new(0.0, wander_ppb).unwrap();
        let (mut frequency, mut phase, mut walk) = (0.0, 0.0, Vec::new());
        for _ in 0..=seconds {
            walk.push(phase);
            phase += frequency;
            frequency += step.sample(rng);
        }
        Self {
            offset: EPOCH,
            drift: drift_ppm * 1e-6,
            walk,
        }
    }

    fn other_from_host(&self, host: i64) -> i64 {
        let seconds = host as f64 / 1e9;
        let at = (seconds as usize).min(self.walk.len() - 2);
        let phase = self.walk[at] + (self.walk[at + 1] - self.walk[at]) * (seconds - at as f64);
        host + self.offset + (host as f64 * self.drift) as i64 + phase as i64
    }
}

fn wave(rng: &mut ChaCha8Rng, truth: &Truth, at: i64, base: (i64, i64), jitter: f64) -> Vec<Probe> {
    let delay = Exp::new(1.0 / jitter).unwrap();
    let mut t0 = at;
    (0..8)
        .map(|_| {
            let there = base.0 + delay.sample(rng) as i64;
            let back = base.1 + delay.sample(rng) as i64;
            let served = 20_000;
            let (t1, t2) = (
                truth.other_from_host(t0 + there),
                truth.other_from_host(t0 + there + served),
            );
            let t3 = t0 + there + served + back;
            let probe = Probe { t0, t1, t2, t3 };
            t0 = t3 + 1_000_000;
            probe
        })
        .collect()
}

/// Runs two hours of waves every ten seconds and returns (errors, covered) at instants between the waves, after settling.
fn run(seed: u64, drift_ppm: f64, wander_ppb: f64, base: (i64, i64), jitter: f64) -> (Vec<f64>, usize, i64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let seconds = 7_200;
    let truth = Truth::new(&mut rng, drift_ppm, wander_ppb, seconds);
    let mut filter: Option<ClockFilter> = None;
    let (mut errors, mut covered) = (Vec::new(), 0);
    for at in (0..seconds as i64).step_by(10) {
        let probes = wave(&mut rng, &truth, at * SECOND, base, jitter);
        match &mut filter {
            None => filter = ClockFilter::start(&probes),
            Some(filter) => drop(filter.observe(&probes)),
        }
        let filter = filter.as_ref().unwrap();
        if at > 300 {
            for later in [2, 5, 9] {
                let host = (at + later) * SECOND;
                let estimate = filter.other_from_host(host);
                // What a constant asymmetry does lies outside the standard uncertainty: it is bounded beside it.
                let bias = (base.0 - base.1) / 2;
                let error = (estimate.nanos - truth.other_from_host(host) - bias) as f64;
                covered += usize::from(error.abs() <= 1.96 * estimate.sd_nanos);
                errors.push(error.abs());
            }
        }
    }
    (errors, covered, filter.unwrap().asymmetry_nanos())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn two_way_error_is_small_and_its_interval_is_honest() {
    let mut all = Vec::new();
    for (name, wander) in [("steady", 0.0), ("wandering", 2.0)] {
        let (mut errors, mut covered) = (Vec::new(), 0);
        for seed in 0..20 {
            let (run_errors, run_covered, _) = run(seed, 50.0, wander, (500_000, 500_000), 2e6);
            errors.extend(run_errors);
            covered += run_covered;
        }
        let share = covered as f64 / errors.len() as f64;
        let median = median(&mut errors);
        println!(
            "{name}: median error {:.1} µs, 95 % interval holds {:.1} %",
            median / 1e3,
            share * 100.0
        );
        all.push((name, median, share));
    }
    for (name, median, share) in all {
        assert!(median < 500_000.0, "{name}: median error {median} ns");
        assert!((0.92..=0.99).contains(&share), "{name}: the interval holds {share}");
    }
}

#[test]
fn asymmetry_stays_within_its_bound_and_outside_the_uncertainty() {
    let (errors, _, bound) = run(7, -30.0, 0.5, (4_000_000, 1_000_000), 1e6);
    let worst = errors.iter().copied().fold(0.0, f64::max);
    assert!(worst < 2_000_000.0, "beside the asymmetry the error is {worst} ns");
    assert!(
        (1_500_000..=4_000_000).contains(&bound),
        "the bound is half the least round trip: {bound}"
    );
}

#[test]
fn a_step_is_doubted_once_then_believed_and_a_delay_is_ignored_once() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let truth = Truth::new(&mut rng, 10.0, 0.0, 1_000);
    let probes =
        |rng: &mut ChaCha8Rng, at: i64, slow: i64| wave(rng, &truth, at * SECOND, (200_000 + slow, 200_000), 1e5);
    let mut filter = ClockFilter::start(&probes(&mut rng, 0, 0)).unwrap();
    for at in 1..20 {
        assert_eq!(filter.observe(&probes(&mut rng, at * 10, 0)), WaveOutcome::Updated);
    }
    assert_eq!(
        filter.observe(&probes(&mut rng, 200, 80_000_000)),
        WaveOutcome::DelayIgnored
    );
    let stepped = |mut wave: Vec<Probe>| {
        for probe in &mut wave {
            probe.t1 += SECOND;
            probe.t2 += SECOND;
        }
        wave
    };
    assert_eq!(
        filter.observe(&stepped(probes(&mut rng, 210, 0))),
        WaveOutcome::JumpSuspected
    );
    assert_eq!(filter.observe(&stepped(probes(&mut rng, 220, 0))), WaveOutcome::Reset);
    let error = filter.other_from_host(221 * SECOND).nanos - truth.other_from_host(221 * SECOND) - SECOND;
    assert!(error.abs() < 2_000_000, "{error}");
}

#[test]
fn one_way_follows_the_lower_envelope() {
    let (mut errors, mut covered) = (Vec::new(), 0);
    for seed in 0..20 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let jitter = Exp::new(1.0 / 2e6).unwrap();
        let base = 300_000;
        // The device's clock is 1.5 s off and 50 ppm fast; it stamps five times a second.
        let host_from_device = |device: i64| ((device - EPOCH) as f64 * (1.0 - 50e-6)) as i64 + 1_500_000_000;
        let mut model = OneWay::start(EPOCH, host_from_device(EPOCH) + base);
        for tick in 1..9_000i64 {
            let device = EPOCH + tick * SECOND / 5;
            model.observe(device, host_from_device(device) + base + jitter.sample(&mut rng) as i64);
            model.settle();
            if tick > 600 && tick % 7 == 0 {
                let estimate = model.host_from_device(device);
                let error = (estimate.nanos - host_from_device(device) - base) as f64;
                covered += usize::from(error.abs() <= 1.96 * estimate.sd_nanos);
                errors.push(error.abs());
            }
        }
        assert_eq!(model.resets(), 0);
    }
    let share = covered as f64 / errors.len() as f64;
    let median = median(&mut errors);
    println!(
        "one way: median error {:.1} µs, 95 % interval holds {:.1} %",
        median / 1e3,
        share * 100.0
    );
    assert!(median < 300_000.0, "median error {median} ns");
    assert!(share > 0.92, "the interval holds {share}");
}

#[test]
fn one_way_begins_anew_when_the_device_clock_steps() {
    let mut model = OneWay::start(EPOCH, 0);
    for tick in 1..100 {
        model.observe(EPOCH + tick * SECOND, tick * SECOND + 500_000);
        model.settle();
    }
    for tick in 100..160 {
        model.observe(EPOCH + tick * SECOND + 3_600 * SECOND, tick * SECOND + 500_000);
        model.settle();
    }
    assert_eq!(model.resets(), 1);
    let estimate = model.host_from_device(EPOCH + 160 * SECOND + 3_600 * SECOND);
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
                let _ = (filter.other_from_host(at), filter.host_from_other(at));
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
        let _ = model.host_from_device(at);
    }

    #[test]
    fn the_inverse_undoes_the_forward(seed in 0u64..50, host in 0i64..1_000_000_000_000) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let truth = Truth::new(&mut rng, 80.0, 1.0, 200);
        let mut filter = ClockFilter::start(&wave(&mut rng, &truth, 0, (1_000, 1_000), 1e5)).unwrap();
        for at in 1..15 {
            filter.observe(&wave(&mut rng, &truth, at * SECOND, (1_000, 1_000), 1e5));
        }
        let there = filter.other_from_host(host).nanos;
        prop_assert!((filter.host_from_other(there).nanos - host).abs() <= 2);
    }
}
