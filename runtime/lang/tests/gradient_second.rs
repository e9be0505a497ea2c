//! Second derivatives along lines, over the steps of every method and through algebraic loops and initial equations: against
//! closed forms, solutions in many digits, and differences of first derivatives over the same mesh.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Along, Machine, along, bits, build_with, close, cranelift, pulley, until};
use orrery_lang::abi::{self, Gradient, Initialise, InputMode, InputTable, Method, Plan};
use orrery_lang::{Compiled, Options};

const ADAPTIVE: [Method; 4] = [Method::Tsit5, Method::Rodas5p, Method::Esdirk, Method::Auto];
const IMPLICIT: [Method; 2] = [Method::Rodas5p, Method::Esdirk];

fn bending(source: &str) -> Compiled {
    let options = Options {
        second_derivatives: true,
        ..Options::default()
    };
    build_with(source, &options)
}

fn machine(source: &str) -> Machine {
    Machine::on(&cranelift(), bending(source))
}

/// Parts of parameters and of `start(state)`; an input moves with all its knots.
fn line(machine: &Machine, plan: &Plan, parts: &[(&str, f64)]) -> Gradient {
    let meta = &machine.compiled.meta;
    let mut line = Gradient {
        parameters: vec![0.0; meta.parameters.len()],
        states: vec![0.0; meta.carried() as usize],
        inputs: plan.inputs.iter().map(|table| vec![0.0; table.knots.len()]).collect(),
    };
    for (name, part) in parts {
        if let Some(state) = name.strip_prefix("start(").and_then(|name| name.strip_suffix(')')) {
            let state = meta.states.iter().position(|known| known.name == state).unwrap();
            line.states[state] = *part;
        } else if let Some(input) = meta.input(name) {
            line.inputs[input].fill(*part);
        } else {
            line.parameters[meta.parameter(name).unwrap()] = *part;
        }
    }
    line
}

/// Value, first and second derivative of a column in the last row.
fn at_end(machine: &mut Machine, plan: &Plan, column: &str, parts: &[(&str, f64)]) -> [f64; 3] {
    let line = line(machine, plan, parts);
    let found = along(machine, plan, &line);
    last(machine, &found, column)
}

fn last(machine: &Machine, found: &Along, column: &str) -> [f64; 3] {
    let columns = found.rows.columns;
    let at = (found.rows.times.len() - 1) * columns + machine.compiled.meta.column(column).unwrap();
    [found.rows.values[at], found.first[at], found.second[at]]
}

fn tight(method: Method, seconds: f64) -> Plan {
    Plan {
        method,
        rtol: 1e-12,
        atol: 1e-14,
        ..until(seconds, 3)
    }
}

/// Each of value, first and second derivative, relative to the expected one.
fn all_close(found: [f64; 3], expected: [f64; 3], tolerance: f64, what: &str) {
    let errors: Vec<f64> = found
        .iter()
        .zip(expected)
        .map(|(f, e)| (f - e).abs() / e.abs().max(1e-300))
        .collect();
    println!("{what}: {:.1e} {:.1e} {:.1e}", errors[0], errors[1], errors[2]);
    for ((found, expected), error) in found.iter().zip(expected).zip(errors) {
        assert!(error <= tolerance, "{what}: {found} and not {expected} ({error:e})");
    }
}

/// A number with its first and second derivative along a line (a Taylor polynomial of degree two).
#[derive(Clone, Copy)]
struct Jet([f64; 3]);

impl Jet {
    fn chain(self, f: f64, by: f64, by_twice: f64) -> Jet {
        let [_, first, second] = self.0;
        Jet([f, by * first, by_twice * first * first + by * second])
    }

    fn exp(self) -> Jet {
        let value = self.0[0].exp();
        self.chain(value, value, value)
    }

    fn pow(self, exponent: f64) -> Jet {
        let by = |times: f64| self.0[0].powf(exponent - times);
        self.chain(by(0.0), exponent * by(1.0), exponent * (exponent - 1.0) * by(2.0))
    }
}

impl From<f64> for Jet {
    fn from(value: f64) -> Jet {
        Jet([value, 0.0, 0.0])
    }
}

macro_rules! operator {
    ($name:ident, $method:ident, |$a:ident, $b:ident| $result:expr) => {
        impl<T: Into<Jet>> std::ops::$name<T> for Jet {
            type Output = Jet;
            fn $method(self, other: T) -> Jet {
                let ($a, $b) = (self.0, other.into().0);
                $result
            }
        }
    };
}
operator!(Add, add, |a, b| Jet([a[0] + b[0], a[1] + b[1], a[2] + b[2]]));
operator!(Sub, sub, |a, b| Jet([a[0] - b[0], a[1] - b[1], a[2] - b[2]]));
operator!(Mul, mul, |a, b| Jet([
    a[0] * b[0],
    a[0] * b[1] + a[1] * b[0],
    a[0] * b[2] + 2.0 * a[1] * b[1] + a[2] * b[0]
]));

/// A value that moves along the line by `part` for each unit of its length.
fn moving(value: f64, part: f64) -> Jet {
    Jet([value, part, 0.0])
}

#[test]
fn stiff_decay_has_its_closed_form() {
    // b = a₀ k₁/(k₂ − k₁) e^(−k₁t) where e^(−k₂t) is 0.
    let source = "model Chain parameter Real k1 = 0.7; parameter Real k2 = 1e4; Real a(start=2, fixed=true);\
        Real b(start=0, fixed=true); equation der(a) = -k1*a; der(b) = k1*a - k2*b; end Chain;";
    let mut machine = machine(source);
    let parts = [("k1", 1.0), ("k2", 3000.0), ("start(a)", 0.4)];
    let (k1, k2, a) = (moving(0.7, 1.0), moving(1e4, 3000.0), moving(2.0, 0.4));
    let exact = a * k1 * (k2 - k1).pow(-1.0) * (k1 * -3.0).exp();
    for method in IMPLICIT {
        let plan = Plan {
            atol: 1e-16,
            ..tight(method, 3.0)
        };
        let found = at_end(&mut machine, &plan, "b", &parts);
        all_close(found, exact.0, 1e-8, &format!("{method:?}"));
    }
}

#[test]
fn growth_has_its_closed_form_under_every_method() {
    let source = "model L parameter Real r = 1.3; parameter Real c = 2; Real x(start=0.1, fixed=true);\
        equation der(x) = r*x*(1 - x/c); end L;";
    let mut machine = machine(source);
    let (r, c, x) = (moving(1.3, 1.0), moving(2.0, -0.4), moving(0.1, 0.3));
    let parts = [("r", 1.0), ("c", -0.4), ("start(x)", 0.3)];
    let exact = c * ((c * x.pow(-1.0) - 1.0) * (r * -2.0).exp() + 1.0).pow(-1.0);
    for method in ADAPTIVE {
        let found = at_end(&mut machine, &tight(method, 2.0), "x", &parts);
        all_close(found, exact.0, 1e-8, &format!("{method:?}"));
    }
}
