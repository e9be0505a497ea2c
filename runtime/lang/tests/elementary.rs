//! The module's elementary functions against a reference of about 100 bits, and their special values.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Machine, until};
use orrery_lang::abi::{InputMode, InputTable, Method, Plan};

/// An unevaluated sum of two doubles.
#[derive(Debug, Clone, Copy)]
struct Dd(f64, f64);

fn two_sum(a: f64, b: f64) -> Dd {
    let s = a + b;
    let bb = s - a;
    Dd(s, (a - (s - bb)) + (b - bb))
}

fn two_product(a: f64, b: f64) -> Dd {
    let p = a * b;
    Dd(p, a.mul_add(b, -p))
}

impl Dd {
    fn new(x: f64) -> Dd {
        Dd(x, 0.0)
    }
    fn add(self, o: Dd) -> Dd {
        let s = two_sum(self.0, o.0);
        let t = two_sum(self.1, o.1);
        let u = two_sum(s.0, s.1 + t.0);
        two_sum(u.0, u.1 + t.1)
    }
    fn neg(self) -> Dd {
        Dd(-self.0, -self.1)
    }
    fn sub(self, o: Dd) -> Dd {
        self.add(o.neg())
    }
    fn mul(self, o: Dd) -> Dd {
        let p = two_product(self.0, o.0);
        two_sum(p.0, p.1 + (self.0 * o.1 + self.1 * o.0))
    }
    fn div(self, o: Dd) -> Dd {
        let q = self.0 / o.0;
        let r = self.sub(o.mul(Dd::new(q)));
        let q2 = r.0 / o.0;
        let r2 = r.sub(o.mul(Dd::new(q2)));
        two_sum(q, q2).add(Dd::new(r2.0 / o.0))
    }
    fn sqrt(self) -> Dd {
        let x = self.0.sqrt();
        if x == 0.0 {
            return Dd::new(0.0);
        }
        let r = self.sub(two_product(x, x));
        two_sum(x, r.0 / (2.0 * x))
    }
    fn half(self, times: i32) -> Dd {
        let f = 2.0_f64.powi(-times);
        Dd(self.0 * f, self.1 * f)
    }
}

const LN2: Dd = Dd(std::f64::consts::LN_2, 2.319_046_813_846_299_6e-17);
const LN10: Dd = Dd(std::f64::consts::LN_10, -2.1707562233822494e-16);
/// π/2 in four parts.
const PIO2: [f64; 4] = [
    std::f64::consts::FRAC_PI_2,
    6.123233995736766e-17,
    -1.4973849048591833e-33,
    5.562_226_109_540_2e-50,
];

fn exp(x: Dd) -> Dd {
    expm1_reduced(x, false)
}

/// e^x by reduction to |r| < ln2/512, a Taylor series and nine squarings of e^r − 1.
fn expm1_reduced(x: Dd, minus_one: bool) -> Dd {
    let k = (x.0 / std::f64::consts::LN_2).round();
    let r = x.sub(LN2.mul(Dd::new(k))).half(9);
    let mut term = r;
    let mut sum = r;
    for n in 2..12 {
        term = term.mul(r).div(Dd::new(f64::from(n)));
        sum = sum.add(term);
    }
    for _ in 0..9 {
        sum = sum.add(sum).add(sum.mul(sum));
    }
    if minus_one && k == 0.0 {
        return sum;
    }
    let whole = sum.add(Dd::new(1.0));
    let (first, second) = ((k / 2.0).trunc() as i32, (k - (k / 2.0).trunc()) as i32);
    let scaled = Dd(
        whole.0 * 2.0_f64.powi(first) * 2.0_f64.powi(second),
        whole.1 * 2.0_f64.powi(first) * 2.0_f64.powi(second),
    );
    if minus_one { scaled.sub(Dd::new(1.0)) } else { scaled }
}

fn log(x: Dd) -> Dd {
    let mut y = Dd::new(x.0.ln());
    for _ in 0..2 {
        let e = exp(y.neg());
        y = y.add(x.mul(e).sub(Dd::new(1.0)));
    }
    y
}

fn sin_cos(x: f64) -> (Dd, Dd) {
    let n = (x / std::f64::consts::FRAC_PI_2).round();
    let mut r = Dd::new(x);
    for part in PIO2 {
        r = r.sub(two_product(n, part));
    }
    let z = r.mul(r);
    let (mut s, mut c) = (Dd::new(0.0), Dd::new(0.0));
    let (mut st, mut ct) = (r, Dd::new(1.0));
    for n in 0..18 {
        s = s.add(st);
        c = c.add(ct);
        let k = f64::from(2 * n);
        st = st.mul(z).div(Dd::new(-(k + 2.0) * (k + 3.0)));
        ct = ct.mul(z).div(Dd::new(-(k + 1.0) * (k + 2.0)));
    }
    match (n as i64).rem_euclid(4) {
        0 => (s, c),
        1 => (c, s.neg()),
        2 => (s.neg(), c.neg()),
        _ => (c.neg(), s),
    }
}

fn atan(x: Dd) -> Dd {
    let y = x.0.atan();
    let (s, c) = sin_cos(y);
    let t = s.div(c);
    let d = x.sub(t).div(Dd::new(1.0).add(x.mul(t)));
    Dd::new(y).add(d.sub(d.mul(d).mul(d).div(Dd::new(3.0))))
}

fn reference(name: &str, x: f64) -> Dd {
    let one = Dd::new(1.0);
    let v = Dd::new(x);
    match name {
        "exp" => exp(v),
        "log" => log(v),
        "log10" => log(v).div(LN10),
        "sin" => sin_cos(x).0,
        "cos" => sin_cos(x).1,
        "tan" => {
            let (s, c) = sin_cos(x);
            s.div(c)
        }
        "atan" => atan(v),
        "asin" => {
            let root = one.sub(v).mul(one.add(v)).sqrt();
            atan(v.div(root))
        }
        "acos" => {
            // 2·atan(√((1−x)/(1+x)))
            let a = atan(one.sub(v).div(one.add(v)).sqrt());
            a.add(a)
        }
        "sinh" => {
            let t = expm1_reduced(v, true);
            t.add(t.div(t.add(one))).half(1)
        }
        "cosh" => {
            let e = exp(v);
            e.add(one.div(e)).half(1)
        }
        "tanh" => {
            let t = expm1_reduced(v.add(v), true);
            t.div(t.add(Dd::new(2.0)))
        }
        other => panic!("{other}"),
    }
}

fn ulps(value: f64, reference: Dd) -> f64 {
    let size = reference.0.abs().max(f64::MIN_POSITIVE);
    let ulp = f64::from_bits(size.to_bits() + 1) - size;
    (Dd::new(value).sub(reference).0 / ulp).abs()
}

/// Values of a one-input model at many inputs, one tick each.
fn values(expression: &str, inputs: &[f64]) -> Vec<f64> {
    let source = format!("model E input Real u; output Real y = {expression}; end E;");
    let mut machine = Machine::new(&source);
    let knots = inputs
        .iter()
        .enumerate()
        .map(|(index, value)| (index as i64 * 10, *value))
        .collect();
    let plan = Plan {
        tick_nanos: 10,
        ticks: inputs.len() as u32,
        inputs: vec![InputTable {
            mode: InputMode::Hold,
            knots,
        }],
        method: Method::Rk4 { steps_per_tick: 1 },
        ..until(1.0, 1)
    };
    let plan = Plan {
        tick_nanos: 10,
        first_row: false,
        ..plan
    };
    let rows = machine.good(&plan);
    rows.column(0).collect()
}

/// Splitmix64: the same inputs in every run.
struct Random(u64);

impl Random {
    fn between(&mut self, low: f64, high: f64) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        low + (high - low) * ((z >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

#[test]
fn functions_are_within_two_units_in_the_last_place() {
    let ranges: [(&str, f64, f64, f64); 20] = [
        ("exp", -700.0, 700.0, 1.0),
        ("exp", -1.0, 1.0, 1.0),
        ("log", 1e-300, 1e-290, 1.0),
        ("log", 0.5, 2.0, 1.0),
        ("log", 1e-3, 1e6, 1.0),
        ("log10", 1e-3, 1e6, 2.0),
        ("sin", -10.0, 10.0, 1.0),
        ("sin", -1e9, 1e9, 1.0),
        ("cos", -10.0, 10.0, 1.0),
        ("cos", -1e9, 1e9, 1.0),
        ("tan", -10.0, 10.0, 2.0),
        ("tan", -1e6, 1e6, 2.0),
        ("atan", -10.0, 10.0, 1.0),
        ("asin", -1.0, 1.0, 1.0),
        ("acos", -1.0, 1.0, 1.0),
        ("sinh", -20.0, 20.0, 2.0),
        ("sinh", -1e-3, 1e-3, 2.0),
        ("cosh", -20.0, 20.0, 2.0),
        ("tanh", -5.0, 5.0, 2.0),
        ("tanh", -1e-2, 1e-2, 2.0),
    ];
    let mut rng = Random(7);
    for (name, low, high, limit) in ranges {
        let inputs: Vec<f64> = (0..20_000).map(|_| rng.between(low, high)).collect();
        let mut worst = (0.0, 0.0);
        for (x, y) in inputs.iter().zip(values(&format!("{name}(u)"), &inputs)) {
            let error = ulps(y, reference(name, *x));
            if error > worst.0 {
                worst = (error, *x);
            }
        }
        println!("{name} [{low}, {high}]: {:.3} ulp at {:e}", worst.0, worst.1);
        assert!(worst.0 <= limit, "{name}({:e}) is off by {} ulp", worst.1, worst.0);
    }
}

#[test]
fn powers_are_within_one_unit_in_the_last_place() {
    let mut rng = Random(7);
    for (low, high, exponent) in [
        (0.1, 10.0, 2.7),
        (1e-5, 1e5, -3.3),
        (0.9, 1.1, 1000.5),
        (1e-300, 1e300, 0.7),
    ] {
        let inputs: Vec<f64> = (0..10_000).map(|_| rng.between(low, high)).collect();
        let results = values(&format!("u^({exponent:?})"), &inputs);
        for (x, y) in inputs.iter().zip(results) {
            let exact = exp(log(Dd::new(*x)).mul(Dd::new(exponent)));
            assert!(
                ulps(y, exact) <= 1.0,
                "{x}^{exponent}: {y} is off by {} ulp",
                ulps(y, exact)
            );
        }
    }
}

#[test]
fn atan2_knows_its_quadrants() {
    let source = "model E input Real u; input Real v; output Real y = atan2(u, v); end E;";
    let mut machine = Machine::new(source);
    for (y, x) in [
        (1.0, 1.0),
        (1.0, -1.0),
        (-1.0, -1.0),
        (-1.0, 1.0),
        (0.0, -1.0),
        (1.0, 0.0),
        (-1.0, 0.0),
        (0.0, 0.0),
        (3.0, 1e-300),
    ] {
        let table = |value| InputTable {
            mode: InputMode::Hold,
            knots: vec![(0, value)],
        };
        let plan = Plan {
            inputs: vec![table(y), table(x)],
            ticks: 0,
            ..until(1.0, 1)
        };
        let got = machine.good(&plan).row(0)[0];
        let exact = f64::atan2(y, x);
        assert!(
            (got - exact).abs() <= 2.0 * f64::EPSILON * exact.abs(),
            "atan2({y}, {x}) = {got}, not {exact}"
        );
    }
}

#[test]
fn special_values() {
    for (expression, x, exact) in [
        ("exp(u)", 0.0, 1.0),
        ("exp(u)", -1000.0, 0.0),
        ("exp(u)", -745.0, 5e-324),
        ("log(u)", 1.0, 0.0),
        ("sin(u)", 0.0, 0.0),
        ("cos(u)", 0.0, 1.0),
        ("tanh(u)", 1000.0, 1.0),
        ("tanh(u)", -1000.0, -1.0),
        ("u^0.3", 0.0, 0.0),
        ("u^(1/3)", 1.0, 1.0),
        ("2^u", -3.0, 0.125),
        ("(-2)^u", 3.0, -8.0),
        ("asin(u)", 1.0, std::f64::consts::FRAC_PI_2),
        ("acos(u)", 1.0, 0.0),
        ("acos(u)", -1.0, std::f64::consts::PI),
        ("sinh(u)", 0.0, 0.0),
        ("cosh(u)", 0.0, 1.0),
        ("sqrt(u)", 2.0, std::f64::consts::SQRT_2),
        ("log10(u)", 1000.0, 3.0),
    ] {
        assert_eq!(values(expression, &[x])[0], exact, "{expression} at {x}");
    }
}

/// The constant folder and the module agree in every bit: the same formula over a literal and over an input.
#[test]
fn folding_changes_no_bit() {
    let mut rng = Random(7);
    let names = [
        "exp", "log", "log10", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "sqrt",
    ];
    for name in names {
        for _ in 0..5 {
            let x: f64 = rng.between(0.01, 0.99);
            let folded = values(&format!("{name}({x:?}) + 0*u"), &[0.0])[0];
            assert_eq!(
                folded.to_bits(),
                values(&format!("{name}(u)"), &[x])[0].to_bits(),
                "{name}({x:?})"
            );
        }
    }
    let folded = values("0.37^2.3 + atan2(0.2, -0.7) + 0*u", &[0.0])[0];
    assert_eq!(
        folded.to_bits(),
        values("u^2.3 + atan2(0.2, -0.7)", &[0.37])[0].to_bits()
    );
}
