//! The problems, as text for the compiler; `native.rs`, `diffsol.rs` and `diffrax_side.py` state them again by hand.

pub const LOTKA_VOLTERRA: &str = include_str!("../../../deploy/models/lotka_volterra.mo");
pub const ROBERTSON: &str = include_str!("../../../deploy/models/robertson.mo");
pub const VAN_DER_POL: &str = include_str!("../../../deploy/models/van_der_pol.mo");
pub const TCLAB: &str = include_str!("../../../deploy/models/tclab.mo");

/// A chain of masses between two walls with a linear and a cubic coefficient for each spring: 2·(springs − 1) states and
/// 2·springs parameters.
pub fn chain(springs: usize) -> String {
    let masses = springs - 1;
    format!(
        "model Chain
  parameter Real k[{springs}] = {{1.0 + 0.5*sin(i) for i in 1:{springs}}} \"stiffness\";
  parameter Real b[{springs}] = {{0.2 + 0.1*cos(i) for i in 1:{springs}}} \"hardening\";
  Real x[{masses}](start = {{sin(0.7*i) for i in 1:{masses}}}, each fixed = true);
  Real v[{masses}](each start = 0, each fixed = true);
  output Real middle = x[{middle}];
protected
  Real d[{springs}];
  Real f[{springs}];
equation
  d[1] = x[1];
  for i in 2:{masses} loop
    d[i] = x[i] - x[i - 1];
  end for;
  d[{springs}] = -x[{masses}];
  for i in 1:{springs} loop
    f[i] = d[i]*(k[i] + b[i]*d[i]^2);
  end for;
  for i in 1:{masses} loop
    der(x[i]) = v[i];
    der(v[i]) = f[i + 1] - f[i] - 0.05*v[i];
  end for;
end Chain;
",
        middle = masses.div_ceil(2),
    )
}

/// Species that all act on each other (generalised Lotka–Volterra): `n` states and n + n² parameters.
pub fn species(n: usize) -> String {
    let rows: Vec<String> = (1..=n)
        .map(|i| {
            let weight = |j: usize| match j {
                j if j == i => 1.0,
                j => 0.5 * ((i + 2 * j) as f64).sin() / n as f64,
            };
            let row: Vec<String> = (1..=n).map(|j| format!("{:?}", weight(j))).collect();
            format!("{{{}}}", row.join(", "))
        })
        .collect();
    let sum: Vec<String> = (1..=n).map(|j| format!("a[i, {j}]*x[{j}]")).collect();
    format!(
        "model Species
  parameter Real r[{n}] = {{1.0 + 0.5*sin(i) for i in 1:{n}}} \"growth\";
  parameter Real a[{n}, {n}] = {{{}}} \"what a species loses to another\";
  Real x[{n}](start = {{0.5 + 0.3*cos(i) for i in 1:{n}}}, each fixed = true);
  output Real first = x[1];
equation
  for i in 1:{n} loop
    der(x[i]) = r[i]*x[i]*(1.0 - ({}));
  end for;
end Species;
",
        rows.join(", "),
        sum.join(" + "),
    )
}
