//! Models and texts that mean harm or went wrong: each costs its caller one clear error.

// The compiler knows no time; these tests bound how long it may take.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Instant;

use common::{Machine, build, errors, render, until};
use orrery_lang::abi::{self, AbiError, Code, InputMode, InputTable, Layout, Method, Plan};
use orrery_lang::{Options, compile};
use proptest::prelude::*;

#[test]
fn a_solution_that_explodes_is_an_error_with_time_and_equation() {
    let source = "model E output Real x(start=1, fixed=true); equation\n  der(x) = x^2;\nend E;";
    let mut machine = Machine::new(source);
    let (status, rows) = machine.run(&Plan {
        ticks: 10,
        rows_per_tick: 10,
        ..until(0.3, 1)
    });
    assert!(
        matches!(status.code, Code::NotFinite | Code::StepTooSmall | Code::StepLimit),
        "{:?}",
        status.code
    );
    assert!((status.time - 1.0).abs() < 1e-3, "stopped at {}", status.time);
    assert_eq!(status.ticks, 3);
    assert!(rows.times.len() > 30 && rows.values.iter().all(|value| value.is_finite()));
    let text = status.describe(&machine.compiled.meta).expect("an error");
    assert!(text.contains("E:") && text.contains("x"), "{text}");
}

#[test]
fn a_value_that_is_not_a_number_names_its_equation() {
    let source =
        "model E output Real x(start=1, fixed=true); output Real y; equation\n  der(x) = -1;\n  y = log(x);\nend E;";
    let mut machine = Machine::new(source);
    let (status, rows) = machine.run(&Plan {
        ticks: 20,
        ..until(0.1, 1)
    });
    assert_eq!(status.code, Code::NotFinite);
    let equation = &machine.compiled.meta.equations[status.equation.expect("an equation")];
    assert_eq!((equation.solves.as_str(), equation.line), ("y", 3));
    assert_eq!(rows.times.len(), status.rows as usize);
    let source = "model E output Real x(start=1, fixed=true); equation\n  der(x) = -1/(x - 1);\nend E;";
    let (status, _) = Machine::new(source).run(&until(1.0, 1));
    assert_eq!(status.code, Code::NotFinite);
    assert_eq!(status.equation, Some(0));
}

#[test]
fn limits_are_counted() {
    let source = "model E output Real x(start=1, fixed=true); equation der(x) = 1e6*cos(1e6*time); end E;";
    let mut machine = Machine::new(source);
    let (status, _) = machine.run(&Plan {
        max_steps: 50,
        ..until(1.0, 1)
    });
    assert_eq!(status.code, Code::StepLimit);
    assert_eq!(status.steps + status.rejected, 50);
}

#[test]
fn a_context_without_a_start_says_so() {
    let mut machine = Machine::new(include_str!("models/lotka_volterra.mo"));
    let (status, _) = machine.run(&Plan {
        initialise: None,
        ..until(1.0, 1)
    });
    assert_eq!(status.code, Code::NotInitialised);
}

#[test]
fn plans_that_make_no_sense_are_refused_before_anything_runs() {
    let compiled = build(include_str!("models/driven.mo"));
    let mut memory = vec![0_u8; 1 << 20];
    let mut refused = |plan: Plan| match abi::write_plan(&mut memory, 1024, &compiled.meta, &plan) {
        Err(AbiError::Plan { .. }) => {}
        other => panic!("{plan:?}: {other:?}"),
    };
    refused(Plan {
        tick_nanos: 0,
        ..until(1.0, 1)
    });
    refused(Plan {
        rows_per_tick: 0,
        ..until(1.0, 1)
    });
    refused(Plan {
        rtol: f64::NAN,
        ..until(1.0, 1)
    });
    refused(Plan {
        rtol: 0.0,
        atol: 0.0,
        ..until(1.0, 1)
    });
    refused(Plan {
        clock_hz: 0.0,
        ..until(1.0, 1)
    });
    refused(Plan {
        first_tick: i64::MAX,
        ..until(1.0, 1)
    });
    refused(Plan {
        method: Method::Rk4 { steps_per_tick: 0 },
        ..until(1.0, 1)
    });
    refused(Plan {
        max_steps: u32::MAX,
        ..until(1.0, 1)
    });
    let table = |knots| {
        vec![InputTable {
            mode: InputMode::Hold,
            knots,
        }]
    };
    refused(Plan {
        inputs: table(vec![(5, 1.0), (5, 2.0)]),
        ..until(1.0, 1)
    });
    refused(Plan {
        inputs: table(vec![(5, f64::NAN)]),
        ..until(1.0, 1)
    });
    let huge = Plan {
        ticks: i32::MAX as u32,
        rows_per_tick: i32::MAX as u32,
        ..until(1e-9, 1)
    };
    assert_eq!(Layout::for_plan(&compiled.meta, &huge).bytes, u32::MAX);
    assert!(matches!(
        abi::write_plan(&mut memory, 1024, &compiled.meta, &huge),
        Err(AbiError::Memory { .. })
    ));
    assert!(matches!(
        abi::restore(&mut memory, 1024, &compiled.meta, &[1, 2, 3]),
        Err(AbiError::Snapshot { .. })
    ));
}

#[test]
fn nesting_is_bounded_in_time() {
    let start = Instant::now();
    for text in [
        format!("model M Real x = {}1{}; end M;", "(".repeat(20_000), ")".repeat(20_000)),
        format!("model M Real x = {}1; end M;", "-(".repeat(20_000)),
        format!(
            "model M Real x = {}1{}; end M;",
            "sin(".repeat(20_000),
            ")".repeat(20_000)
        ),
        format!("model M Real x = {}1{}; end M;", "{".repeat(20_000), "}".repeat(20_000)),
        format!("model M Real x(start{}; end M;", "(a".repeat(20_000)),
        "model M ".repeat(20_000),
        format!("model M Real x = 1{}; end M;", " + 1".repeat(200_000)),
        format!("model M equation {} end M;", "if true then ".repeat(20_000)),
        format!("model M Real x = {} 1; end M;", "not ".repeat(20_000)),
        format!("model M Real x = {} 1; end M;", "if true then 1 else ".repeat(20_000)),
        format!("model M Real x(unit=\"{}\"); end M;", "(".repeat(20_000)),
    ] {
        let errors = errors(&text);
        assert!(
            ["too-deep", "syntax", "bad-unit"].contains(&errors[0].code.as_str()),
            "{}",
            render(&errors)
        );
        assert!(errors[0].render().len() < 2_000);
    }
    assert!(start.elapsed().as_secs_f64() < 5.0, "{:?}", start.elapsed());
}

#[test]
fn long_sums_and_many_equations_compile() {
    let sum: Vec<String> = (0..1_900).map(|k| format!("{k}*x")).collect();
    let source = format!(
        "model M output Real x(start=1, fixed=true); equation der(x) = -({})/1e7; end M;",
        sum.join(" + ")
    );
    Machine::new(&source).good(&until(0.1, 1));
    let source = "model Chain constant Integer n = 300; Real x[n](each start = 1, each fixed = true); equation \
                  der(x[1]) = -x[1]; for i in 2:n loop der(x[i]) = x[i-1] - x[i]*exp(-x[i-1]); end for; end Chain;";
    let mut machine = Machine::new(source);
    let rows = machine.good(&until(1.0, 1));
    assert!((rows.row(1)[0] - (-1.0_f64).exp()).abs() < 1e-6);
}

#[test]
fn small_texts_cannot_unfold_without_bound() {
    let start = Instant::now();
    for source in [
        "model M Real x[1000000000]; end M;",
        "model M Real x[1000,1000,1000]; end M;",
        "model M Real x; equation x = sum({i*1.0 for i in 1:100000000}); end M;",
        "model M Real x; equation for i in 1:100000000 loop x = 1; end for; end M;",
        "model M Real x[20000]; equation for i in 1:20000 loop for j in 1:20000 loop x[i] = x[j]; end for; end for; end M;",
        "model M M m; end M;",
        "model A B b; end A; model B A a; end B;",
        "model M extends M; end M;",
        "model M parameter Integer n = n + 1; Real x[n]; end M;",
    ] {
        let errors = errors(source);
        assert!(!errors.is_empty(), "{source}");
    }
    assert!(start.elapsed().as_secs_f64() < 20.0, "{:?}", start.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text_is_answered(text in "\\PC{0,200}") {
        let _ = compile(&text, "any.mo", &Options::default());
    }

    #[test]
    fn any_words_are_answered(words in prop::collection::vec(prop::sample::select(WORDS), 0..60)) {
        let text = format!("model M {}", words.join(" "));
        if let Err(errors) = compile(&text, "any.mo", &Options::default()) {
            prop_assert!(!errors.is_empty());
            for error in errors {
                prop_assert!(error.render().contains("any.mo"));
            }
        }
    }

    /// A valid file with some bytes changed.
    #[test]
    fn a_damaged_model_is_answered(changes in prop::collection::vec((0_usize..2000, any::<char>()), 1..4)) {
        let mut characters: Vec<char> = include_str!("../../../deploy/models/tclab.mo").chars().collect();
        for (place, character) in changes {
            let length = characters.len();
            characters[place % length] = character;
        }
        let text: String = characters.into_iter().collect();
        let _ = compile(&text, "damaged.mo", &Options::default());
    }
}

const WORDS: &[&str] = &[
    "Real",
    "x",
    "y",
    "z",
    "parameter",
    "input",
    "output",
    "constant",
    "Integer",
    "Boolean",
    "=",
    ";",
    "(",
    ")",
    "equation",
    "der",
    "+",
    "-",
    "*",
    "/",
    "^",
    "1",
    "2.5",
    "1e9",
    "time",
    "sin",
    "if",
    "then",
    "else",
    "end",
    "M",
    "for",
    "in",
    "loop",
    "1:3",
    "[",
    "]",
    "{",
    "}",
    ",",
    ".",
    "\"text\"",
    "noEvent",
    "when",
    "model",
    "extends",
    "start",
    "unit",
    "and",
    "or",
    "not",
    "<",
    ">",
    "==",
    "connect",
    "initial",
    "algorithm",
    "annotation",
    "each",
    "fixed",
    "true",
    ":=",
    ":",
];
