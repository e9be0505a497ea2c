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
    assert!(text.contains("higher index") && text.contains("test.mo:4:29"), "{text}");
    assert!(text.contains("`l` is left without an equation"), "{text}");
    assert_eq!(text.matches("error[").count(), 1, "{text}");
}

#[test]
fn what_belongs_to_events_is_refused_elsewhere() {
    for (body, word) in [
        ("x = pre(x);", "`pre(x)`"),
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
        ("model M Integer i; equation i = 2*time; end M;", "`i` is an Integer"),
        (
            "model M Real x(start = 0); Integer i; equation der(x) = 1; x = i; end M;",
            "continuously",
        ),
        ("model M Boolean b = terminal(); end M;", "`terminal()`"),
        ("model M Real x(stateSelect = 1) = 1; end M;", "stateSelect"),
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
        ("model M Real x = Modelica.Constants.pi; end M;", "Standard Library"),
        ("model Real Real x = 1; end Real;", "built-in type"),
        ("model M Real Integer = 1; end M;", "built-in type"),
        ("model M end M; model M end M;", "the class `M` is declared twice"),
        (
            "package P model A end A; model A end A; end P; model M end M;",
            "`A` is declared twice",
        ),
        ("model M Real x = sum(i for i); end M;", "needs the range of `i`"),
        ("model M Real x = 2 - -3; end M;", "parentheses"),
        (
            "model M Real w(unit = \"deg\") = 2; Real x = sin(w); end M;",
            "plain number",
        ),
        (
            "model M Real w(unit = \"%\") = 2; Real x = exp(w); end M;",
            "plain number",
        ),
        ("model M parameter Integer n(min = 1) = 0; end M;", "its `min` is 1"),
        ("model M parameter Integer n[3] = {1, 2}; end M;", "[2] cannot fill"),
        (
            "model M Integer n(start = 0); initial equation n = 7; equation when time > 1 then n = pre(n) + 1; end when; end M;",
            "changes at events only",
        ),
        ("model M Real x;", "no `end`"),
        ("", "no model"),
    ] {
        let text = render(&errors(source));
        assert!(text.contains(word), "{source}: {text}");
    }
}

/// Types are those of the specification: 3.7.2, 6.6, 10.6.5 and 10.6.7.
#[test]
fn only_integers_fit_integers() {
    for bad in [
        "Integer i = 7/2;",
        "Integer i = 4/2;",
        "Integer i = 2^2;",
        "Integer i = 3.0;",
        "Integer i = floor(2.5);",
        "Integer i = max(1, 2.0);",
        "Integer i = if time > 1 then 1.0 else 2;",
        "Integer i(start = 1.5); equation when time > 1 then i = 2; end when;",
        "Integer i(start = 1); equation when time > 1 then i = 2.5; end when;",
        "Integer i; equation 2*i = 3;",
        "parameter Integer n = 6/2; Real y = n;",
        "parameter Integer n = div(7, 2.0); Real y = n;",
        "function f input Integer n; output Integer m; algorithm m := n/2; end f; Real y = f(4);",
        "function f input Integer n; output Integer m; algorithm m := n; end f; Real y = f(4.0);",
        "model A parameter Integer n = 1; Real x = n; end A; A a(n = 1.5);",
        "Boolean b = 1;",
        "Boolean b = true; Real x = b;",
    ] {
        let source = format!("model M {bad} end M;");
        assert_eq!(errors(&source)[0].code, "type", "{bad}");
    }
    for bad in ["y[1.0]", "y[4/2]", "sum(y[k] for k in {1.0, 2.0})"] {
        let source = format!("model M Real y[3] = {{1, 2, 3}}; Real z = {bad}; end M;");
        assert_eq!(errors(&source)[0].code, "bad-subscript", "{bad}");
    }
    for good in [
        "Integer i = integer(2.5) + sign(-2) + abs(-3) + max(1, 2) + sum({1, 2}) + div(7, 2) + mod(7, 2);",
        "Integer k[2] = ones(2); Integer j[2, 2] = fill(3, 2, 2); Real x[2] = zeros(2);",
        "Integer s[2] = size(ones(2, 3)); Integer n = ndims(ones(2, 3)); Real A[2, 2] = identity(2) + diagonal({1, 2});",
        "parameter Integer n = div(7, 2); Real y[n] = fill(1, n); Real z = y[end - 1] + sum(y[end:-1:1]) + y[div(end, 2)];",
        "Boolean b = true; Boolean c = b == true; Boolean d = b < c;",
        "Real x(start = 0); Integer i; Real y; equation der(x) = 1; i = if x > 0.5 then 1 else 2; y = i;",
        "Real x = if time > 1 then 1 else 2.5;",
    ] {
        common::build(&format!("model M {good} end M;"));
    }
    assert_eq!(
        first("model M\n  Real x = 1;\n  Integer i;\nequation\n  i = x/2;\nend M;"),
        "error[type]: this is a Real and `i` is an Integer\n \
         --> test.mo:5:7\n  |\n5 |   i = x/2;\n  |       ^^^\n  \
         = help: `integer(x)` is the Integer below a Real, `div(a, b)` divides Integers; or declare a Real\n"
    );
}

/// 4.1 and 7.2.6.
#[test]
fn what_is_protected_or_final_stays_so() {
    let hidden = "model A protected parameter Real p = 1; public Real z = p; end A;";
    let fixed = "model A parameter Real p = 1; Real z(start = 1); equation der(z) = p; end A;";
    let package = "package P protected constant Real c = 1; public constant Real d = 2*c; end P;";
    for (source, code) in [
        (format!("{hidden} model M A a; Real y = a.p; end M;"), "protected"),
        (format!("{hidden} model M A a(p = 2); end M;"), "protected"),
        (format!("{package} model M Real x = P.c; end M;"), "protected"),
        (
            "model A final parameter Real p = 1; end A; model M A a(p = 2); end M;".to_owned(),
            "final",
        ),
        (
            format!("{fixed} model B A a(final p = 2); end B; model M B b(a(p = 3)); end M;"),
            "final",
        ),
        (
            format!("{fixed} model B A a(z(final start = 2)); end B; model M B b(a(z(start = 3))); end M;"),
            "final",
        ),
        (
            "type T = Real(final unit = \"m\"); model M T x(unit = \"s\") = 1; end M;".to_owned(),
            "final",
        ),
    ] {
        assert_eq!(errors(&source)[0].code, code, "{source}");
    }
    common::build(&format!("{hidden} model M extends A(p = 2); Real y = p; end M;"));
    common::build(&format!("{package} model M Real x = P.d; end M;"));
    common::build(&format!(
        "{fixed} model B A a(z(final start = 2)); end B; model M B b(a(z(fixed = true))); end M;"
    ));
    assert_eq!(
        first("model A\nprotected\n  Real p = 1;\nend A;\nmodel M\n  A a;\n  Real y = a.p;\nend M;"),
        "error[protected]: `p` is protected in `A`: it cannot be read from outside\n \
         --> test.mo:7:14\n  |\n7 |   Real y = a.p;\n  |              ^\n  \
         = help: declare it under `public`, or an output that equals it\n"
    );
}

/// Values from outside count as modifications.
#[test]
fn values_from_outside_fit_or_are_refused() {
    let compile = |source: &str, value: f64| {
        let options = orrery_lang::Options {
            set: vec![("p".to_owned(), value)],
            ..Default::default()
        };
        orrery_lang::compile(source, "test.mo", &options)
    };
    for (declaration, value, word) in [
        ("constant Real p = 1;", 2.0, "`p` is a constant"),
        ("constant Integer p = 1;", 2.0, "`p` is a constant"),
        ("final parameter Real p = 1;", 2.0, "`p` is final"),
        ("parameter Integer p = 1;", 2.5, "which is an Integer"),
        ("parameter Boolean p = true;", 3.0, "which is a Boolean"),
        ("parameter Integer p(min = 1, max = 3) = 1;", 5.0, "its `max` is 3"),
        ("parameter Real p(min = 0) = 1;", -1.0, "its `min` is 0"),
        ("parameter Real p[2] = {1, 2};", 3.0, "such as `p[1]`"),
        ("Real p = time;", 3.0, "`start(p)`"),
    ] {
        let text = match compile(&format!("model M {declaration} Real x = time; end M;"), value) {
            Ok(_) => panic!("{declaration} takes {value}"),
            Err(errors) => render(&errors),
        };
        assert!(text.contains(word), "{declaration}: {text}");
    }
    // Sizes, ranges and conditions follow, and a parameter that only an equation reads is no unknown one.
    for (body, value, columns) in [
        ("parameter Integer p = 1; Real x[p] = ones(p);", 3.0, 3),
        (
            "parameter Integer p = 1; Real x[4]; equation for i in 1:p loop x[i] = 1; end for; for i in p + 1:4 loop x[i] = 2; end for;",
            2.0,
            4,
        ),
        (
            "parameter Boolean p = true; Real x; equation if p then x = 1; else x = 2; end if;",
            0.0,
            1,
        ),
        ("parameter Integer p = 1; Real x = p*time;", 3.0, 1),
    ] {
        let compiled = compile(&format!("model M {body} end M;"), value);
        let compiled = compiled.unwrap_or_else(|errors| panic!("{}", render(&errors)));
        assert_eq!(compiled.meta.columns.len(), columns, "{body}");
    }
    assert_eq!(
        first("model M parameter Real p(min = 0) = -1; Real x = p; end M;")
            .lines()
            .next(),
        Some("error[bad-value]: -1 is outside the bounds of `p`")
    );
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
