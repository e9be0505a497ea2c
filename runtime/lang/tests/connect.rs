//! Connectors: zero-sum flows, equal potentials, causal connections, and what cannot be connected.

#![allow(clippy::unwrap_used)]

mod common;

use common::{errors, final_values, render};

const PINS: &str = "
connector Pin Real v(unit = \"V\"); flow Real i(unit = \"A\"); end Pin;
connector RealInput = input Real;
connector RealOutput = output Real;
partial model TwoPin Pin p; Pin n; Real v(unit = \"V\"); Real i(unit = \"A\");
equation v = p.v - n.v; i = p.i; p.i + n.i = 0; end TwoPin;
model Resistor extends TwoPin; parameter Real R(unit = \"Ohm\") = 1; equation v = R*i; end Resistor;
model Capacitor extends TwoPin(v(start = 0, fixed = true)); parameter Real C(unit = \"F\") = 1;
equation C*der(v) = i; end Capacitor;
model Source extends TwoPin; parameter Real V(unit = \"V\") = 1; equation v = V; end Source;
model Ground Pin p; equation p.v = 0; end Ground;
";

fn with_pins(source: &str) -> String {
    format!("{PINS}{source}")
}

#[test]
fn a_circuit_obeys_kirchhoff() {
    let source = with_pins(
        "model Circuit Source source(V = 10); Resistor r1(R = 2); Capacitor c(C = 0.5); Ground ground; \
         output Real v(unit = \"V\") = c.v; output Real i(unit = \"A\") = ground.p.i; \
         equation connect(source.p, r1.p); connect(r1.n, c.p); connect(c.n, source.n); connect(source.n, ground.p); \
         connect(ground.p, c.n); end Circuit;",
    );
    let values = final_values(&source, 1.0);
    assert!(
        (values["v"] - 10.0 * (1.0 - (-1.0_f64).exp())).abs() < 1e-7,
        "{values:?}"
    );
    assert_eq!(values["i"], 0.0);
}

#[test]
fn connectors_of_a_component_are_seen_from_both_sides() {
    let source = with_pins(
        "model Pair Pin p; Pin n; Resistor a(R = 2); Resistor b(R = 2); \
         equation connect(p, a.p); connect(p, b.p); connect(a.n, n); connect(b.n, n); end Pair; \
         model M Source source(V = 8); Pair pair; Resistor open; Ground ground; output Real i(unit = \"A\") = pair.p.i; \
         output Real v(unit = \"V\") = pair.a.v; \
         equation connect(source.p, pair.p); connect(pair.n, source.n); connect(ground.p, source.n); connect(open.n, ground.p); end M;",
    );
    let values = final_values(&source, 1.0);
    assert_eq!((values["i"], values["v"]), (8.0, 8.0));
}

#[test]
fn arrays_of_connectors_connect_in_loops() {
    let source = with_pins(
        "model Ladder parameter Integer n = 4; Resistor r[n](each R = 2); Capacitor c[n](each C = 1e-3); \
         Source source(V = 8); Ground ground; \
         output Real i(unit = \"A\") = r[1].i; output Real v(unit = \"V\") = c[n].v; \
         equation connect(source.p, r[1].p); connect(source.n, ground.p); \
         for k in 1:n - 1 loop connect(r[k].n, r[k + 1].p); end for; \
         for k in 1:n loop connect(r[k].n, c[k].p); connect(c[k].n, ground.p); end for; end Ladder;",
    );
    let values = final_values(&source, 1.0);
    assert!(
        (values["v"] - 8.0).abs() < 1e-6 && values["i"].abs() < 1e-6,
        "{values:?}"
    );
    let whole = "connector Port Real x[2]; flow Real f[2]; end Port; \
                 model A Port p[3]; equation for k in 1:3 loop p[k].x = {k, 2*k}; end for; end A; \
                 model B Port p[3]; Real s; equation s = sum(p.x); p.f = fill(0, 3, 2) + p.x; end B; \
                 model M A a; B b; output Real s = b.s; output Real f = a.p[2].f[2]; equation connect(a.p, b.p); end M;";
    let values = final_values(&whole.replace("p.f = fill(0, 3, 2) + p.x", "p.f = p.x"), 1.0);
    assert_eq!((values["s"], values["f"]), (18.0, -4.0));
}

#[test]
fn blocks_connect_by_inputs_and_outputs() {
    let source = with_pins(
        "block Gain RealInput u; RealOutput y; parameter Real k = 1; equation y = k*u; end Gain; \
         block Two RealInput u; RealOutput y; Gain a(k = 2); Gain b(k = 3); \
         equation connect(u, a.u); connect(a.y, b.u); connect(b.y, y); end Two; \
         model M RealInput u(start = 1); RealOutput y; Two two; Gain gains[2](each k = 10); RealOutput z[2]; \
         equation connect(u, two.u); connect(two.y, y); for i in 1:2 loop connect(u, gains[i].u); end for; \
         connect(gains.y, z); end M;",
    );
    let values = final_values(&source, 1.0);
    assert_eq!((values["y"], values["z[2]"]), (6.0, 10.0));
}

#[test]
fn conflicts_are_named_with_both_places() {
    for (source, words) in [
        (
            "block One RealOutput y; equation y = 1; end One; \
             model M One a; One b; equation connect(a.y, b.y); end M;",
            vec!["two-sources", "`a.y` and `b.y` both give a value", "declared here"],
        ),
        (
            "connector Plug Real v; end Plug; model Lamp Plug p; end Lamp; \
             model M Resistor r; Lamp l; equation connect(r.p, l.p); end M;",
            vec![
                "connector-mismatch",
                "`r.p` has `i` and `l.p` has not",
                "`Plug` is declared here",
            ],
        ),
        (
            "connector Plug Real v; Real i; end Plug; model Lamp Plug p; end Lamp; \
             model M Resistor r; Lamp l; equation connect(r.p, l.p); end M;",
            vec!["flow variable on one side"],
        ),
        (
            "connector Plug Real v(unit = \"K\"); flow Real i; end Plug; model Lamp Plug p; end Lamp; \
             model M Resistor r; Lamp l; equation connect(r.p, l.p); end M;",
            vec!["unit-clash", "`r.p.v` and `l.p.v` are in", "note"],
        ),
        (
            "model M Resistor r; Real x; equation connect(r.p, x); end M;",
            vec!["`x` is not a connector"],
        ),
        (
            "model M Resistor r; Resistor q; equation connect(r, q); end M;",
            vec!["`r` is not a connector", "a model"],
        ),
        (
            "model M Resistor r; equation connect(r.p, r.q); end M;",
            vec!["`q` is not declared in Resistor"],
        ),
        (
            "model M Resistor r[2]; Resistor q; equation connect(r.p, q.p); end M;",
            vec!["sizes [2] and []"],
        ),
        (
            "model M Resistor r; equation connect(r.p, 1 + 1); end M;",
            vec!["takes two connectors"],
        ),
        (
            "model M Resistor r; Ground g; equation if noEvent(time > 1) then connect(r.p, g.p); end if; end M;",
            vec!["cannot depend on time"],
        ),
        (
            "model M flow Real x = 1; end M;",
            vec!["flow variable outside a connector"],
        ),
        ("model M TwoPin t; end M;", vec!["`TwoPin` is partial"]),
        (
            "connector C parameter Real k = 1; Real v; end C; model A C c; equation c.v = 1; end A; \
             model M A a; A b; equation connect(a.c, b.c); end M;",
            vec!["parameter of a connector"],
        ),
    ] {
        let text = render(&errors(&with_pins(source)));
        for word in words {
            assert!(text.contains(word), "{source}: {text}");
        }
    }
}

#[test]
fn branches_of_an_if_equation_are_chosen_while_the_model_runs() {
    let source = "model M Real x(start = 0, fixed = true); Real y; output Real a = x; output Real b = y; \
                  equation if noEvent(x < 1) then der(x) = 2; y = x; else y = 3*x; der(x) = 0; end if; end M;";
    let values = final_values(source, 0.25);
    assert!((values["a"] - 0.5).abs() < 1e-12 && values["a"] == values["b"]);
    let mixed =
        "model M Real y; output Real b = y; equation if noEvent(time < 2) then 2*y = 6; else y + 1 = 0; end if; end M;";
    assert_eq!(final_values(mixed, 1.0)["b"], 3.0);
    assert_eq!(final_values(mixed, 3.0)["b"], -1.0);
    let text = render(&errors(
        "model M Real y; equation if noEvent(time < 2) then y = 6; end if; end M;",
    ));
    assert!(text.contains("have 1 and 0 equations"), "{text}");
}

#[test]
fn abbreviated_classes_keep_their_modifications() {
    let source = with_pins(
        "model Strong = Resistor(R = 4); model M Strong r; Source s(V = 8); Ground g; output Real i(unit = \"A\") = r.i; \
         equation connect(s.p, r.p); connect(s.n, r.n); connect(g.p, s.n); end M;",
    );
    assert_eq!(final_values(&source, 1.0)["i"], 2.0);
}
