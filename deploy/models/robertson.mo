model Robertson "three reactions whose rates lie nine orders of magnitude apart"
  // H. H. Robertson (1966). A -> B slowly, B + B -> B + C very fast, B + C -> A + C fast: the classical stiff problem,
  // posed over 1e11 s in the IVP test set (problem ROBER). Amounts are fractions and add up to 1.
  parameter Real k1(unit = "1/s", min = 0) = 0.04 "A -> B";
  parameter Real k2(unit = "1/s", min = 0) = 3e7 "B + B -> B + C";
  parameter Real k3(unit = "1/s", min = 0) = 1e4 "B + C -> A + C";

  output Real y1(unit = "1", start = 1, fixed = true, nominal = 1) "fraction of A";
  output Real y2(unit = "1", start = 0, fixed = true, nominal = 1e-4) "fraction of B";
  output Real y3(unit = "1", start = 0, fixed = true, nominal = 1) "fraction of C";
protected
  Real r1(unit = "1/s") "rate of the first reaction";
  Real r2(unit = "1/s") "rate of the second reaction";
  Real r3(unit = "1/s") "rate of the third reaction";
equation
  r1 = k1*y1;
  r2 = k2*y2^2;
  r3 = k3*y2*y3;
  der(y1) = -r1 + r3;
  der(y2) = r1 - r2 - r3;
  der(y3) = r2;
end Robertson;
