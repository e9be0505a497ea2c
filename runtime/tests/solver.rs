//! Models solved by themselves: exact times, pieces that join, ensembles, limits, and modules that mean no good.

#![allow(clippy::unwrap_used)]

#[path = "support/hostile.rs"]
mod hostile;

use orrery_runtime::solver::{
    InputMode, InputSeries, Limits, Loss, Method, Noise, Output, Problem, ProblemOptions, Rows, Series, Solution,
    SolveError, SolveOptions, Values,
};
use orrery_runtime::{Engine, EngineKind};
use proptest::prelude::*;
use wasm_encoder::{BlockType, Instruction as I, MemArg};

const DECAY: &str = r#"
model Decay
  parameter Real k(unit = "1/s", min = 0) = 2;
  parameter Real twice(unit = "1/s") = 2*k "depends on k";
  parameter Integer n = 1 "structural";
  Real many[n](each unit = "1/s");
  input Real u(unit = "1/s", start = 0);
  output Real x(start = 1, fixed = true);
  Real rate(unit = "1/s");
equation
  for i in 1:n loop
    many[i] = twice/2*x;
  end for;
  rate = sum(many);
  der(x) = u - rate;
end Decay;
"#;

const LOTKA: &str = "
model LotkaVolterra
  parameter Real a = 1.5; parameter Real b = 1; parameter Real c = 3; parameter Real d = 1;
  output Real x(start = 1, fixed = true);
  output Real y(start = 1, fixed = true);
equation
  der(x) = a*x - b*x*y;
  der(y) = d*x*y - c*y;
end LotkaVolterra;
";

fn problem(source: &str, set: &[(&str, f64)]) -> Problem {
    on(EngineKind::Cranelift, source, set, Limits::default()).unwrap()
}

fn on(kind: EngineKind, source: &str, set: &[(&str, f64)], limits: Limits) -> Result<Problem, SolveError> {
    let options = ProblemOptions {
        model: None,
        set: set.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        limits,
        ..ProblemOptions::default()
    };
    Problem::compile(&Engine::new(kind).unwrap(), source, "test.mo", &options)
}

fn every(until: f64, step: f64) -> SolveOptions {
    SolveOptions {
        output: Output::Every(step),
        rtol: 1e-9,
        atol: 1e-12,
        ..SolveOptions::until(until)
    }
}

fn bits(rows: &Rows) -> Vec<u64> {
    let all = rows.times.iter().chain(&rows.values);
    all.map(|value| value.to_bits()).collect()
}

fn last(solution: &Solution, column: &str) -> f64 {
    let at = solution.names.iter().position(|name| name == column).unwrap();
    solution.rows.column(at).last().unwrap()
}

#[test]
fn rows_come_at_the_times_asked_for() {
    let solution = problem(DECAY, &[]).solve(&every(1.0, 0.1)).unwrap();
    assert_eq!(solution.names, ["x", "many[1]", "rate"]);
    let times = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
    assert_eq!(solution.rows.times, times);
    for (time, x) in times.iter().zip(solution.rows.column(0)) {
        assert!((x - (-2.0 * time).exp()).abs() < 1e-8, "{time}: {x}");
    }
    assert!(solution.statistics.steps > 5 && solution.statistics.method == "tsit5");
}

#[test]
fn rows_do_not_change_the_steps() {
    let decay = problem(DECAY, &[]);
    let ends = decay
        .solve(&SolveOptions {
            output: Output::Ends,
            ..every(3.0, 1.0)
        })
        .unwrap();
    assert_eq!(ends.rows.times, [0.0, 3.0]);
    for output in [Output::Every(0.01), Output::Every(0.7), Output::At(vec![0.5, 2.25])] {
        let fine = decay
            .solve(&SolveOptions {
                output,
                ..every(3.0, 1.0)
            })
            .unwrap();
        assert_eq!(fine.statistics, ends.statistics);
        assert_eq!(last(&fine, "x").to_bits(), last(&ends, "x").to_bits());
    }
}

#[test]
fn values_reach_every_kind_of_name() {
    let at = |set: &[(&str, f64)]| last(&problem(DECAY, set).solve(&every(1.0, 1.0)).unwrap(), "x");
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-8, "{a} {b}");
    near(at(&[("k", 1.0)]), (-1.0_f64).exp());
    near(at(&[("start(x)", 3.0)]), 3.0 * (-2.0_f64).exp());
    near(at(&[("n", 2.0)]), (-4.0_f64).exp());
    // A parameter that depends on another, and with it the other one without effect.
    near(at(&[("twice", 6.0), ("k", 100.0)]), (-3.0_f64).exp());
    near(at(&[("u", 2.0)]), 1.0);
    for (name, value) in [
        ("kk", 1.0),
        ("k", -1.0),
        ("k", f64::NAN),
        ("start(z)", 0.0),
        ("start(x)", f64::INFINITY),
    ] {
        let error = on(EngineKind::Cranelift, DECAY, &[(name, value)], Limits::default())
            .err()
            .unwrap();
        assert!(
            error
                .to_string()
                .contains(name.trim_start_matches("start(").trim_end_matches(')')),
            "{error}"
        );
    }
}

#[test]
fn inputs_follow_their_series() {
    let input = |mode| InputSeries {
        name: "u".to_owned(),
        mode,
        times: vec![0.0, 0.5, 1.0],
        values: vec![0.0, 1.0, 3.0],
    };
    let integrator = problem(DECAY, &[("k", 0.0), ("start(x)", 0.0)]);
    let area = |mode| {
        let options = SolveOptions {
            inputs: vec![input(mode)],
            ..every(1.5, 0.25)
        };
        last(&integrator.solve(&options).unwrap(), "x")
    };
    assert!((area(InputMode::Hold) - (0.5 + 1.5)).abs() < 1e-12);
    assert!((area(InputMode::Linear) - (0.25 + 1.0 + 1.5)).abs() < 1e-12);
    let mut crooked = input(InputMode::Hold);
    crooked.times[1] = 0.0;
    let options = SolveOptions {
        inputs: vec![crooked],
        ..every(1.0, 1.0)
    };
    assert!(integrator.solve(&options).is_err());
}

#[test]
fn a_fixed_step_is_the_one_asked_for() {
    let options = SolveOptions {
        method: Method::Rk4 { step: 0.1 },
        ..every(1.0, 0.5)
    };
    let solution = problem(DECAY, &[]).solve(&options).unwrap();
    assert_eq!(
        (solution.statistics.steps, solution.statistics.method.as_str()),
        (10, "rk4")
    );
    assert_eq!(solution.rows.times, [0.0, 0.5, 1.0]);
    let factor = 1.0 - 0.2 + 0.02 - 0.2_f64.powi(3) / 6.0 + 0.2_f64.powi(4) / 24.0;
    assert!((last(&solution, "x") - factor.powi(10)).abs() < 1e-15);
    for step in [0.0, -1.0, f64::NAN, 1e-12] {
        let options = SolveOptions {
            method: Method::Rk4 { step },
            ..every(1.0, 0.5)
        };
        assert!(matches!(
            problem(DECAY, &[]).solve(&options),
            Err(SolveError::Value { .. })
        ));
    }
}

#[test]
fn an_output_of_many_pieces_is_one_output() {
    let decay = problem(DECAY, &[]);
    let (mut rows, mut pieces, mut previous) = (0_u64, 0, -1.0);
    let statistics = decay.stream(&every(3000.0, 0.001), &mut |piece| {
        pieces += 1;
        for (at, time) in piece.times.iter().enumerate() {
            assert!(*time > previous);
            previous = *time;
            if rows % 1000 == 0 {
                assert_eq!(*time, (rows / 1000) as f64);
                assert!((piece.row(at)[0] - (-2.0 * time).exp()).abs() < 1e-8);
            }
            rows += 1;
        }
        Ok(())
    });
    assert!(statistics.unwrap().steps > 10);
    assert_eq!((rows, pieces, previous), (3_000_001, 2, 3000.0));
}

#[test]
fn members_of_an_ensemble_get_the_bits_they_get_alone() {
    let lotka = problem(LOTKA, &[]);
    let member = |at: usize| {
        let named = [
            ("a".to_owned(), 1.0 + 0.01 * at as f64),
            ("start(x)".to_owned(), 0.5 + 0.02 * at as f64),
        ];
        lotka.values(&named).unwrap()
    };
    let mut members: Vec<Values> = (0..40).map(member).collect();
    // One of them leaves the numbers.
    members[17] = lotka
        .values(&[("start(x)".to_owned(), 1e308), ("a".to_owned(), 1e300)])
        .unwrap();
    let options = every(8.0, 0.5);
    let one = lotka.solve_many(&members, &options, 1);
    let two = lotka.solve_many(&members, &options, 2);
    for (at, member) in members.iter().enumerate() {
        let alone = lotka.session().unwrap().solve(&options, member);
        match (&alone, &one[at], &two[at]) {
            (Ok(alone), Ok(one), Ok(two)) => {
                assert_eq!(bits(&alone.rows), bits(&one.rows), "member {at} on one thread");
                assert_eq!(bits(&alone.rows), bits(&two.rows), "member {at} on two threads");
            }
            (Err(alone), Err(one), Err(two)) => assert!(at == 17 && alone == one && alone == two, "{alone}"),
            _ => panic!("member {at} differs"),
        }
    }
    assert!(one[17].is_err());
    assert!(lotka.solve_many(&[], &options, 4).is_empty());
}

#[test]
fn both_engines_give_the_same_bits() {
    let solve = |kind| {
        on(kind, LOTKA, &[], Limits::default())
            .unwrap()
            .solve(&every(10.0, 0.1))
            .unwrap()
    };
    let (machine, interpreted) = (solve(EngineKind::Cranelift), solve(EngineKind::Pulley));
    assert_eq!(bits(&machine.rows), bits(&interpreted.rows));
    assert_eq!(machine.statistics, interpreted.statistics);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn both_ends_are_exact(mantissa in 1.0..10.0_f64, exponent in -9..12_i32, rows in 1..20_u32) {
        thread_local!(static STILL: Problem = problem("model Still output Real x(start = 1, fixed = true); equation der(x) = 0; end Still;", &[]));
        let until = mantissa * 10_f64.powi(exponent);
        let step = until / f64::from(rows);
        let solution = STILL.with(|still| still.solve(&every(until, step))).unwrap();
        prop_assert_eq!(solution.rows.times.len() as u32, rows + 1);
        prop_assert_eq!(solution.rows.times[0], 0.0);
        prop_assert_eq!(*solution.rows.times.last().unwrap(), until);
        for (row, time) in solution.rows.times.iter().enumerate() {
            prop_assert!((time - row as f64 * step).abs() <= 2.0 * f64::EPSILON * until);
        }
    }
}

#[test]
fn limits_end_a_run_with_one_clear_error() {
    let steps = Limits {
        max_steps: 50,
        ..Limits::default()
    };
    let error = on(EngineKind::Cranelift, LOTKA, &[], steps)
        .unwrap()
        .solve(&every(1000.0, 1.0))
        .unwrap_err();
    assert!(error.to_string().contains("limit of 50 steps"), "{error}");

    let deadline = Limits {
        deadline_ms: Some(50),
        max_steps: u32::MAX,
        ..Limits::default()
    };
    let long = on(EngineKind::Cranelift, LOTKA, &[], deadline).unwrap();
    assert_eq!(
        long.solve(&SolveOptions::until(1e9)),
        Err(SolveError::Deadline { deadline_ms: 50 })
    );

    let memory = Limits {
        memory_mib: 1,
        ..Limits::default()
    };
    let small = on(EngineKind::Cranelift, LOTKA, &[], memory).unwrap();
    assert_eq!(
        small.solve(&every(1000.0, 0.001)),
        Err(SolveError::Memory { limit_mib: 1 })
    );
    // The instance is whole: what fits still runs.
    assert!(small.solve(&every(10.0, 0.1)).is_ok());
}

#[test]
fn rows_before_a_failure_are_handed_on() {
    let source = "model Blow output Real x(start = 1, fixed = true); equation der(x) = x^2; end Blow;";
    let mut seen = Vec::new();
    let error = problem(source, &[]).stream(&every(2.0, 0.25), &mut |rows| {
        seen.extend_from_slice(&rows.times);
        Ok(())
    });
    assert!(error.unwrap_err().to_string().contains("Blow"));
    assert_eq!(seen[..4], [0.0, 0.25, 0.5, 0.75]);
    let refused = problem(DECAY, &[]).stream(&every(1.0, 0.1), &mut |_| Err(SolveError::Output("full".to_owned())));
    assert_eq!(refused, Err(SolveError::Output("full".to_owned())));
}

const BALL: &str = "
model Ball
  parameter Real g = 9.81; parameter Real e = 0.8; parameter Real h0 = 1;
  output Real h(start = h0, fixed = true);
  output Real v(start = 0, fixed = true);
equation
  der(h) = v;
  der(v) = -g;
  when h <= 0 then
    reinit(v, -e*pre(v));
  end when;
end Ball;
";

#[test]
fn events_have_two_rows_each_wherever_rows_are() {
    let ball = problem(BALL, &[]);
    let ends = ball
        .solve(&SolveOptions {
            output: Output::Ends,
            ..every(1.0, 1.0)
        })
        .unwrap();
    let bounce = (2.0_f64 / 9.81).sqrt();
    assert!(ends.statistics.events >= 1);
    assert_eq!(ends.rows.times.len() as u64, 2 + 2 * ends.statistics.events);
    assert_eq!(ends.rows.times[1], ends.rows.times[2]);
    assert!((ends.rows.times[1] - bounce).abs() < 1e-9);
    assert!((ends.rows.row(2)[1] + 0.8 * ends.rows.row(1)[1]).abs() < 1e-9);
    // The grid is finer than what is asked for; rows of events are kept.
    let some = ball.solve(&every(1.0, 0.3)).unwrap();
    assert_eq!(some.rows.times.len() as u64, 5 + 2 * some.statistics.events);
    // More events than fit at first.
    let many = ball
        .solve(&SolveOptions {
            output: Output::Ends,
            ..every(4.0, 1.0)
        })
        .unwrap();
    assert!(many.statistics.events > 10);
    let most = problem(BALL, &[("e", 1.0), ("h0", 1e-3)]);
    let most = most
        .solve(&SolveOptions {
            output: Output::Ends,
            ..every(20.0, 1.0)
        })
        .unwrap();
    assert!(most.statistics.events > 400);
    assert_eq!(most.rows.times.len() as u64, 2 + 2 * most.statistics.events);
}

#[test]
fn gradients_through_an_event_have_their_closed_form() {
    let ball = problem(BALL, &[]);
    let wrt = ball.wrt("g,e,h0,start(h),start(v)", &[]).unwrap();
    let gradient = ball
        .gradient(&Loss::Terminal("h".to_owned()), &wrt, &every(0.7, 0.7))
        .unwrap();
    // h(t) = e·√(2·g·h0)·s − g·s²/2 with s = t − √(2·h0/g).
    let h = |g: f64, e: f64, h0: f64| {
        let s = 0.7 - (2.0 * h0 / g).sqrt();
        e * (2.0 * g * h0).sqrt() * s - 0.5 * g * s * s
    };
    let central = |f: &dyn Fn(f64) -> f64| (f(1e-5) - f(-1e-5)) / 2e-5;
    let by = |name: &str| gradient.by.iter().find(|(known, _)| known == name).unwrap().1;
    let near = |found: f64, exact: f64| assert!((found - exact).abs() < 1e-7, "{found} {exact}");
    near(gradient.value, h(9.81, 0.8, 1.0));
    near(by("g"), central(&|d| h(9.81 + d, 0.8, 1.0)));
    near(by("e"), central(&|d| h(9.81, 0.8 + d, 1.0)));
    near(by("h0"), central(&|d| h(9.81, 0.8, 1.0 + d)));
    near(by("start(h)"), by("h0"));
}

#[test]
fn losses_of_a_run_have_their_gradients() {
    let series = |of: &str| Series {
        of: of.to_owned(),
        times: vec![0.25, 0.5, 1.5],
        values: vec![1.1, 0.9, 1.4],
        weights: vec![1.0, 2.0, 0.5],
    };
    let noise = |scale| Noise {
        name: Some("sigma".to_owned()),
        scale,
    };
    let fit = |scale| {
        Loss::Sum(vec![
            (1.0, Loss::Gaussian(vec![series("x"), series("x*y - y")], noise(scale))),
            (0.5, Loss::Path("(x - 1)^2".to_owned())),
            (2.0, Loss::Terminal("sin(y)".to_owned())),
        ])
    };
    let (expressions, integrals) = fit(1.0).expressions();
    let compile = |set: &[(&str, f64)]| {
        let options = ProblemOptions {
            set: set.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
            expressions: expressions.clone(),
            integrals: integrals.clone(),
            ..ProblemOptions::default()
        };
        Problem::compile(&Engine::new(EngineKind::Cranelift).unwrap(), LOTKA, "test.mo", &options).unwrap()
    };
    let options = SolveOptions {
        rtol: 1e-12,
        atol: 1e-13,
        ..SolveOptions::until(2.0)
    };
    let whole = compile(&[]);
    let wrt = whole.wrt("a,d,start(y),sigma", &fit(0.3).noise()).unwrap();
    let gradient = whole.gradient(&fit(0.3), &wrt, &options).unwrap();
    let value = |set: &[(&str, f64)], scale: f64| compile(set).gradient(&fit(scale), &wrt, &options).unwrap().value;
    let h = 1e-5;
    for ((name, found), (key, at)) in
        gradient
            .by
            .iter()
            .zip([("a", 1.5), ("d", 1.0), ("start(y)", 1.0), ("sigma", 0.3)])
    {
        assert_eq!(name, key);
        let difference = if name == "sigma" {
            (value(&[], at + h) - value(&[], at - h)) / (2.0 * h)
        } else {
            (value(&[(key, at + h)], 0.3) - value(&[(key, at - h)], 0.3)) / (2.0 * h)
        };
        assert!(
            (found - difference).abs() < 1e-6 * (1.0 + found.abs()),
            "{name}: {found} {difference}"
        );
    }
    let options = ProblemOptions {
        expressions: vec!["x; end".to_owned()],
        ..ProblemOptions::default()
    };
    let error = Problem::compile(&Engine::new(EngineKind::Cranelift).unwrap(), LOTKA, "test.mo", &options);
    assert!(matches!(error, Err(SolveError::Value { .. })));
    // An error in an expression is placed in it, and names nothing of ours.
    let options = ProblemOptions {
        expressions: vec!["x^2 + unknown".to_owned()],
        ..ProblemOptions::default()
    };
    let error = Problem::compile(&Engine::new(EngineKind::Cranelift).unwrap(), LOTKA, "test.mo", &options);
    let Err(SolveError::Model(errors)) = error else {
        panic!("an unknown variable is an error");
    };
    let place = (errors[0].file.as_str(), errors[0].line, errors[0].column);
    assert_eq!(place, ("the expression", 1, 7));
    assert!(!errors[0].render().contains("Extended"));
}

/// What a solve of this module comes to, on both engines.
fn hostile_solve(compiled: &orrery_lang::Compiled, limits: Limits) -> SolveError {
    let solve = |kind| {
        let engine = Engine::new(kind).unwrap();
        Problem::load(&engine, compiled.clone(), limits)
            .and_then(|problem| problem.solve(&SolveOptions::until(1.0)))
            .unwrap_err()
    };
    let errors = [solve(EngineKind::Cranelift), solve(EngineKind::Pulley)];
    assert_eq!(errors[0], errors[1]);
    errors[0].clone()
}

const QUICK: Limits = Limits {
    gradient_bytes: 1 << 20,
    memory_mib: 2,
    max_steps: 1000,
    deadline_ms: Some(50),
};

#[test]
fn a_hostile_module_costs_its_caller_one_clear_error() {
    let endless = [I::Loop(BlockType::Empty), I::Br(0), I::End, I::I32Const(0)];
    let stopped = SolveError::Deadline { deadline_ms: 50 };
    assert_eq!(hostile_solve(&hostile::module(&endless, false), QUICK), stopped);
    // As a start function, before anything is called.
    assert_eq!(hostile_solve(&hostile::build(&endless, false, 1, true), QUICK), stopped);

    let grow = [
        I::Loop(BlockType::Empty),
        I::I32Const(1),
        I::MemoryGrow(0),
        I::I32Const(-1),
        I::I32Ne,
        I::BrIf(0),
        I::End,
        I::I32Const(7),
    ];
    let error = hostile_solve(&hostile::module(&grow, false), QUICK);
    assert!(error.to_string().contains("solve returned 7"), "{error}");
    let idle = [I::I32Const(0)];
    // 4 GiB from the start.
    let error = hostile_solve(&hostile::build(&idle, false, 65536, false), QUICK);
    assert_eq!(error, SolveError::Memory { limit_mib: 2 });

    let error = hostile_solve(&hostile::module(&[I::Unreachable], false), QUICK);
    assert!(error.to_string().contains("trapped"), "{error}");
    let error = hostile_solve(&hostile::module(&[I::LocalGet(0), I::Call(0)], false), QUICK);
    assert!(error.to_string().contains("trapped"), "{error}");
    let error = hostile_solve(&hostile::module(&idle, true), QUICK);
    assert!(error.to_string().contains("env.launch"), "{error}");
    let error = hostile_solve(&hostile::module(&idle, false), QUICK);
    assert!(error.to_string().contains("0 of 2 rows"), "{error}");

    let mut vast = hostile::module(&idle, false);
    vast.wasm.resize(33 << 20, 0);
    let error = hostile_solve(&vast, QUICK);
    assert!(error.to_string().contains("no module has more than"), "{error}");
}

#[test]
fn rows_that_are_not_numbers_or_not_there_are_noticed() {
    let at = |offset| MemArg {
        offset,
        align: 2,
        memory_index: 0,
    };
    // Claims as many rows as a word holds, and fills the first with NaN. (Offsets: orrery_lang::abi.)
    let storm = [
        I::LocalGet(0),
        I::I32Const(-1),
        I::I32Store(at(260)),
        I::LocalGet(0),
        I::LocalGet(0),
        I::I32Load(at(68)),
        I::I32Add,
        I::F64Const(f64::NAN.into()),
        I::F64Store(MemArg { align: 3, ..at(8) }),
        I::I32Const(0),
    ];
    let error = hostile_solve(&hostile::module(&storm, false), QUICK);
    assert!(error.to_string().contains("`x` is not a finite number"), "{error}");
    // Claims rows that it never wrote, of addresses beyond its memory: the host reads what is there.
    let vast = [
        I::LocalGet(0),
        I::I32Const(-1),
        I::I32Store(at(260)),
        I::LocalGet(0),
        I::I32Const(-64),
        I::I32Store(at(68)),
        I::I32Const(0),
    ];
    let engine = Engine::new(EngineKind::Cranelift).unwrap();
    let problem = Problem::load(&engine, hostile::module(&vast, false), QUICK).unwrap();
    let solution = problem.solve(&SolveOptions::until(1.0)).unwrap();
    // The plan has room for both ends and for rows at events.
    assert!(solution.rows.times.len() < 100, "{}", solution.rows.times.len());
}
