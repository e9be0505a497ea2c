//! Second derivatives along lines: closed forms, differences of gradients over the same mesh, and bits in little memory.

#![allow(clippy::unwrap_used)]

use orrery_runtime::solver::{
    Along, InputMode, InputSeries, Limits, Loss, Method, Noise, Output, Problem, ProblemOptions, Series, SolveOptions,
    Values,
};
use orrery_runtime::{Engine, EngineKind};

const MIXED: &str = include_str!("support/mixed.mo");

fn problem(source: &str, of: &[&str], gradient_bytes: u64) -> Problem {
    let options = ProblemOptions {
        limits: Limits {
            gradient_bytes,
            ..Limits::default()
        },
        expressions: of.iter().map(|of| (*of).to_owned()).collect(),
        second_derivatives: true,
        ..ProblemOptions::default()
    };
    Problem::compile(
        &Engine::new(EngineKind::Cranelift).unwrap(),
        source,
        "test.mo",
        &options,
    )
    .unwrap()
}

fn tight(until: f64) -> SolveOptions {
    SolveOptions {
        method: Method::Tsit5,
        rtol: 1e-12,
        atol: 1e-14,
        ..SolveOptions::until(until)
    }
}

fn along(source: &str, of: &str, components: &[(&str, f64)], options: &SolveOptions) -> Along {
    let problem = problem(source, &[of], 64 << 20);
    let components: Vec<_> = components
        .iter()
        .map(|(name, value)| ((*name).to_owned(), *value))
        .collect();
    let direction = problem.direction(&components, &[]).unwrap();
    problem
        .loss_along(&Loss::Terminal(of.to_owned()), &direction, options)
        .unwrap()
}

/// Value, first and second derivative of a closed form by Richardson extrapolation of central differences.
fn differences(f: impl Fn(f64) -> f64) -> (f64, f64) {
    let at = |h: f64| {
        let (below, middle, above) = (f(-h), f(0.0), f(h));
        ((above - below) / (2.0 * h), (above - 2.0 * middle + below) / (h * h))
    };
    let (coarse, fine) = (at(2e-3), at(1e-3));
    ((4.0 * fine.0 - coarse.0) / 3.0, (4.0 * fine.1 - coarse.1) / 3.0)
}

fn close(found: f64, expected: f64, tolerance: f64, what: &str) {
    let error = (found - expected).abs() / expected.abs().max(1.0);
    assert!(error <= tolerance, "{what}: {found} and not {expected} ({error:e})");
}

#[test]
fn decay_has_its_closed_form() {
    let source = "model D parameter Real k = 0.7; parameter Real a = 2; Real x(start = a*a, fixed = true); \
                  equation der(x) = -k*x; end D;";
    for method in [Method::Tsit5, Method::Rk4 { step: 1e-3 }] {
        let options = SolveOptions { method, ..tight(1.5) };
        let found = along(source, "x", &[("k", 1.0), ("a", 0.5)], &options);
        // (2 + s/2)²·e^(−1.5(0.7 + s))
        let e = (-1.05_f64).exp();
        close(found.value, 4.0 * e, 1e-11, "value");
        close(found.first, (2.0 - 6.0) * e, 1e-11, "first");
        close(found.second, (0.5 - 6.0 + 9.0) * e, 1e-11, "second");
    }
}

#[test]
fn growth_has_its_closed_form() {
    let source = "model L parameter Real r = 1.3; parameter Real c = 2; Real x(start = 0.1, fixed = true); \
                  equation der(x) = r*x*(1 - x/c); end L;";
    let found = along(source, "x", &[("r", 1.0), ("c", -0.4), ("start(x)", 0.3)], &tight(2.0));
    let closed = |s: f64| {
        let (r, c, x) = (1.3 + s, 2.0 - 0.4 * s, 0.1 + 0.3 * s);
        c / (1.0 + (c / x - 1.0) * (-2.0 * r).exp())
    };
    let (first, second) = differences(closed);
    close(found.value, closed(0.0), 1e-11, "value");
    close(found.first, first, 1e-9, "first");
    close(found.second, second, 1e-6, "second");
}

/// The height of a ball after some bounces, and its bounces are where they are in closed form:
/// t₁ = √(2h₀/g), then each flight takes 2eᵏ√(2h₀/g).
fn height(e: f64, g: f64, h0: f64, t: f64) -> f64 {
    let mut flight = (2.0 * h0 / g).sqrt();
    let (mut at, mut v) = (flight, g * flight);
    loop {
        v *= e;
        flight = 2.0 * v / g;
        if at + flight > t {
            let s = t - at;
            return v * s - 0.5 * g * s * s;
        }
        at += flight;
    }
}

#[test]
fn bounces_have_their_closed_form() {
    let source = "model B parameter Real e = 0.8; parameter Real g = 9.81; parameter Real h0 = 1; \
                  Real h(start = h0, fixed = true); Real v(start = 0, fixed = true); equation der(h) = v; der(v) = -g; \
                  when h <= 0 then reinit(v, -e*pre(v)); end when; end B;";
    for (until, bounces) in [(0.3, 0), (0.7, 1), (1.5, 2), (2.5, 4)] {
        let lines: [&[(&str, f64)]; 5] = [
            &[("e", 1.0)],
            &[("g", 1.0)],
            &[("h0", 1.0)],
            &[("e", 0.3), ("g", -2.0), ("h0", 0.7)],
            &[("start(h)", 1.0)],
        ];
        for line in lines {
            let found = along(source, "h", line, &tight(until));
            let part = |name: &str| {
                line.iter()
                    .find(|(known, _)| *known == name)
                    .map_or(0.0, |(_, value)| *value)
            };
            let start = part("h0") + part("start(h)");
            let closed = |s: f64| {
                let (e, g, h0) = (0.8 + s * part("e"), 9.81 + s * part("g"), 1.0 + s * start);
                if bounces == 0 {
                    h0 - 0.5 * g * until * until
                } else {
                    height(e, g, h0, until)
                }
            };
            let (first, second) = differences(closed);
            close(found.value, closed(0.0), 1e-11, "value");
            close(found.first, first, 1e-8, &format!("first {line:?} {bounces}"));
            close(found.second, second, 3e-6, &format!("second {line:?} {bounces}"));
        }
    }
    // One bounce by hand: h = e·g·T·s − g·s²/2 with s = t − T; by e it is a line, by g it bends.
    let (e, g, t) = (0.8_f64, 9.81_f64, 0.7_f64);
    let found = along(source, "h", &[("g", 1.0)], &tight(t));
    let big = (2.0 / g).sqrt();
    let (one, two) = (-big / (2.0 * g), 3.0 * big / (4.0 * g * g));
    // u = g·T, s = t − T and their derivatives by g.
    let (u, u1, u2) = (g * big, 0.5 * big, -big / (4.0 * g));
    let (s, s1, s2) = (t - big, -one, -two);
    let exact = e * (u2 * s + 2.0 * u1 * s1 + u * s2) - (2.0 * s * s1 + g * (s1 * s1 + s * s2));
    close(found.second, exact, 1e-10, "one bounce");
    close(
        along(source, "h", &[("e", 1.0)], &tight(t)).second,
        0.0,
        1e-10,
        "a line",
    );
}

#[test]
fn doses_at_fixed_times_have_their_closed_form() {
    let source = "model P parameter Real ke = 0.3; parameter Real d = 5; parameter Real f = 0.8; \
                  Real c(start = 0, fixed = true); equation der(c) = -ke*c; \
                  when sample(1, 2) then reinit(c, c + f*d); end when; end P;";
    let found = along(source, "c^2", &[("ke", 1.0), ("d", 2.0), ("f", -0.5)], &tight(6.0));
    let closed = |s: f64| {
        let (ke, d, f) = (0.3 + s, 5.0 + 2.0 * s, 0.8 - 0.5 * s);
        let c: f64 = [5.0_f64, 3.0, 1.0]
            .iter()
            .map(|since| f * d * (-ke * since).exp())
            .sum();
        c * c
    };
    let (first, second) = differences(closed);
    close(found.value, closed(0.0), 1e-10, "value");
    close(found.first, first, 1e-8, "first");
    close(found.second, second, 1e-6, "second");
}

fn waves() -> Vec<InputSeries> {
    let wave = |mode, name: &str| InputSeries {
        name: name.to_owned(),
        mode,
        times: (0..30).map(|at| f64::from(at) * 0.17).collect(),
        values: (0..30).map(|at| f64::from(at % 7) * 0.1).collect(),
    };
    vec![wave(InputMode::Linear, "push"), wave(InputMode::Hold, "held")]
}

const OF: &str = "h + x*total";

fn losses() -> Vec<Loss> {
    let series = || Series {
        of: OF.to_owned(),
        times: (1..20).map(|at| f64::from(at) * 0.125).collect(),
        values: vec![0.5; 19],
        weights: vec![],
    };
    let noise = || Noise {
        name: Some("sigma".to_owned()),
        scale: 0.4,
    };
    vec![
        Loss::Terminal(OF.to_owned()),
        Loss::LeastSquares(vec![series()]),
        Loss::StudentT {
            series: vec![series()],
            noise: noise(),
            degrees: 4.0,
        },
        Loss::Gaussian(vec![series()], noise()),
    ]
}

fn mixed(until: f64) -> SolveOptions {
    SolveOptions {
        inputs: waves(),
        output: Output::Every(0.25),
        ..tight(until)
    }
}

/// Two bounces, seven doses, inputs of both kinds, memory, a hidden relation, fixed steps so that the mesh is the same.
#[test]
fn what_has_no_closed_form_agrees_with_differences_of_the_gradient() {
    let problem = problem(MIXED, &[OF], 64 << 20);
    let options = SolveOptions {
        method: Method::Rk4 { step: 0.002 },
        ..mixed(2.4)
    };
    let names = ["e", "g", "drag", "target", "start(x)"];
    for loss in losses() {
        let wrt = problem.wrt(&names.join(","), &loss.noise()).unwrap();
        let components: Vec<_> = names
            .iter()
            .zip([0.2, -1.0, 0.05, 0.6, 0.3])
            .map(|(n, v)| ((*n).to_owned(), v))
            .collect();
        let direction = problem.direction(&components, &loss.noise()).unwrap();
        let found = problem.loss_along(&loss, &direction, &options).unwrap();
        let mut session = problem.session().unwrap();
        let mut slope = |s: f64| {
            let at = [0.9, 9.81, 0.05, 3.0, 1.0];
            let moved: Vec<_> = components
                .iter()
                .zip(at)
                .map(|((name, v), at)| (name.clone(), at + s * v))
                .collect();
            let values: Values = problem.values(&moved).unwrap();
            let gradient = session.gradient(&loss, &wrt, &options, &values).unwrap();
            let pairs = gradient.by.iter().zip(&components);
            pairs.map(|((_, by), (_, component))| by * component).sum::<f64>()
        };
        let h = 1e-4;
        let coarse = (slope(h) - slope(-h)) / (2.0 * h);
        let fine = (slope(0.5 * h) - slope(-0.5 * h)) / h;
        close(found.first, slope(0.0), 1e-11, &format!("{loss:?} first"));
        close(
            found.second,
            (4.0 * fine - coarse) / 3.0,
            1e-6,
            &format!("{loss:?} second"),
        );
    }
}

#[test]
fn inputs_bend_what_they_drive() {
    let problem = problem(MIXED, &[OF], 64 << 20);
    let options = SolveOptions {
        method: Method::Rk4 { step: 0.002 },
        ..mixed(2.4)
    };
    let loss = Loss::Terminal(OF.to_owned());
    let direction = [("push".to_owned(), 1.0), ("held".to_owned(), -0.5)];
    let found = problem
        .loss_along(&loss, &problem.direction(&direction, &[]).unwrap(), &options)
        .unwrap();
    let wrt = problem.wrt("push,held", &[]).unwrap();
    let slope = |s: f64| {
        let mut options = options.clone();
        for (series, part) in options.inputs.iter_mut().zip([1.0, -0.5]) {
            series.values.iter_mut().for_each(|value| *value += s * part);
        }
        let gradient = problem.gradient(&loss, &wrt, &options).unwrap();
        let total = |at: usize| gradient.by_knots[at].1.iter().sum::<f64>();
        total(0) - 0.5 * total(1)
    };
    let h = 1e-4;
    close(found.first, slope(0.0), 1e-11, "first");
    close(found.second, (slope(h) - slope(-h)) / (2.0 * h), 1e-6, "second");
}

#[test]
fn a_hessian_is_that_of_the_lines() {
    let problem = problem(MIXED, &[OF], 64 << 20);
    let loss = &losses()[3];
    let names = ["e", "g", "target", "sigma"];
    let wrt: Vec<_> = problem
        .wrt(&names.join(","), &loss.noise())
        .unwrap()
        .into_iter()
        .map(|(_, wrt)| wrt)
        .collect();
    let options = mixed(2.4);
    let hessian = problem.hessian(loss, &wrt, &options).unwrap();
    let v = [0.3, -0.7, 1.1, 0.2];
    let direction: Vec<_> = wrt.iter().copied().zip(v).collect();
    let found = problem.loss_along(loss, &direction, &options).unwrap().second;
    let product: f64 = (0..4)
        .flat_map(|i| (0..4).map(move |j| (i, j)))
        .map(|(i, j)| v[i] * hessian[i][j] * v[j])
        .sum();
    close(product, found, 1e-10, "vᵀHv");
    assert!(hessian.iter().flatten().all(|number| *number != 0.0));
}

#[test]
fn second_derivatives_in_little_memory_are_the_same_bits() {
    let run = |bytes: u64| {
        let problem = problem(MIXED, &[OF], bytes);
        let components = [("g".to_owned(), 1.0), ("e".to_owned(), 0.1), ("push".to_owned(), 0.2)];
        let direction = problem.direction(&components, &[]).unwrap();
        let found = problem.rows_along(&direction, &mixed(5.0)).unwrap();
        let loss = problem.loss_along(&losses()[1], &direction, &mixed(5.0)).unwrap();
        assert_eq!(found.rows.times.len(), 21);
        let all = found.rows.values.iter().chain(&found.first).chain(&found.second);
        all.chain([&loss.value, &loss.first, &loss.second])
            .map(|value| value.to_bits())
            .collect::<Vec<u64>>()
    };
    assert_eq!(run(60 << 10), run(64 << 20));
}

#[test]
fn a_problem_that_was_not_compiled_for_it_says_so() {
    let plain = Problem::compile(
        &Engine::new(EngineKind::Cranelift).unwrap(),
        MIXED,
        "mixed.mo",
        &ProblemOptions::default(),
    );
    let plain = plain.unwrap();
    let direction = plain.direction(&[("g".to_owned(), 1.0)], &[]).unwrap();
    let error = plain.rows_along(&direction, &tight(1.0)).unwrap_err();
    assert!(error.to_string().contains("second_derivatives"), "{error}");
}

#[test]
fn every_method_bends_through_loops_and_determined_starts() {
    // u = k·x·z with x = z³ + z stays where it starts: x = s^1.5 + s^0.5 with s² + s = u/k.
    let source = "model S parameter Real k = 2; parameter Real u = 3; Real x; Real z(start = 1); \
                  initial equation der(x) = 0; equation der(x) = u - k*x*z; z^3 + z = x; end S;";
    let closed = |s: f64| {
        let square = 0.5 * ((1.0 + 4.0 * (3.0 - 0.4 * s) / (2.0 + 0.3 * s)).sqrt() - 1.0);
        square.powf(1.5) + square.sqrt()
    };
    let (first, second) = differences(closed);
    for method in [Method::Auto, Method::Tsit5, Method::Rodas5p, Method::Esdirk] {
        let options = SolveOptions { method, ..tight(2.0) };
        let found = along(source, "x", &[("k", 0.3), ("u", -0.4)], &options);
        close(found.value, closed(0.0), 1e-11, "value");
        close(found.first, first, 1e-9, "first");
        close(found.second, second, 1e-6, "second");
    }
}

/// By a parameter alone (hoisted out of the run) and by a state.
#[test]
fn every_function_bends_as_it_should() {
    type Function = fn(f64, f64) -> f64;
    let functions: [(&str, Function); 20] = [
        ("sqrt(x)", |x, _| x.sqrt()),
        ("exp(x*y)", |x, y| (x * y).exp()),
        ("log(x)", |x, _| x.ln()),
        ("log10(x + y)", |x, y| (x + y).log10()),
        ("sin(x)*y", |x, y| x.sin() * y),
        ("cos(x*y)", |x, y| (x * y).cos()),
        ("tan(x)", |x, _| x.tan()),
        ("asin(x/y)", |x, y| (x / y).asin()),
        ("acos(x/y)", |x, y| (x / y).acos()),
        ("atan(x)", |x, _| x.atan()),
        ("sinh(x)", |x, _| x.sinh()),
        ("cosh(x)", |x, _| x.cosh()),
        ("tanh(x)", |x, _| x.tanh()),
        ("x^2.5", |x, _| x.powf(2.5)),
        ("x^y", |x, y| x.powf(y)),
        ("x^3/y", |x, y| x.powi(3) / y),
        ("atan2(x, y)", |x, y| x.atan2(y)),
        ("abs(x - y)*x", |x, y| (x - y).abs() * x),
        ("max(x*x, y)", |x, y| (x * x).max(y)),
        ("min(x, y*y)", |x, y| x.min(y * y)),
    ];
    let equations = |a: &str, b: &str| -> String {
        let replaced = |of: &str| {
            of.replace("max", "MA")
                .replace("exp", "EP")
                .replace('x', a)
                .replace('y', b)
        };
        let restored = |text: String| text.replace("MA", "max").replace("EP", "exp");
        functions
            .iter()
            // What is added is nothing, and makes the number a variable of the run.
            .map(|(of, _)| format!("{} + (s - p)", restored(replaced(of))))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let source = format!(
        "model F parameter Real p = 0.7; parameter Real q = 1.3; Real s(start = p, fixed = true); Real r(start = q, \
         fixed = true); Real by_parameter[20] = {{{}}}; Real by_state[20] = {{{}}}; equation der(s) = 0; der(r) = 0; end F;",
        equations("p", "q"),
        equations("s", "r"),
    );
    let problem = problem(&source, &[], 1 << 20);
    let direction = problem
        .direction(&[("p".to_owned(), 1.0), ("q".to_owned(), -0.6)], &[])
        .unwrap();
    let found = problem.rows_along(&direction, &tight(1.0)).unwrap();
    for (at, name) in found.names.iter().enumerate() {
        let Some(number) = name
            .split_once('[')
            .and_then(|(_, rest)| rest.trim_end_matches(']').parse::<usize>().ok())
        else {
            continue;
        };
        let (of, function) = functions[number - 1];
        let (first, second) = differences(|s| function(0.7 + s, 1.3 - 0.6 * s));
        let last = found.first.len() - found.rows.columns + at;
        close(found.first[last], first, 1e-8, &format!("{name} = {of}, first"));
        close(found.second[last], second, 1e-6, &format!("{name} = {of}, second"));
    }
    assert!(found.names.len() >= 40, "{:?}", found.names);
}
