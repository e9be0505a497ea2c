//! Simulated clocks and networks, the truth known: what an agent's probes of a reference look like.

use orrery_protocol::Probe;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp, LogNormal, Normal};

pub const SECOND: i64 = 1_000_000_000;
/// Where the other clock starts: a date, so that rounding shows if an f64 ever holds it.
pub const EPOCH: i64 = 1_795_000_000 * SECOND;
/// Samples come at this interval, between the waves.
const SAMPLE_EVERY: i64 = 5 * SECOND / 2;

/// Delay beside the least one, on either way.
#[derive(Clone, Copy)]
pub enum Queueing {
    /// Exponential, these means in nanoseconds there and back.
    Exponential(f64, f64),
    /// Lognormal (σ = 1.2) with these means: the heavy tail of shared links.
    Heavy(f64, f64),
    /// Exponential, ten times as much for a minute out of ten.
    Bursts(f64),
}

/// One rig.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub seconds: i64,
    pub drift_ppm: f64,
    /// Random walk of the frequency, in ppb per √s.
    pub wander_ppb: f64,
    /// The frequency follows the room: amplitude in ppb, period in seconds.
    pub room: (f64, f64),
    /// Least delay there and back.
    pub base: (i64, i64),
    pub queueing: Queueing,
    /// Seconds between waves after the first ten seconds.
    pub interval: i64,
    pub probes: usize,
    /// Share of probes without an answer.
    pub loss: f64,
    /// No probe is answered for the last five minutes of every so many seconds.
    pub pauses: Option<i64>,
    /// The other clock reads in steps of this.
    pub quantum: i64,
    /// The other clock steps by this (there and back) every so many seconds.
    pub steps: Option<(i64, i64)>,
}

const QUIET: Scenario = Scenario {
    name: "",
    seconds: 7_200,
    drift_ppm: 50.0,
    wander_ppb: 0.0,
    room: (0.0, 1.0),
    base: (500_000, 500_000),
    queueing: Queueing::Exponential(2e6, 2e6),
    interval: 10,
    probes: 8,
    loss: 0.0,
    pauses: None,
    quantum: 1,
    steps: None,
};

/// What is scored: each differs from the first in what its name says.
pub const SCENARIOS: [Scenario; 14] = [
    Scenario {
        name: "50 ppm, 2 ms exponential",
        ..QUIET
    },
    Scenario {
        name: "random walk of 2 ppb per √s",
        wander_ppb: 2.0,
        ..QUIET
    },
    Scenario {
        name: "room ±300 ppb in 30 min",
        room: (300.0, 1_800.0),
        wander_ppb: 0.1,
        ..QUIET
    },
    Scenario {
        name: "heavy tail",
        queueing: Queueing::Heavy(2e6, 2e6),
        wander_ppb: 0.5,
        ..QUIET
    },
    Scenario {
        name: "bursts of queueing",
        queueing: Queueing::Bursts(1e6),
        wander_ppb: 0.5,
        ..QUIET
    },
    Scenario {
        name: "asymmetric path",
        base: (4_000_000, 1_000_000),
        wander_ppb: 0.5,
        ..QUIET
    },
    Scenario {
        name: "asymmetric queueing",
        queueing: Queueing::Heavy(3.5e6, 0.5e6),
        wander_ppb: 0.5,
        ..QUIET
    },
    Scenario {
        name: "steps of 2 s",
        steps: Some((2 * SECOND, 1_700)),
        wander_ppb: 0.5,
        ..QUIET
    },
    Scenario {
        name: "steps of 30 ms",
        steps: Some((30_000_000, 1_700)),
        wander_ppb: 0.5,
        ..QUIET
    },
    Scenario {
        name: "30 % loss, pauses of 5 min",
        loss: 0.3,
        pauses: Some(1_800),
        wander_ppb: 0.5,
        ..QUIET
    },
    Scenario {
        name: "sparse: one probe a minute",
        interval: 60,
        probes: 1,
        wander_ppb: 0.2,
        ..QUIET
    },
    Scenario {
        name: "1 ms ticks",
        quantum: 1_000_000,
        wander_ppb: 0.5,
        ..QUIET
    },
    Scenario {
        name: "20 × sped up",
        base: (10_000_000, 10_000_000),
        queueing: Queueing::Exponential(4e7, 4e7),
        wander_ppb: 0.5,
        ..QUIET
    },
    Scenario {
        name: "wired: 50 µs exponential",
        base: (100_000, 100_000),
        queueing: Queueing::Exponential(5e4, 5e4),
        wander_ppb: 0.5,
        ..QUIET
    },
];

/// A run of a scenario: the waves as probed, and instants of the host's clock with the other clock's true reading.
pub struct Run {
    pub waves: Vec<Vec<Probe>>,
    /// (host, other).
    pub samples: Vec<(i64, i64)>,
}

struct Truth {
    phase: Vec<f64>,
    scenario: Scenario,
}

impl Truth {
    fn new(rng: &mut ChaCha8Rng, scenario: &Scenario) -> Self {
        let walk = Normal::new(0.0, scenario.wander_ppb).expect("a wander is not negative");
        let start: f64 = rng.random_range(0.0..std::f64::consts::TAU);
        let (mut frequency, mut at, mut phase) = (scenario.drift_ppm * 1e3, 0.0, Vec::new());
        for second in 0..scenario.seconds + 60 {
            phase.push(at);
            let turn = start + std::f64::consts::TAU * second as f64 / scenario.room.1;
            at += frequency + scenario.room.0 * turn.sin();
            frequency += walk.sample(rng);
        }
        Self {
            phase,
            scenario: *scenario,
        }
    }

    fn other_from_host(&self, host: i64) -> i64 {
        let seconds = host as f64 / 1e9;
        let at = (seconds as usize).min(self.phase.len() - 2);
        let phase = self.phase[at] + (self.phase[at + 1] - self.phase[at]) * (seconds - at as f64);
        let stepped = self
            .scenario
            .steps
            .map_or(0, |(by, every)| by * ((host / SECOND + every / 2) / every % 2));
        host + EPOCH + phase as i64 + stepped
    }

    fn read(&self, host: i64) -> i64 {
        self.other_from_host(host).div_euclid(self.scenario.quantum) * self.scenario.quantum
    }
}

impl Scenario {
    /// What a probe without queueing shows beside the truth: no round trip can tell, so no estimate is scored for it.
    fn hidden(&self) -> i64 {
        (self.base.0 - self.base.1) / 2 - self.quantum / 2
    }

    fn queued(&self, rng: &mut ChaCha8Rng, at: i64, there: bool) -> i64 {
        let exponential = |rng: &mut ChaCha8Rng, mean: f64| Exp::new(1.0 / mean).expect("positive").sample(rng);
        let nanos = match self.queueing {
            Queueing::Exponential(to, from) => exponential(rng, if there { to } else { from }),
            Queueing::Heavy(to, from) => {
                let mean: f64 = if there { to } else { from };
                LogNormal::new(mean.ln() - 0.72, 1.2).expect("finite").sample(rng)
            }
            Queueing::Bursts(mean) => {
                let busy = at / SECOND % 600 >= 540;
                exponential(rng, if busy { 10.0 * mean } else { mean })
            }
        };
        nanos as i64
    }

    fn wave(&self, rng: &mut ChaCha8Rng, truth: &Truth, at: i64) -> Vec<Probe> {
        let mut t0 = at;
        let mut wave = Vec::new();
        for _ in 0..self.probes {
            let asked = t0 + self.base.0 + self.queued(rng, at, true);
            let answered = asked + 20_000;
            let t3 = answered + self.base.1 + self.queued(rng, at, false);
            let (t1, t2) = (truth.read(asked), truth.read(answered));
            if rng.random::<f64>() >= self.loss {
                wave.push(Probe { t0, t1, t2, t3 });
            }
            t0 = t3 + 1_000;
        }
        wave
    }

    /// The run of a seed.
    pub fn run(&self, seed: u64) -> Run {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let truth = Truth::new(&mut rng, self);
        let (mut waves, mut samples) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < self.seconds {
            let paused = self.pauses.is_some_and(|every| at % every >= every - 300);
            let wave = self.wave(&mut rng, &truth, at * SECOND);
            if !paused && !wave.is_empty() {
                waves.push(wave);
            }
            at += if at < 10 { 1 } else { self.interval };
        }
        let first = waves[0].iter().map(|probe| probe.t3).max().unwrap_or(0);
        let mut host = SAMPLE_EVERY / 3;
        while host < self.seconds * SECOND {
            if host >= first {
                samples.push((host, truth.other_from_host(host) + self.hidden()));
            }
            host += SAMPLE_EVERY;
        }
        Run { waves, samples }
    }
}

/// What was estimated, beside the truth.
#[derive(Default)]
pub struct Score {
    /// |error| in nanoseconds.
    pub errors: Vec<f64>,
    /// Standard uncertainties in nanoseconds.
    pub deviations: Vec<f64>,
    /// Per run: the share of samples whose 95 % interval holds the truth.
    pub shares: Vec<f64>,
    /// Per run: seconds until the 95 % interval is within ± 1 ms, once and for all that follow in the next minute.
    pub settled: Vec<f64>,
}

impl Score {
    /// Adds a run: (host, error, standard uncertainty) of each sample.
    pub fn add(&mut self, samples: &[(i64, f64, f64)]) {
        let held = samples.iter().filter(|(_, error, sd)| error.abs() <= 1.96 * sd).count();
        self.shares.push(held as f64 / samples.len() as f64);
        let within = samples.iter().find(|(_, _, sd)| 1.96 * sd < 1e6);
        self.settled
            .push(within.map_or(f64::INFINITY, |(host, _, _)| *host as f64 / 1e9));
        self.errors.extend(samples.iter().map(|(_, error, _)| error.abs()));
        self.deviations.extend(samples.iter().map(|(_, _, sd)| *sd));
    }

    /// Mean share of the runs with its standard error: samples of one run are not independent, runs are.
    pub fn coverage(&self) -> (f64, f64) {
        let count = self.shares.len() as f64;
        let mean = self.shares.iter().sum::<f64>() / count;
        let variance = self
            .shares
            .iter()
            .map(|share| (share - mean) * (share - mean))
            .sum::<f64>()
            / (count - 1.0);
        (mean, (variance / count).sqrt())
    }
}

/// The value below which a share of the values lies.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

impl Run {
    /// Appends the run for `tests/references/clocks.py`, little-endian f64: count of waves, count of samples, then per wave (host,
    /// other − host) of the probe with the least round trip, then per sample the same; seconds, the epoch taken off.
    pub fn write(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        let seconds = |nanos: i64| nanos as f64 / 1e9;
        let mut row = |a: f64, b: f64| out.write_all(&[a.to_le_bytes(), b.to_le_bytes()].concat());
        row(self.waves.len() as f64, self.samples.len() as f64)?;
        for best in self
            .waves
            .iter()
            .filter_map(|wave| wave.iter().min_by_key(|probe| probe.round_trip_nanos()))
        {
            row(
                seconds(best.t0 + (best.t3 - best.t0) / 2),
                seconds(best.offset_nanos() - EPOCH),
            )?;
        }
        for (host, other) in &self.samples {
            row(seconds(*host), seconds(other - host - EPOCH))?;
        }
        Ok(())
    }
}

/// One device that stamps and is never probed.
#[derive(Clone, Copy)]
pub struct OneWayScenario {
    pub name: &'static str,
    pub interval: i64,
    pub seconds: i64,
    pub wander_ppb: f64,
    pub queueing: Queueing,
}

pub const ONE_WAY: [OneWayScenario; 5] = [
    OneWayScenario {
        name: "5 Hz, 2 ms exponential",
        interval: SECOND / 5,
        seconds: 3_600,
        wander_ppb: 0.0,
        queueing: Queueing::Exponential(2e6, 2e6),
    },
    OneWayScenario {
        name: "5 Hz, random walk of 2 ppb per √s",
        interval: SECOND / 5,
        seconds: 3_600,
        wander_ppb: 2.0,
        queueing: Queueing::Exponential(2e6, 2e6),
    },
    OneWayScenario {
        name: "50 Hz, 2 ms exponential",
        interval: SECOND / 50,
        seconds: 1_800,
        wander_ppb: 0.5,
        queueing: Queueing::Exponential(2e6, 2e6),
    },
    OneWayScenario {
        name: "1 Hz, heavy tail",
        interval: SECOND,
        seconds: 7_200,
        wander_ppb: 0.5,
        queueing: Queueing::Heavy(2e6, 2e6),
    },
    OneWayScenario {
        name: "5 Hz, bursts of queueing",
        interval: SECOND / 5,
        seconds: 3_600,
        wander_ppb: 0.5,
        queueing: Queueing::Bursts(1e6),
    },
];

impl OneWayScenario {
    /// (the device's stamp, reception, what reception would be without queueing) of a seed; here the host is the other clock.
    pub fn run(&self, seed: u64) -> Vec<(i64, i64, i64)> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let scenario = Scenario {
            wander_ppb: self.wander_ppb,
            seconds: self.seconds,
            queueing: self.queueing,
            ..QUIET
        };
        let truth = Truth::new(&mut rng, &scenario);
        (0..self.seconds * SECOND / self.interval)
            .map(|tick| {
                let stamp = tick * self.interval;
                let least = truth.other_from_host(stamp) + scenario.base.0;
                (stamp, least + scenario.queued(&mut rng, stamp, true), least)
            })
            .collect()
    }
}
