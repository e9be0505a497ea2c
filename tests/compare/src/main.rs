//! Orrery's modules beside what a user would otherwise pick, in one run: hand-written Rust, diffsol, diffrax.
//!
//! `make compare`. Each method gets the loosest tolerance that reaches the task's error, so that times are those of equal
//! results; repetitions of all methods of a task are interleaved and the medians of their processor times printed, as Markdown
//! tables.

mod diffrax;
mod models;
mod native;
mod orrery;
mod rival;
mod timing;

use std::cell::RefCell;

use cpu_time::ProcessTime;
use orrery_lang::abi::{InputMode, InputTable, Method, Plan};
use serde_json::Value;
use wasmtime::Engine;

use crate::diffrax::Diffrax;
use crate::orrery::{Machine, until};
use crate::timing::{Batch, here, median, medians};

pub type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let only = std::env::args().nth(1).unwrap_or_default();
    let engine = orrery::engine()?;
    let side = match Diffrax::start() {
        Ok(side) => Some(RefCell::new(side)),
        Err(error) => {
            eprintln!("without diffrax: {error}");
            None
        }
    };
    let version = side.as_ref().map(|side| side.borrow().version.clone());
    println!("diffsol 0.18.0, {}", version.as_deref().unwrap_or("no diffrax"));
    for (name, task) in [
        ("value", value as Task),
        ("stiff", stiff),
        ("rate", rate),
        ("gradient", gradient),
        ("text", text),
    ] {
        if name.starts_with(&only) {
            println!("\n### {name}\n");
            task(&engine, side.as_ref())?;
        }
    }
    Ok(())
}

type Task = fn(&Engine, Option<&RefCell<Diffrax>>) -> Result<(), Failure>;

/// A way to solve a problem: its state by a tolerance.
struct Way<'a> {
    name: String,
    solve: Box<dyn FnMut(f64) -> Result<Vec<f64>, Failure> + 'a>,
    /// Runs it this many times, where its process measures; else it is measured here.
    elsewhere: Option<Box<dyn FnMut(f64, usize) -> Result<f64, Failure> + 'a>>,
    /// A tolerance that is given and not looked for.
    given: Option<f64>,
}

impl<'a> Way<'a> {
    fn orrery(
        engine: &Engine,
        source: &str,
        order: &'a [usize],
        plan: impl Fn(f64) -> Plan + 'a,
        name: &str,
    ) -> Result<Way<'a>, Failure> {
        let mut machine = Machine::new(engine, orrery::model(source)?)?;
        let solve = move |tolerance| {
            let values = machine.value(&plan(tolerance))?;
            Ok(order.iter().map(|index| values[*index]).collect())
        };
        Ok(Way {
            name: format!("Orrery {name}"),
            solve: Box::new(solve),
            elsewhere: None,
            given: None,
        })
    }

    fn diffsol(mut solver: rival::Solver, method: rival::Method) -> Way<'a> {
        Way {
            name: format!("diffsol {method:?}"),
            solve: Box::new(move |tolerance| solver(method, tolerance)),
            elsewhere: None,
            given: None,
        }
    }

    fn diffrax(side: &'a RefCell<Diffrax>, problem: &'static str, method: &'static str) -> Way<'a> {
        let ask = move |tolerance, times| side.borrow_mut().ask(problem, method, tolerance, false, times);
        Way {
            name: format!("diffrax {method}"),
            solve: Box::new(move |tolerance| Ok(ask(tolerance, 1)?.values)),
            elsewhere: Some(Box::new(move |tolerance, times| Ok(ask(tolerance, times)?.seconds))),
            given: None,
        }
    }
}

/// The largest relative difference of a component.
fn error_of(values: &[f64], reference: &[f64]) -> f64 {
    let parts = values.iter().zip(reference);
    let largest = parts
        .map(|(value, goal)| ((value - goal) / goal).abs())
        .fold(0.0, f64::max);
    if values.iter().all(|value| value.is_finite()) {
        largest
    } else {
        f64::INFINITY
    }
}

/// The loosest tolerance, in quarters of a decade, whose error is within `target`, and that of the next one too: a lucky
/// one does not count. The first run of a tolerance may fail; that is out of reach.
fn loosest(way: &mut Way<'_>, reference: &[f64], target: f64) -> Option<(f64, f64)> {
    let mut at = |quarter: i32| {
        let tolerance = 10.0_f64.powf(f64::from(-quarter) / 4.0);
        let error = (way.solve)(tolerance).map_or(f64::INFINITY, |values| error_of(&values, reference));
        (tolerance, error)
    };
    let mut before = at(8);
    for quarter in 9..=56 {
        let here = at(quarter);
        if before.1 <= target && here.1 <= target {
            return Some(before);
        }
        before = here;
    }
    None
}

/// Compares `ways` at `target`, or at the error of the first one where its tolerance is given.
fn compare(task: &str, ways: Vec<Way<'_>>, reference: &[f64], target: Option<f64>) -> Result<(), Failure> {
    let mut target = target;
    let mut found = Vec::new();
    let mut batches: Vec<Batch<'_>> = Vec::new();
    for mut way in ways {
        let chosen = match (way.given, target) {
            (Some(tolerance), _) => {
                let error = error_of(&(way.solve)(tolerance)?, reference);
                target = target.or(Some(error));
                Some((tolerance, error))
            }
            (None, Some(target)) => loosest(&mut way, reference, target),
            (None, None) => return Err("no error to match".into()),
        };
        let Some((tolerance, error)) = chosen else {
            println!(
                "| {task} | {} | – | does not reach {:.0e} | | |",
                way.name,
                target.unwrap_or(0.0)
            );
            continue;
        };
        found.push((way.name, tolerance, error));
        let Way { solve, elsewhere, .. } = way;
        batches.push(match elsewhere {
            Some(mut run) => Box::new(move |times| run(tolerance, times)),
            None => {
                let mut solve = solve;
                here(move || solve(tolerance))
            }
        });
    }
    let times = medians(&mut batches)?;
    for ((name, tolerance, error), seconds) in found.iter().zip(&times) {
        println!(
            "| {task} | {name} | {tolerance:.1e} | {error:.1e} | {} | {:.2} |",
            shown(*seconds),
            seconds / times[0]
        );
    }
    Ok(())
}

fn shown(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// A frozen reference (tests/references) at a time.
fn reference(fixture: &str, names: &[&str], time: f64) -> Result<Vec<f64>, Failure> {
    let fixture: Value = serde_json::from_str(fixture)?;
    let case = &fixture["cases"][0];
    let times = case["times"].as_array().ok_or("no times")?;
    let index = times
        .iter()
        .position(|at| at.as_f64() == Some(time))
        .ok_or("no such time")?;
    let value = |name: &&str| case["series"][*name][index].as_f64().ok_or_else(|| "no value".into());
    names.iter().map(value).collect()
}

const HEAD: &str = "| task | method | tolerance | achieved error | one solve | × Orrery |\n|---|---|---|---|---|---|";

fn value(engine: &Engine, side: Option<&RefCell<Diffrax>>) -> Result<(), Failure> {
    println!("{HEAD}");
    let fixture = include_str!("../../references/lotka_volterra.json");
    let reference = reference(fixture, &["x", "y"], 20.0)?;
    let plan = |tolerance| until(20.0, Method::Tsit5, tolerance, tolerance);
    let mut ours = Way::orrery(engine, models::LOTKA_VOLTERRA, &[0, 1], plan, "Tsit5")?;
    ours.given = Some(1e-8);
    let by_hand = Way {
        name: "Rust by hand, Tsit5".to_string(),
        solve: Box::new(|tolerance| {
            let start = std::hint::black_box([1.0, 1.0]);
            Ok(native::tsit5(start, 20.0, tolerance, native::lotka_volterra()).to_vec())
        }),
        elsewhere: None,
        given: None,
    };
    let mut ways = vec![ours, by_hand];
    ways.push(Way::diffsol(rival::lotka_volterra(20.0)?, rival::Method::Tsit45));
    ways.extend(side.map(|side| Way::diffrax(side, "lotka_volterra", "Tsit5")));
    compare("Lotka–Volterra to 20 s", ways, &reference, None)
}

fn stiff(engine: &Engine, side: Option<&RefCell<Diffrax>>) -> Result<(), Failure> {
    println!("{HEAD}");
    type Rival = fn() -> Result<rival::Solver, Failure>;
    let robertson = include_str!("../../references/robertson.json");
    let oscillator = include_str!("../../references/van_der_pol_stiff.json");
    let (amounts, motion): (&[&str], &[&str]) = (&["y1", "y2", "y3"], &["y", "v"]);
    // Late in the run of Robertson's problem A and B are tiny, and absolute tolerances have to follow them.
    let cases: [(&str, &str, &str, &[&str], f64, f64, Rival); 3] = [
        ("robertson 40", models::ROBERTSON, robertson, amounts, 40.0, 1.0, || {
            rival::robertson(40.0, [1.0, 1e-4, 1.0])
        }),
        (
            "robertson 1e11",
            models::ROBERTSON,
            robertson,
            amounts,
            1e11,
            1e-6,
            || rival::robertson(1e11, [1e-6, 1e-10, 1e-6]),
        ),
        (
            "van_der_pol",
            models::VAN_DER_POL,
            oscillator,
            motion,
            2000.0,
            1.0,
            || rival::van_der_pol(2000.0),
        ),
    ];
    for (problem, source, fixture, names, end, scale, rival) in cases {
        let reference = reference(fixture, names, end)?;
        let order: Vec<usize> = (0..names.len()).collect();
        for target in [1e-4, 1e-6] {
            let mut ways = Vec::new();
            for (method, name) in [(Method::Rodas5p, "Rodas5P"), (Method::Esdirk, "ESDIRK")] {
                let plan = move |tolerance| until(end, method, tolerance, tolerance * scale);
                ways.push(Way::orrery(engine, source, &order, plan, name)?);
            }
            for method in [rival::Method::Bdf, rival::Method::Esdirk34, rival::Method::TrBdf2] {
                ways.push(Way::diffsol(rival()?, method));
            }
            ways.extend(side.map(|side| Way::diffrax(side, problem, "Kvaerno5")));
            compare(&format!("{problem}, {target:.0e}"), ways, &reference, Some(target))?;
        }
    }
    Ok(())
}

/// A million equal steps of the classical method: the sandbox beside the same loop in native code.
fn rate(engine: &Engine, _: Option<&RefCell<Diffrax>>) -> Result<(), Failure> {
    const STEPS: u32 = 1_000_000;
    println!("| a million steps of RK4 | sandbox | Rust by hand | sandbox ÷ native |\n|---|---|---|---|");
    let method = Method::Rk4 { steps_per_tick: STEPS };
    let mut prey = Machine::new(engine, orrery::model(models::LOTKA_VOLTERRA)?)?;
    let prey_plan = until(1000.0, method, 1e-6, 1e-6);
    let mut board = Machine::new(engine, orrery::model(models::TCLAB)?)?;
    let hold = |value| InputTable {
        mode: InputMode::Hold,
        knots: vec![(0, value)],
    };
    let board_plan = Plan {
        inputs: vec![hold(50.0), hold(30.0), hold(25.0)],
        ..until(10_000.0, method, 1e-6, 1e-6)
    };
    let times = medians(&mut [
        here(|| prey.value(&prey_plan)),
        here(|| {
            let start = std::hint::black_box([1.0, 1.0]);
            Ok(native::rk4(start, 1e-3, STEPS, native::lotka_volterra()))
        }),
        here(|| board.value(&board_plan)),
        here(|| {
            let start = std::hint::black_box([25.0; 4]);
            Ok(native::rk4(start, 1e-2, STEPS, native::board()))
        }),
    ])?;
    for (name, pair) in ["Lotka–Volterra", "TCLab (4 states)"].iter().zip(times.chunks(2)) {
        let rate = |seconds: f64| format!("{:.1} ns/step, {:.1} M steps/s", seconds * 1e3, 1.0 / seconds);
        println!(
            "| {name} | {} | {} | {:.2} |",
            rate(pair[0]),
            rate(pair[1]),
            pair[0] / pair[1]
        );
    }
    Ok(())
}

/// A solve alone, and a solve with its tape and the reverse pass; diffrax with the same tolerance.
fn gradient(engine: &Engine, side: Option<&RefCell<Diffrax>>) -> Result<(), Failure> {
    println!(
        "| Tsit5 1e-8 to 20 s | states | parameters | value | value + gradient | ÷ value | diffrax value + gradient | ÷ Orrery | largest difference |\n\
         |---|---|---|---|---|---|---|---|---|"
    );
    for (name, source) in [
        ("lotka_volterra", models::LOTKA_VOLTERRA.to_string()),
        ("chain5", models::chain(5)),
        ("chain50", models::chain(50)),
        ("chain500", models::chain(500)),
        ("species3", models::species(3)),
        ("species9", models::species(9)),
        ("species31", models::species(31)),
    ] {
        let compiled = orrery::model(&source)?;
        let plan = until(20.0, Method::Tsit5, 1e-8, 1e-8);
        let taped = Plan {
            tape_bytes: 1 << 27,
            ..plan.clone()
        };
        let mut alone = Machine::new(engine, compiled.clone())?;
        let mut graded = Machine::new(engine, compiled)?;
        let (states, parameters) = (alone.states(), alone.parameters());
        let ours = graded.gradient(&taped)?.1.parameters;
        let mut batches = vec![here(|| alone.value(&plan)), here(|| graded.gradient(&taped))];
        let mut difference = None;
        if let Some(side) = side {
            let theirs = side.borrow_mut().ask(name, "Tsit5", 1e-8, true, 1)?.values;
            let largest = ours.iter().fold(0.0_f64, |size, value| size.max(value.abs()));
            let parts = ours
                .iter()
                .zip(&theirs)
                .map(|(ours, theirs)| (ours - theirs).abs() / largest);
            difference = Some(parts.fold(0.0, f64::max));
            batches.push(Box::new(move |times| {
                Ok(side.borrow_mut().ask(name, "Tsit5", 1e-8, true, times)?.seconds)
            }));
        }
        let times = medians(&mut batches)?;
        let theirs = times.get(2).map_or("– | –".to_string(), |seconds| {
            format!("{} | {:.1}", shown(*seconds), seconds / times[1])
        });
        println!(
            "| {name} | {states} | {parameters} | {} | {} | {:.2} | {theirs} | {} |",
            shown(times[0]),
            shown(times[1]),
            times[1] / times[0],
            difference.map_or("–".to_string(), |difference| format!("{difference:.0e}")),
        );
    }
    Ok(())
}

/// An edit of a model until its first gradient: compiled, made machine code, solved, derived.
fn text(engine: &Engine, side: Option<&RefCell<Diffrax>>) -> Result<(), Failure> {
    println!(
        "| text → first gradient | Orrery | of it: text to module, to machine code, solve and derive | diffrax |\n|---|---|---|---|"
    );
    for (name, source) in [
        ("lotka_volterra", models::LOTKA_VOLTERRA.to_string()),
        ("robertson", models::ROBERTSON.to_string()),
        ("tclab", models::TCLAB.to_string()),
        ("chain50", models::chain(50)),
    ] {
        let plan = Plan {
            tape_bytes: 1 << 22,
            ..until(1.0, Method::Tsit5, 1e-6, 1e-6)
        };
        let mut parts = [const { Vec::new() }; 4];
        for _ in 0..15 {
            let start = ProcessTime::now();
            let compiled = orrery::model(&source)?;
            let module = start.elapsed().as_secs_f64();
            let mut machine = Machine::new(engine, compiled)?;
            let code = start.elapsed().as_secs_f64();
            machine.gradient(&plan)?;
            let whole = start.elapsed().as_secs_f64();
            for (times, seconds) in parts.iter_mut().zip([whole, module, code - module, whole - code]) {
                times.push(seconds);
            }
        }
        let [whole, module, code, run] = parts.map(median);
        let theirs = match side {
            Some(side) if name == "lotka_volterra" || name == "chain50" => {
                // A method that no other task has made the interpreter compile.
                side.borrow_mut().ask(name, "Dopri5", 1e-6, true, 1)?.first_s
            }
            _ => None,
        };
        println!(
            "| {name} | {} | {}, {}, {} | {} |",
            shown(whole),
            shown(module),
            shown(code),
            shown(run),
            theirs.map_or("–".to_string(), shown)
        );
    }
    Ok(())
}
