//! Events: located exactly, in a defined order, and refused where they never end.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Machine, errors, until};
use orrery_lang::abi::Code;

const BALL: &str = "model Ball parameter Real e = 0.8; parameter Real g(unit=\"m/s2\") = 9.81; parameter Real h0(unit=\"m\") = 1;\
    Real h(unit=\"m\", start=h0, fixed=true); Real v(unit=\"m/s\", start=0, fixed=true);\
    equation der(h) = v; der(v) = -g; when h <= 0 then reinit(v, -e*pre(v)); end when; end Ball;";

#[test]
fn a_ball_bounces_where_the_closed_form_says() {
    let mut machine = Machine::new(BALL);
    let plan = common::until(2.0, 20);
    let rows = machine.good(&plan);
    let (e, g, h0) = (0.8_f64, 9.81_f64, 1.0_f64);
    let column = machine.compiled.meta.column("h").expect("h");
    for (row, time) in rows.times.iter().enumerate() {
        // Flight by flight.
        let mut start = (2.0 * h0 / g).sqrt();
        let mut speed = e * (2.0 * g * h0).sqrt();
        let mut expected = h0 - 0.5 * g * time * time;
        if *time > start {
            loop {
                let flight = 2.0 * speed / g;
                let since = time - start;
                if since <= flight {
                    expected = speed * since - 0.5 * g * since * since;
                    break;
                }
                start += flight;
                speed *= e;
            }
        }
        let found = rows.row(row)[column];
        assert!(
            (found - expected).abs() < 1e-12,
            "t = {time}: {found} and not {expected}"
        );
    }
}

#[test]
fn event_rows_come_in_pairs() {
    let mut machine = Machine::new(BALL);
    let plan = orrery_lang::Plan {
        event_rows: 64,
        ..until(1.0, 1)
    };
    let (status, rows) = machine.run(&plan);
    assert_eq!(status.code, Code::Ok);
    let v = machine.compiled.meta.column("v").expect("v");
    let bounce = (2.0_f64 / 9.81).sqrt();
    assert!(
        (rows.times[1] - bounce).abs() < 1e-15,
        "{} and not {bounce}",
        rows.times[1]
    );
    assert_eq!(rows.times[1].to_bits(), rows.times[2].to_bits());
    assert_eq!(rows.row(2)[v], -0.8 * rows.row(1)[v]);
    // One bounce within the second: the start, the pair, the end.
    assert_eq!((rows.times.len(), status.events), (4, 1), "{:?}", rows.times);
}

#[test]
fn a_ball_that_comes_to_rest_is_named() {
    let mut machine = Machine::new(BALL);
    let (status, _) = machine.run(&until(10.0, 1));
    assert_eq!(status.code, Code::Chattering);
    let text = status.describe(&machine.compiled.meta).expect("a message");
    assert!(text.contains("chattering") && text.contains("test.mo:1:"), "{text}");
}

#[test]
fn a_thermostat_switches_with_hysteresis() {
    let source = "model T Real x(start=20, fixed=true); output Boolean on(start=true, fixed=true); output Integer count(start=0);\
        equation der(x) = (if on then 60 else 10) - x; \
        when x > 25 then on = false; count = pre(count) + 1; elsewhen x < 22 then on = true; count = pre(count); end when; end T;";
    let mut machine = Machine::new(source);
    let rows = machine.good(&until(10.0, 1000));
    let meta = &machine.compiled.meta;
    let (x, count) = (meta.column("x").expect("x"), meta.column("count").expect("count"));
    assert!(rows.column(x).skip(200).all(|x| (21.99..=25.01).contains(&x)));
    // One cycle: rise from 22 to 25 towards 60, fall back towards 10.
    let rise = (38.0_f64 / 35.0).ln();
    let fall = (15.0_f64 / 12.0).ln();
    let first = (40.0_f64 / 35.0).ln();
    let expected = 1.0 + ((10.0 - first) / (rise + fall)).floor();
    assert_eq!(rows.column(count).last(), Some(expected));
}

#[test]
fn samples_fire_at_their_instants_and_nowhere_else() {
    let source = "model S Real a(start=0, fixed=true); output discrete Real held(start=0); output Integer n(start=0);\
        equation der(a) = 1; when sample(0, 0.25) then held = a; n = pre(n) + 1; end when; end S;";
    let mut machine = Machine::new(source);
    let rows = machine.good(&until(1.1, 11));
    let meta = &machine.compiled.meta;
    let (held, n) = (meta.column("held").expect("held"), meta.column("n").expect("n"));
    let times = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1];
    for (row, time) in times.iter().enumerate() {
        let ticks = (time / 0.25_f64).floor();
        assert!(
            (rows.row(row)[held] - 0.25 * ticks).abs() < 1e-12,
            "at {time}: {}",
            rows.row(row)[held]
        );
        assert_eq!(rows.row(row)[n], ticks + 1.0, "at {time}");
    }
}

#[test]
fn one_event_triggers_another_at_the_same_instant() {
    let source = "model C Real x(start=0, fixed=true); Boolean a(start=false); Boolean b(start=false); output Integer k(start=0);\
        equation der(x) = 1; a = x > 0.6; b = pre(a); when b then k = pre(k) + 10; end when; end C;";
    let mut machine = Machine::new(source);
    let rows = machine.good(&until(1.0, 4));
    let k = machine.compiled.meta.column("k").expect("k");
    assert_eq!(rows.column(k).collect::<Vec<_>>(), [0.0, 0.0, 0.0, 10.0, 10.0]);
}

#[test]
fn many_ticks_equal_one_plan_through_events() {
    let plan = |first: i64, ticks: u32, initialise: bool| orrery_lang::Plan {
        tick_nanos: 100_000_000,
        first_tick: first,
        ticks,
        initialise: initialise.then(Default::default),
        ..Default::default()
    };
    let mut whole = Machine::new(BALL);
    let rows = whole.good(&plan(0, 20, true));
    let mut pieces = Machine::new(BALL);
    let mut values = Vec::new();
    for tick in 0..20 {
        values.extend(pieces.good(&plan(tick, 1, tick == 0)).values);
    }
    assert_eq!(rows.values, values);
    assert_eq!(whole.snapshot(), pieces.snapshot());
}

#[test]
fn what_is_no_event_is_refused() {
    let codes = |source: &str| errors(source)[0].code.clone();
    let two = "model A Real x(start=0); discrete Real d; equation der(x) = 1; when x > 1 then d = 1; end when; when x > 2 then d = 2; end when; end A;";
    assert_eq!(codes(two), "determined-twice");
    for body in [
        "discrete Real d; equation der(x) = 1; when x > 1 then d = 1; d = 2; end when;",
        "equation der(x) = 1; when x > 1 then reinit(x, 0); end when; when time > 2 then reinit(x, 1); end when;",
        "equation der(x) = 1; when x > 1 then reinit(x, 0); reinit(x, 1); end when;",
    ] {
        assert_eq!(
            codes(&format!("model A Real x(start=0); {body} end A;")),
            "determined-twice",
            "{body}"
        );
    }
    common::build(
        "model A Real x(start=0); discrete Real d; equation der(x) = 1; when x > 1 then reinit(x, 0); \
         if x > 3 then d = 1; else d = 2; end if; elsewhen time > 2 then reinit(x, 1); d = 3; end when; end A;",
    );
    let equal = "model A Real x(start=0); Boolean b; equation der(x) = 1; b = x == 1; end A;";
    assert_eq!(codes(equal), "unsupported");
    let ring = "model A Real x(start=0); discrete Real c; discrete Real d; equation der(x) = 1; when x > 1 then c = d + 1; d = c; end when; end A;";
    assert_eq!(codes(ring), "algebraic-loop");
    let nostate =
        "model A Real x(start=0); Real y; equation der(x) = 1; y = 2*x; when x > 1 then reinit(y, 0); end when; end A;";
    assert_eq!(codes(nostate), "type");
}

/// Everything that happens at one instant reads what was before it (8.3.5, 8.6).
#[test]
fn simultaneous_events_read_what_was_before_them() {
    let ends = |source: &str, name: &str| {
        let mut machine = Machine::new(source);
        let rows = machine.good(&until(2.0, 1));
        rows.row(1)[machine.compiled.meta.column(name).unwrap()]
    };
    let swap = "model S discrete Real a(start=1); discrete Real b(start=2); Real x(start=0, fixed=true); equation der(x)=1;\
        when time >= 1 then a = pre(b); end when; when time >= 1 then b = pre(a); end when; end S;";
    assert_eq!((ends(swap, "a"), ends(swap, "b")), (2.0, 1.0));
    // The state before it is reinitialised, whichever clause is written first.
    let (new, read) = (
        "when time >= 1 then reinit(x, 10); end when;",
        "when time >= 1 then d = x; end when;",
    );
    for clauses in [format!("{new}{read}"), format!("{read}{new}")] {
        let source = format!(
            "model S discrete Real d(start=0); Real x(start=0, fixed=true); equation der(x)=1; {clauses} end S;"
        );
        assert!((ends(&source, "d") - 1.0).abs() < 1e-12 && (ends(&source, "x") - 11.0).abs() < 1e-12);
    }
    let first = "model S discrete Real d(start=0); Real x(start=0, fixed=true); equation der(x)=1;\
        when time >= 1 then d = 1; elsewhen time >= 1 then d = 2; end when; end S;";
    assert_eq!(ends(first, "d"), 1.0);
    let vector = "model S discrete Integer n(start=0); Real x(start=0, fixed=true); equation der(x)=1;\
        when {sample(0, 0.25), sample(0, 0.5)} then n = pre(n) + 1; end when; end S;";
    assert_eq!(ends(vector, "n"), 9.0);
}

#[test]
fn excursions_within_one_step_are_found() {
    for centre in [0.3, 0.45, 0.5, 0.62, 0.77, 0.9, 1.234, 2.9] {
        for half in [0.02, 0.005, 0.001] {
            let source = format!(
                "model P Real x(start=1, fixed=true); Real y; output discrete Integer n(start=0); equation der(x) = -0.01*x;\
                 y = (time - {centre})^2 - {half}^2; when y < 0 then n = pre(n) + 1; end when; end P;"
            );
            let mut machine = Machine::new(&source);
            let (status, rows) = machine.run(&until(4.0, 1));
            let n = machine.compiled.meta.column("n").unwrap();
            assert_eq!((rows.row(1)[n], status.events), (1.0, 1), "{centre} ± {half}");
            // The steps are far longer than what is found between their ends.
            assert!(status.steps < 20, "{} steps", status.steps);
        }
    }
    let crests = "model S Real x(start=0, fixed=true); Real v(start=1, fixed=true); output discrete Integer n(start=0);\
        equation der(x) = v; der(v) = -x; when x > 0.9999 then n = pre(n) + 1; end when; end S;";
    let mut machine = Machine::new(crests);
    let rows = machine.good(&until(100.0, 1));
    assert_eq!(rows.row(1)[machine.compiled.meta.column("n").unwrap()], 16.0);
}
