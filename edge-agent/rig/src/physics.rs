//! The energy balance of the two-heater board in its chamber, as published for the Temperature Control Lab: each heater
//! stores heat, loses it to the air by convection and radiation, and trades it with its neighbour; each thermistor follows
//! its heater with a lag; the air of the chamber takes up what the board gives off and is held near a set point.
//!
//! ```text
//! C·dH₁/dt = Q₁ + UA·(A − H₁) + εσS·(A⁴ − H₁⁴) + UₛSₛ·(H₂ − H₁) + εσSₛ·(H₂⁴ − H₁⁴)
//! C·dH₂/dt = Q₂ + UA·(A − H₂) + εσS·(A⁴ − H₂⁴) − UₛSₛ·(H₂ − H₁) − εσSₛ·(H₂⁴ − H₁⁴)
//! τ·dTᵢ/dt = Hᵢ − Tᵢ
//! Cₐ·dA/dt = (losses of H₁ and H₂ to the air) + G·(set point − A)
//! ```
//! Temperatures are °C in the state and kelvin in the fourth powers. Pure: no clock, no noise.

use serde::{Deserialize, Serialize};

/// Stefan–Boltzmann constant, W/(m²·K⁴).
const STEFAN_BOLTZMANN: f64 = 5.670_374_419e-8;
const KELVIN: f64 = 273.15;

/// What the board and its chamber are made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plant {
    /// Heat that reaches each heater per percent of its power at the firmware's default limits, W/%.
    pub watts_per_percent: [f64; 2],
    /// Heat capacity of each heater, J/K.
    pub heat_capacity: f64,
    /// Convection from heater to air, W/(m²·K).
    pub convection: f64,
    /// Surface of a heater towards the air, m².
    pub area: f64,
    /// Convection between the heaters, W/(m²·K).
    pub coupling: f64,
    /// Surface of a heater towards the other, m².
    pub coupling_area: f64,
    /// Emissivity of the surfaces.
    pub emissivity: f64,
    /// Lag of a thermistor behind its heater, s.
    pub sensor_lag_seconds: f64,
    /// Heat capacity of the chamber's air and walls, J/K.
    pub air_capacity: f64,
    /// How strongly the chamber holds its set point, W/K.
    pub air_conductance: f64,
}

impl Plant {
    /// Fitted by least squares to the recording of a real board in `tests/fixtures/tclab-prbs.csv` (with an air of
    /// [`FITTED_AIR_CELSIUS`]); it follows that board's sensors to 0.52 and 0.43 °C root mean square over 85 minutes. Mass,
    /// surfaces and emissivity are the published ones.
    pub const TCLAB: Self = Self {
        watts_per_percent: [0.009_144, 0.004_955],
        heat_capacity: 2.0,
        convection: 7.891,
        area: 1.0e-3,
        coupling: 15.94,
        coupling_area: 2.0e-4,
        emissivity: 0.9,
        sensor_lag_seconds: 44.97,
        air_capacity: 300.0,
        air_conductance: 2.5,
    };
}

/// The air temperature that the fit of [`Plant::TCLAB`] found for the recording, °C.
pub const FITTED_AIR_CELSIUS: f64 = 25.37;

/// Temperatures, °C.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Temperatures {
    /// The two heaters.
    pub heaters: [f64; 2],
    /// The two thermistors.
    pub sensors: [f64; 2],
    /// The air of the chamber.
    pub air: f64,
}

impl Temperatures {
    /// Everything at `celsius`.
    pub fn uniform(celsius: f64) -> Self {
        Self {
            heaters: [celsius; 2],
            sensors: [celsius; 2],
            air: celsius,
        }
    }

    /// Whether a board may have them: its solder melts above.
    pub fn are_possible(&self) -> bool {
        let [h1, h2] = self.heaters;
        let [t1, t2] = self.sensors;
        [h1, h2, t1, t2, self.air]
            .iter()
            .all(|celsius| (-50.0..200.0).contains(celsius))
    }

    fn plus(self, rate: Self, seconds: f64) -> Self {
        let add = |a: [f64; 2], b: [f64; 2]| [a[0] + seconds * b[0], a[1] + seconds * b[1]];
        Self {
            heaters: add(self.heaters, rate.heaters),
            sensors: add(self.sensors, rate.sensors),
            air: self.air + seconds * rate.air,
        }
    }
}

/// What drives the plant over a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drive {
    /// Heat into each heater, W.
    pub heat_watts: [f64; 2],
    /// Set point of the chamber's air, °C.
    pub set_point: f64,
}

impl Plant {
    /// One step of the classical fourth-order Runge–Kutta method with constant `drive`.
    #[must_use]
    pub fn step(&self, state: Temperatures, drive: Drive, seconds: f64) -> Temperatures {
        let k1 = self.rate(state, drive);
        let k2 = self.rate(state.plus(k1, seconds / 2.0), drive);
        let k3 = self.rate(state.plus(k2, seconds / 2.0), drive);
        let k4 = self.rate(state.plus(k3, seconds), drive);
        state
            .plus(k1, seconds / 6.0)
            .plus(k2, seconds / 3.0)
            .plus(k3, seconds / 3.0)
            .plus(k4, seconds / 6.0)
    }

    /// Time derivatives, °C/s.
    pub fn rate(&self, state: Temperatures, drive: Drive) -> Temperatures {
        let [h1, h2] = state.heaters;
        let losses = [self.loss_watts(h1, state.air), self.loss_watts(h2, state.air)];
        let exchange = self.exchange_watts(h1, h2);
        let lag = self.sensor_lag_seconds;
        Temperatures {
            heaters: [
                (drive.heat_watts[0] - losses[0] + exchange) / self.heat_capacity,
                (drive.heat_watts[1] - losses[1] - exchange) / self.heat_capacity,
            ],
            sensors: [(h1 - state.sensors[0]) / lag, (h2 - state.sensors[1]) / lag],
            air: (losses[0] + losses[1] + self.air_conductance * (drive.set_point - state.air)) / self.air_capacity,
        }
    }

    /// Heat that a heater at `heater` gives to air at `air`, W.
    pub fn loss_watts(&self, heater: f64, air: f64) -> f64 {
        self.convection * self.area * (heater - air)
            + self.emissivity * STEFAN_BOLTZMANN * self.area * fourth_power_difference(heater, air)
    }

    /// Heat that flows from heater 2 to heater 1, W.
    pub fn exchange_watts(&self, heater1: f64, heater2: f64) -> f64 {
        self.coupling * self.coupling_area * (heater2 - heater1)
            + self.emissivity * STEFAN_BOLTZMANN * self.coupling_area * fourth_power_difference(heater2, heater1)
    }
}

fn fourth_power_difference(a_celsius: f64, b_celsius: f64) -> f64 {
    let a = (a_celsius + KELVIN).powi(2);
    let b = (b_celsius + KELVIN).powi(2);
    a * a - b * b
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLANT: Plant = Plant::TCLAB;

    fn run(mut state: Temperatures, drive: Drive, seconds: f64, steps: usize) -> Temperatures {
        for _ in 0..steps {
            state = PLANT.step(state, drive, seconds / steps as f64);
        }
        state
    }

    fn stored_joules(state: Temperatures) -> f64 {
        PLANT.heat_capacity * (state.heaters[0] + state.heaters[1]) + PLANT.air_capacity * state.air
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn at_rest_nothing_moves(celsius in 0.0..60.0f64) {
            let drive = Drive { heat_watts: [0.0; 2], set_point: celsius };
            let end = run(Temperatures::uniform(celsius), drive, 600.0, 600);
            prop_assert!((end.sensors[0] - celsius).abs() < 1e-9 && (end.air - celsius).abs() < 1e-9);
        }

        #[test]
        fn energy_is_conserved(w1 in 0.0..1.2f64, w2 in 0.0..0.6f64, h1 in 15.0..80.0f64, h2 in 15.0..80.0f64, set in 15.0..30.0f64) {
            let drive = Drive { heat_watts: [w1, w2], set_point: set };
            let start = Temperatures { heaters: [h1, h2], ..Temperatures::uniform(set) };
            let (mut state, mut received) = (start, 0.0);
            for _ in 0..3_000 {
                let next = PLANT.step(state, drive, 0.1);
                let from_chamber = |state: Temperatures| PLANT.air_conductance * (set - state.air);
                received += 0.1 * (w1 + w2 + (from_chamber(state) + from_chamber(next)) / 2.0);
                state = next;
            }
            let gained = stored_joules(state) - stored_joules(start);
            prop_assert!((gained - received).abs() < 1e-3 * (1.0 + received.abs()), "gained {gained} J, received {received} J");
        }

        #[test]
        fn it_settles_where_power_in_equals_losses(w1 in 0.0..1.2f64, w2 in 0.0..0.6f64, start in 10.0..80.0f64) {
            let drive = Drive { heat_watts: [w1, w2], set_point: 25.0 };
            let end = run(Temperatures::uniform(start), drive, 6_000.0, 6_000);
            let losses = PLANT.loss_watts(end.heaters[0], end.air) + PLANT.loss_watts(end.heaters[1], end.air);
            prop_assert!((losses - w1 - w2).abs() < 1e-4, "losses {losses} W");
            prop_assert!((end.sensors[0] - end.heaters[0]).abs() < 1e-3);
        }

        #[test]
        fn more_power_is_never_colder_anywhere(w1 in 0.0..1.0f64, w2 in 0.0..0.5f64, more in 0.01..0.2f64) {
            let less = Drive { heat_watts: [w1, w2], set_point: 25.0 };
            let extra = Drive { heat_watts: [w1 + more, w2], ..less };
            let (mut cold, mut warm) = (Temperatures::uniform(25.0), Temperatures::uniform(25.0));
            for _ in 0..900 {
                cold = PLANT.step(cold, less, 1.0);
                warm = PLANT.step(warm, extra, 1.0);
                prop_assert!(warm.sensors[0] >= cold.sensors[0] && warm.sensors[1] >= cold.sensors[1] && warm.air >= cold.air);
            }
            prop_assert!(warm.sensors[0] > cold.sensors[0] && warm.sensors[1] > cold.sensors[1]);
        }

        #[test]
        fn the_step_is_fine_enough(w1 in 0.0..1.2f64, w2 in 0.0..0.6f64) {
            let drive = Drive { heat_watts: [w1, w2], set_point: 25.0 };
            let coarse = run(Temperatures::uniform(22.0), drive, 300.0, 300 * 20);
            let fine = run(Temperatures::uniform(22.0), drive, 300.0, 300 * 80);
            prop_assert!((coarse.sensors[0] - fine.sensors[0]).abs() < 1e-9);
        }
    }
}
