//! Gradients of long runs in little memory: the same bits as with all the memory they want.

#![allow(clippy::unwrap_used)]

use orrery_runtime::solver::{
    Gradient, InputMode, InputSeries, Limits, Loss, Method, Output, Problem, ProblemOptions, Series, SolveError,
    SolveOptions,
};
use orrery_runtime::{Engine, EngineKind};

const MIXED: &str = include_str!("support/mixed.mo");

fn series() -> Series {
    Series {
        of: "h + x*total".to_owned(),
        times: (1..40).map(|at| f64::from(at) * 0.125).collect(),
        values: vec![0.5; 39],
        weights: vec![],
    }
}

fn problem(gradient_bytes: u64) -> Problem {
    let options = ProblemOptions {
        limits: Limits {
            gradient_bytes,
            ..Limits::default()
        },
        expressions: vec!["h + x*total".to_owned(), "h*v".to_owned()],
        ..ProblemOptions::default()
    };
    Problem::compile(
        &Engine::new(EngineKind::Cranelift).unwrap(),
        MIXED,
        "mixed.mo",
        &options,
    )
    .unwrap()
}

fn options(method: Method) -> SolveOptions {
    let wave = |mode, name: &str| InputSeries {
        name: name.to_owned(),
        mode,
        times: (0..30).map(|at| f64::from(at) * 0.17).collect(),
        values: (0..30).map(|at| f64::from(at % 7) * 0.1).collect(),
    };
    SolveOptions {
        method,
        rtol: 1e-9,
        atol: 1e-11,
        output: Output::Ends,
        inputs: vec![wave(InputMode::Linear, "push"), wave(InputMode::Hold, "held")],
        ..SolveOptions::until(20.0)
    }
}

fn bits(gradient: &Gradient) -> Vec<u64> {
    let knots = gradient.by_knots.iter().flat_map(|(_, knots)| knots);
    let all = gradient.by.iter().map(|(_, value)| value).chain(knots);
    all.chain([&gradient.value]).map(|value| value.to_bits()).collect()
}

#[test]
fn the_bits_do_not_depend_on_the_memory() {
    let losses = [Loss::LeastSquares(vec![series()]), Loss::Terminal("h*v".to_owned())];
    let names = "e,g,drag,target,push,held,start(h),start(x)";
    for method in [Method::Tsit5, Method::Rk4 { step: 0.01 }] {
        let options = options(method);
        for loss in &losses {
            let whole = problem(256 << 20);
            let wrt = whole.wrt(names, &[]).unwrap();
            let adjoint = whole.gradient(loss, &wrt, &options).unwrap();
            let forward = whole.gradient_forward(loss, &wrt, &options).unwrap();
            assert!(adjoint.by.iter().all(|(_, value)| *value != 0.0), "{adjoint:?}");
            // Of each step the tape holds five slopes of three states at least.
            let tape_bytes = whole.solve(&options).unwrap().statistics.steps * 8 * 15;
            for bytes in [40 << 10, 60 << 10] {
                assert!(tape_bytes > 2 * bytes, "{tape_bytes} bytes are no long tape");
                let pieces = problem(bytes);
                assert_eq!(bits(&pieces.gradient(loss, &wrt, &options).unwrap()), bits(&adjoint));
                assert_eq!(
                    bits(&pieces.gradient_forward(loss, &wrt, &options).unwrap()),
                    bits(&forward)
                );
            }
        }
    }
}

#[test]
fn too_little_memory_is_named_with_what_would_do() {
    let wrt = |problem: &Problem| problem.wrt("g", &[]).unwrap();
    let loss = Loss::Terminal("h*v".to_owned());
    let refuse = |bytes: u64, loss: &Loss| {
        let problem = problem(bytes);
        problem
            .gradient(loss, &wrt(&problem), &options(Method::Tsit5))
            .unwrap_err()
    };
    let Err(SolveError::Value { .. }) = Err::<(), _>(refuse(1000, &loss)) else {
        panic!("1000 bytes are no memory");
    };
    // Four thousand rows within a few steps.
    let many = Series {
        times: (0..4096).map(|at| f64::from(at) / 4096.0).collect(),
        values: vec![0.0; 4096],
        ..series()
    };
    let loss = Loss::LeastSquares(vec![many]);
    let mut bytes = 32 << 10;
    for turn in 0.. {
        let enough = problem(bytes);
        let error = match enough.gradient(&loss, &wrt(&enough), &options(Method::Tsit5)) {
            Ok(_) => {
                assert!(turn > 0, "the first memory is too little");
                break;
            }
            Err(error) => error,
        };
        let SolveError::GradientMemory {
            needed_bytes,
            budget_bytes,
        } = error
        else {
            panic!("{error}");
        };
        assert!(budget_bytes == bytes && needed_bytes > bytes && turn < 8, "{error}");
        bytes = needed_bytes;
    }
    // A long run of small steps: the checkpoints are too many.
    let long = SolveOptions {
        method: Method::Rk4 { step: 1e-5 },
        ..options(Method::Tsit5)
    };
    let small = problem(16 << 10);
    let loss = Loss::Terminal("h*v".to_owned());
    let error = small.gradient(&loss, &wrt(&small), &long).unwrap_err();
    assert!(matches!(error, SolveError::GradientMemory { .. }), "{error}");
}
