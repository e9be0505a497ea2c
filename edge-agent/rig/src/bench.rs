//! The bench: one physical world that every simulated device of the rig measures. It moves on a fixed grid of time, so that
//! what it shows at an instant depends on the seed and on the heater commands, never on who looked or how often.

use std::f64::consts::TAU;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orrery_protocol::{MonoNanos, TaiNanos};

use crate::keep::Kept;
use crate::noise::Noise;
use crate::physics::{Drive, FITTED_AIR_CELSIUS, Plant, Temperatures};

/// The grid of simulated time.
const STEP_NANOS: i64 = 50_000_000;
const STEP_SECONDS: f64 = 0.05;

/// Full scale of the microcontroller's pulse-width modulation.
pub const PWM_FULL_SCALE: u8 = 255;
/// The firmware's default limits, at which [`Plant::watts_per_percent`] holds.
pub const DEFAULT_PWM_LIMITS: [f32; 2] = [200.0, 100.0];

/// The converter: 10 bits over 3.3 V, ten readings averaged by the firmware.
const CONVERTER_MILLIVOLTS: f64 = 3_300.0;
const CONVERTER_COUNTS: f64 = 1_024.0;
const READINGS: usize = 10;
/// Electrical noise at the converter's input, referred to temperature: a quarter of its step.
const READING_NOISE_CELSIUS: f64 = 0.08;

/// The power supply: its own draw, and how much of what it delivers to a heater warms it.
const IDLE_WATTS: f64 = 1.12;
const HEATER_EFFICIENCY: f64 = 0.85;

/// Noise streams of the bench; the devices' clocks use others.
const NOISE_SENSORS: u64 = 0;
const NOISE_WEATHER: u64 = 1;
const NOISE_AIR: u64 = 2;
const NOISE_SUPPLY: u64 = 3;
const NOISE_ROOM: u64 = 4;

/// The bench, shared by the devices.
#[derive(Clone)]
pub struct SharedBench(Arc<Mutex<Bench>>);

impl SharedBench {
    /// Shares a bench among devices.
    pub fn new(bench: Bench) -> Self {
        Self(Arc::new(Mutex::new(bench)))
    }

    /// The bench as it is at `now`.
    pub fn at(&self, now: MonoNanos) -> MutexGuard<'_, Bench> {
        let mut bench = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bench.advance(now);
        bench
    }
}

/// The board, its chamber, the supply and the room.
pub struct Bench {
    seed: u64,
    plant: Plant,
    state: Temperatures,
    pwm: [u8; 2],
    weather: Weather,
    origin: MonoNanos,
    steps: u64,
    sensor_noise: Noise,
    air_noise: Noise,
    supply_noise: Noise,
    room_noise: Noise,
}

impl Bench {
    /// A cold bench at `origin`, its chamber wandering slowly about its set point.
    pub fn new(seed: u64, origin: MonoNanos) -> Self {
        let weather = Weather::draw(seed);
        Self {
            seed,
            plant: Plant::TCLAB,
            state: Temperatures::uniform(weather.set_point(0.0)),
            pwm: [0; 2],
            weather,
            origin,
            steps: 0,
            sensor_noise: Noise::new(seed, NOISE_SENSORS),
            air_noise: Noise::new(seed, NOISE_AIR),
            supply_noise: Noise::new(seed, NOISE_SUPPLY),
            room_noise: Noise::new(seed, NOISE_ROOM),
        }
    }

    /// The bench that was kept `away` before `now`: nobody heated it since.
    pub(crate) fn resume(kept: Kept, away: Duration, now: MonoNanos) -> Self {
        let elapsed = i64::try_from(kept.steps).unwrap_or(i64::MAX).saturating_mul(STEP_NANOS);
        let away = i64::try_from(away.as_nanos()).unwrap_or(i64::MAX);
        let mut bench = Self {
            state: kept.temperatures,
            steps: kept.steps,
            ..Self::new(kept.seed, MonoNanos(now.0.saturating_sub(elapsed).saturating_sub(away)))
        };
        bench.advance(now);
        bench
    }

    /// What [`Bench::resume`] goes on from.
    pub(crate) fn keep(&self, at: TaiNanos) -> Kept {
        Kept {
            seed: self.seed,
            steps: self.steps,
            temperatures: self.state,
            at,
        }
    }

    /// The same bench in a chamber that holds the air at what the recording's board had around it: for playback.
    #[must_use]
    pub fn in_still_air(mut self) -> Self {
        self.weather.wander_celsius = 0.0;
        self.weather.mean_celsius = FITTED_AIR_CELSIUS;
        self.plant.air_conductance *= 1e3;
        self.plant.air_capacity *= 1e3;
        self.state = Temperatures::uniform(FITTED_AIR_CELSIUS);
        self
    }

    /// Drives heater `index` with this much of the full pulse width from now on.
    pub fn set_pwm(&mut self, index: usize, pwm: u8) {
        self.pwm[index] = pwm;
    }

    /// What the firmware reads from thermistor `index`: ten conversions, averaged, in its single-precision arithmetic.
    pub fn board_celsius(&self, index: usize) -> f32 {
        let noise = self.sensor_noise.normal::<READINGS>(self.steps * 2 + index as u64);
        let sum: f32 = noise
            .iter()
            .map(|noise| {
                let celsius = self.state.sensors[index] + noise * READING_NOISE_CELSIUS;
                // TMP36: 10 mV/°C and 500 mV at 0 °C. The converter's steps lie half a step off its counts.
                let millivolts = celsius * 10.0 + 500.0;
                let counts = (millivolts / CONVERTER_MILLIVOLTS * CONVERTER_COUNTS + 0.5).floor();
                counts.clamp(0.0, CONVERTER_COUNTS - 1.0) as f32 * 0.322_265_62 - 50.0
            })
            .sum();
        sum / READINGS as f32
    }

    /// What the chamber controller's resistance thermometer shows, °C in steps of 0.01.
    pub fn air_celsius(&self) -> f64 {
        let [noise] = self.air_noise.normal(self.steps);
        round(self.state.air + 0.02 * noise, 100.0)
    }

    /// What the power meter shows: the supply's own draw and both heaters, W in steps of 0.01.
    pub fn supply_watts(&self) -> f64 {
        let [noise] = self.supply_noise.normal(self.steps);
        let heat: f64 = self.heat_watts().iter().sum();
        round(
            (IDLE_WATTS + heat / HEATER_EFFICIENCY) * (1.0 + 0.001 * noise) + 0.004 * noise,
            100.0,
        )
    }

    /// What the room sensor shows: relative humidity in % and temperature in °C, each in steps of 0.1.
    pub fn room(&self) -> Room {
        let [humidity_noise, celsius_noise] = self.room_noise.normal(self.steps);
        let (humidity, celsius) = self.weather.room(self.seconds());
        Room {
            humidity_percent: round(humidity + 0.15 * humidity_noise, 10.0),
            celsius: round(celsius + 0.05 * celsius_noise, 10.0),
        }
    }

    /// The true temperatures, which no device shows.
    pub fn temperatures(&self) -> Temperatures {
        self.state
    }

    /// Heat into each heater now, W.
    pub fn heat_watts(&self) -> [f64; 2] {
        std::array::from_fn(|index| {
            let percent = f64::from(self.pwm[index]) * 100.0 / f64::from(DEFAULT_PWM_LIMITS[index]);
            percent * self.plant.watts_per_percent[index]
        })
    }

    fn advance(&mut self, now: MonoNanos) {
        let due = u64::try_from(now.nanos_since(self.origin) / STEP_NANOS).unwrap_or(0);
        let heat_watts = self.heat_watts();
        while self.steps < due {
            let drive = Drive {
                heat_watts,
                set_point: self.weather.set_point(self.seconds()),
            };
            self.state = self.plant.step(self.state, drive, STEP_SECONDS);
            self.steps += 1;
        }
    }

    fn seconds(&self) -> f64 {
        self.steps as f64 * STEP_SECONDS
    }
}

/// What the room sensor shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Room {
    /// Relative humidity, %.
    pub humidity_percent: f64,
    /// Temperature, °C.
    pub celsius: f64,
}

/// Slow changes around the board: sums of sines with phases from the seed.
#[derive(Debug, Clone, Copy)]
struct Weather {
    mean_celsius: f64,
    wander_celsius: f64,
    phases: [f64; 4],
}

impl Weather {
    fn draw(seed: u64) -> Self {
        let phases = Noise::new(seed, NOISE_WEATHER).uniform::<4>(0).map(|turn| turn * TAU);
        // The heaters warm the air by a few tenths of a degree: the set point is that much below the fitted air.
        Self {
            mean_celsius: FITTED_AIR_CELSIUS - 0.2,
            wander_celsius: 0.25,
            phases,
        }
    }

    fn set_point(&self, seconds: f64) -> f64 {
        let slow = (TAU * seconds / 900.0 + self.phases[0]).sin();
        let fast = (TAU * seconds / 210.0 + self.phases[1]).sin();
        self.mean_celsius + self.wander_celsius * (slow + 0.3 * fast)
    }

    fn room(&self, seconds: f64) -> (f64, f64) {
        let humidity = 41.0 + 3.0 * (TAU * seconds / 2_700.0 + self.phases[2]).sin();
        let celsius = 21.8 + 0.4 * (TAU * seconds / 1_800.0 + self.phases[3]).sin();
        (humidity, celsius)
    }
}

fn round(value: f64, per_unit: f64) -> f64 {
    (value * per_unit).round() / per_unit
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: MonoNanos = MonoNanos(5_000_000_000);

    fn after(seconds: f64) -> MonoNanos {
        MonoNanos(START.0 + (seconds * 1e9) as i64)
    }

    fn readings(bench: &SharedBench, seconds: f64) -> (f32, f32, f64, f64, Room) {
        let bench = bench.at(after(seconds));
        (
            bench.board_celsius(0),
            bench.board_celsius(1),
            bench.air_celsius(),
            bench.supply_watts(),
            bench.room(),
        )
    }

    #[test]
    fn what_it_shows_depends_on_the_seed_and_not_on_who_looked() {
        let (busy, idle, other) = (
            SharedBench::new(Bench::new(1, START)),
            SharedBench::new(Bench::new(1, START)),
            SharedBench::new(Bench::new(2, START)),
        );
        for bench in [&busy, &idle, &other] {
            bench.at(START).set_pwm(0, 90);
        }
        for tick in 0..600 {
            readings(&busy, f64::from(tick) * 0.1);
        }
        assert_eq!(readings(&busy, 61.0), readings(&idle, 61.0));
        assert_ne!(readings(&idle, 61.0), readings(&other, 61.0));
    }

    #[test]
    fn a_heater_warms_its_own_sensor_first_then_the_other_and_the_supply_shows_it_at_once() {
        let bench = SharedBench::new(Bench::new(3, START));
        let before = readings(&bench, 10.0);
        bench.at(after(10.0)).set_pwm(0, 160);
        let at_once = readings(&bench, 10.1);
        assert!((at_once.3 - before.3 - 80.0 * Plant::TCLAB.watts_per_percent[0] / HEATER_EFFICIENCY).abs() < 0.05);
        let later = readings(&bench, 300.0);
        assert!(
            later.0 > before.0 + 15.0,
            "sensor 1 went from {} to {}",
            before.0,
            later.0
        );
        assert!(
            later.1 > before.1 + 3.0 && later.1 < later.0,
            "sensor 2 went from {} to {}",
            before.1,
            later.1
        );
    }

    #[test]
    fn readings_are_the_averages_of_ten_conversions() {
        let bench = SharedBench::new(Bench::new(4, START));
        let mut distinct = std::collections::BTreeSet::new();
        for tick in 0..200 {
            let celsius = bench.at(after(f64::from(tick) * 0.1)).board_celsius(0);
            let tenths = (f64::from(celsius) + 50.0) / 0.322_265_625 * 10.0;
            assert!(
                (tenths - tenths.round()).abs() < 1e-2,
                "{celsius} is no average of ten counts"
            );
            distinct.insert(tenths.round() as i64);
        }
        assert!(distinct.len() > 3, "a real converter is noisy");
    }

    #[test]
    fn still_air_stays_where_the_recording_had_it() {
        let bench = SharedBench::new(Bench::new(5, START).in_still_air());
        bench.at(START).set_pwm(0, 80);
        for minute in 0..85 {
            let air = bench.at(after(f64::from(minute) * 60.0)).temperatures().air;
            assert!(
                (air - FITTED_AIR_CELSIUS).abs() < 0.01,
                "air at {air} °C after {minute} min"
            );
        }
    }
}
