//! The messages, as an author sees them.

#![allow(clippy::unwrap_used)]

mod common;

use common::{errors, render};

fn first(source: &str) -> String {
    errors(source)[0].render()
}

#[test]
fn an_undefined_variable_is_drawn_with_the_nearest_name() {
    let source = "model Tank\n  parameter Real area = 2;\n  Real level(start = 1);\nequation\n  der(level) = -levle/area;\nend Tank;\n";
    assert_eq!(
        first(source),
        "error[undefined-variable]: `levle` is not declared in Tank\n \
         --> test.mo:5:17\n  |\n5 |   der(level) = -levle/area;\n  |                 ^^^^^\n  = help: did you mean `level`?\n"
    );
}

#[test]
fn a_unit_clash_is_shown_at_the_operator() {
    let source = "model Heat\n  parameter Real p(unit=\"W\") = 1;\n  parameter Real e(unit=\"J\") = 1;\n  Real x(unit=\"W\");\nequation\n  x = 2*p + e;\nend Heat;\n";
    assert_eq!(
        first(source),
        "error[unit-clash]: `+` joins m2.kg.s-3 and m2.kg.s-2\n \
         --> test.mo:6:11\n  |\n6 |   x = 2*p + e;\n  |           ^\n  = help: convert one side, or correct the unit of a declaration\n"
    );
}

#[test]
fn every_clash_of_units_is_found() {
    let declare = "parameter Real w(unit=\"W\")=1; parameter Real kw(unit=\"kW\")=1; parameter Real k(unit=\"K\")=1; \
                   parameter Real c(unit=\"degC\")=1; parameter Real m(unit=\"m\")=1; parameter Real s(unit=\"s\")=1; parameter Real pc(unit=\"%\")=1;";
    for bad in [
        "w + kw",
        "w - k",
        "c + c",
        "m + s",
        "sin(m)",
        "exp(k)",
        "m^s",
        "max(m, s)",
        "pc + 1*pc/w",
        "sqrt(m) + m",
        "c + w",
    ] {
        let source = format!("model U {declare} Real x; equation x = {bad}; end U;");
        let codes: Vec<String> = errors(&source).into_iter().map(|error| error.code).collect();
        assert_eq!(codes, ["unit-clash"], "{bad}");
    }
    for (bad, unit) in [("w", "kW"), ("c", "K"), ("pc", "1"), ("m/s", "m"), ("m*m", "m")] {
        let source = format!("model U {declare} Real x(unit=\"{unit}\"); equation x = {bad}; end U;");
        assert_eq!(errors(&source)[0].code, "unit-clash", "{bad} as {unit}");
    }
    for (good, unit) in [
        ("kw*1000", "W"),
        ("pc/100", "1"),
        ("0.5*pc/100", "1"),
        ("c + 273.15", "K"),
        ("k - 273.15", "degC"),
        ("c - c", "K"),
        ("c + k", "degC"),
        ("m/s*s", "m"),
        ("sqrt(m*m)", "m"),
        ("m^2/m", "m"),
        ("w*s/(w*s)", "1"),
        ("if w > 2 then m else 2*m", "m"),
        ("m + 3", "m"),
        ("exp(m/m)", "1"),
        ("sin(2*time)", "1"),
        ("m/time", "m/s"),
    ] {
        let source = format!("model U {declare} Real x(unit=\"{unit}\"); equation x = {good}; end U;");
        common::build(&source);
    }
}

#[test]
fn balance_is_explained() {
    let text = first("model B\n  Real x;\n  Real y;\nequation\n  x = 1;\nend B;");
    assert!(
        text.contains("no equation determines `y` (1 equations for 2 unknowns)"),
        "{text}"
    );
    let text = first("model B\n  Real x;\nequation\n  x = 1;\n  x = 2;\nend B;");
    assert!(
        text.contains("one too many") && text.contains("test.mo:5:3") && text.contains("note: 4:3"),
        "{text}"
    );
    let text = render(&errors(
        "model P\n Real x; Real y; Real l;\nequation\n der(x) = y; der(y) = -l*x; x^2 = 1;\nend P;",
    ));
    assert!(text.contains("higher index"), "{text}");
}

#[test]
fn what_belongs_to_events_is_refused_elsewhere() {
    for (body, word) in [
        ("x = pre(x);", "`pre(x)`"),
        ("x = floor(time);", "`floor`"),
        ("x = mod(time, 2);", "`mod`"),
        ("x = delay(x, 1);", "`delay`"),
        ("reinit(x, 1);", "`reinit("),
        ("when noEvent(time > 1) then x = 1; end when;", "change at events"),
        ("x = if time == 1 then 1 else 0;", "`==`"),
    ] {
        let text = first(&format!("model R\n  Real x;\nequation\n  {body}\nend R;"));
        assert!(text.contains(word) && text.contains("test.mo:4:"), "{body}: {text}");
    }
    common::build("model R Real x; equation x = noEvent(if time > 1 then 1 else 0); end R;");
    common::build("model R parameter Real p = 1; Real x; equation x = (if p > 1 then 1 else 0) + floor(p); end R;");
}

#[test]
fn what_is_outside_is_refused_by_name() {
    for (source, word) in [
        ("import Modelica.Constants; model M end M;", "model"),
        ("model M import A.B; Real x = 1; end M;", "`import`"),
        ("model M Modelica.Units.SI.Voltage u = 1; end M;", "Standard Library"),
        ("model M outer Real x; end M;", "`outer`"),
        ("model M replaceable Real x = 1; end M;", "`replaceable`"),
        ("model M Integer i; equation i = 2*time; end M;", "continuously"),
        ("model M Real x(stateSelect = 1) = 1; end M;", "stateSelect"),
        ("model M Real x = 1 if true; end M;", "conditional"),
        ("model M Real x = 2 ^ 3 ^ 4; end M;", "chained"),
        ("model M Real x = 1 < 2 < 3; end M;", "chained"),
        ("model M Real x = 2 * -3; end M;", "expected an expression"),
        ("model M type E = enumeration(a, b); end M;", "`enumeration`"),
        ("model M Real x(strat = 1) = 1; end M;", "did you mean `start`"),
        ("model M Real x(unit = \"parsec\") = 1; end M;", "parsec"),
        ("model M parameter Real p; Real x = p; end M;", "has no value"),
        (
            "model M parameter Real p = time; Real x = p; end M;",
            "changes with time",
        ),
        (
            "model M parameter Real p = q; parameter Real q = p; Real x = p; end M;",
            "define each other",
        ),
        ("model M Real x = 1; end N;", "closes"),
        ("model M Real x = 1 end M;", "expected `;`"),
        ("model M Real x == 1; end M;", "expected"),
        ("model M equation 1 == 2; end M;", "expected `=`"),
        ("model M Real x = \"a; end M;", "no end"),
        ("model M Real x = 1 /* ; end M;", "no end"),
        ("model M Real x = 1 § 2; end M;", "no meaning"),
        ("model M Real der = 1; end M;", "keyword"),
        ("model M Real x = snin(1); end M;", "did you mean `sin`"),
        ("model M Real x = sin(1, 2); end M;", "arguments"),
        ("model M Real x[3] = {1, 2}; end M;", "size"),
        ("model M Real x = y[4]; Real y[3] = {1,2,3}; end M;", "element 4"),
        ("model M Real x = .y; end M;", "begin with `.`"),
        ("model M annotation; end M;", "expected `(`"),
        ("model M initial algorithm x := 1; end M;", "`initial algorithm`"),
        ("type V = Real[3]; model M V v; end M;", "abbreviates an array"),
        ("model M inner Real x = 1; end M;", "`inner`"),
        ("model M redeclare Real x = 1; end M;", "`redeclare`"),
        ("model M stream Real x; end M;", "`stream`"),
        ("expandable connector C end C; model M end M;", "`expandable`"),
        ("encapsulated model M end M;", "`encapsulated`"),
        ("impure function f end f; model M end M;", "`impure`"),
        ("model A end A; model M A a(redeclare Real x); end M;", "`redeclare`"),
        (
            "model A end A; model M A a = 1; end M;",
            "binding for a whole component",
        ),
        (
            "record R Real a; end R; model M R r; R s; equation r = s; end M;",
            "name one of its variables",
        ),
        (
            "record R Real a; end R; model M R r; equation r.a = R(1); end M;",
            "record `R`",
        ),
        ("partial model M end M;", "no model"),
        ("partial model A end A; model M A a; end M;", "`A` is partial"),
        (
            "package P Real x = 1; end P; model M Real y = P.x; end M;",
            "not a constant",
        ),
        (
            "package P constant Real x = P.x; end P; model M Real y = P.x; end M;",
            "depends on itself",
        ),
        (
            "package P constant Real x; end P; model M Real y = P.x; end M;",
            "has no value",
        ),
        ("package P end P; model M P.Q q; end M;", "no type `P.Q`"),
        ("package P end P; model M P p; end M;", "not a type of components"),
        ("model M (a, b) = f(1); end M;", "expected a type"),
        ("model M Real a; Real b; equation a = (a, b); end M;", "several results"),
        (
            "model M Real a; equation (a, a) = sin(1); end M;",
            "no function of this file",
        ),
        (
            "model M Real x[3]; equation for i loop x[i] = 1; end for; end M;",
            "range",
        ),
        (
            "model M Real x; equation assert(x > 0); x = 1; end M;",
            "a condition and a message",
        ),
        (
            "model M Real x; equation assert(x > 0, \"m\", AssertionLevel.warning); x = time; end M;",
            "AssertionLevel.error",
        ),
        (
            "model M Real x; equation assert(x > 0, x); x = time; end M;",
            "message of an assertion",
        ),
        (
            "model M Real x = 1; equation assert(1 > 2, \"never\"); end M;",
            "this assertion fails: never",
        ),
        ("model M Real x; algorithm y := 1; end M;", "`y` cannot be assigned"),
        ("model M parameter Real p = 1; algorithm p := 2; end M;", "a parameter"),
        ("model M Real x; algorithm return; end M;", "`return` leaves a function"),
        (
            "model M Real x; algorithm when time > 1 then x := 1; end when; end M;",
            "`when` in an algorithm",
        ),
        ("model M Real x;", "no `end`"),
        ("", "no model"),
    ] {
        let text = render(&errors(source));
        assert!(text.contains(word), "{source}: {text}");
    }
}

#[test]
fn diagnostics_are_json_for_editors() {
    let errors = errors("model M Real x = y; end M;");
    let json = serde_json::to_value(&errors).expect("json");
    assert_eq!(json[0]["line"], 1);
    assert_eq!(json[0]["column"], 18);
    assert_eq!(json[0]["code"], "undefined-variable");
    assert_eq!(json[0]["source_line"], "model M Real x = y; end M;");
}

/// The guide shows what the compiler says, to the letter.
#[test]
fn the_example_of_the_guide_is_real() {
    let guide = include_str!("../../../docs/guides/modelica-subset.md");
    let mut blocks = guide.split("```");
    let example = blocks
        .nth(1)
        .and_then(|block| block.strip_prefix("modelica\n"))
        .expect("an example");
    let shown = blocks.nth(1).expect("its diagnostic").trim_start();
    let Err(errors) = orrery_lang::compile(example, "tank.mo", &orrery_lang::Options::default()) else {
        panic!("the example has an error on purpose");
    };
    assert_eq!(render(&errors), shown);
    common::build(&example.replace("\"m3/s\") = 0.01", "\"m2/s\") = 0.01"));
}

/// Each example after the first compiles, and is written as `orrery model fmt` writes it.
#[test]
fn the_examples_of_the_guide_compile() {
    let guide = include_str!("../../../docs/guides/modelica-subset.md");
    let examples: Vec<&str> = guide
        .split("```")
        .filter_map(|block| block.strip_prefix("modelica\n"))
        .collect();
    assert!(examples.len() > 4);
    for (index, example) in examples.into_iter().enumerate() {
        let formatted = orrery_lang::format(example, "guide.mo").unwrap_or_else(|error| panic!("{}", error.render()));
        if index > 0 {
            common::build(example);
        }
        assert_eq!(formatted.replace("\n\n", "\n"), example.replace("\n\n", "\n"));
    }
}
