model SPM "single-particle model of a lithium-ion cell (LG M50, graphite and NMC 811)"
  // One sphere stands for each electrode (Marquis et al. 2019, section 2); lithium diffuses in it (finite volumes of
  // equal thickness), enters by symmetric Butler-Volmer kinetics, and the electrolyte drops no voltage. Parameters:
  // Chen et al. (2020), tables VII to IX, with their open-circuit potentials, equations (8) and (9).
  constant Real faraday(unit = "C/mol") = 96485.33212331001 "Faraday constant";
  constant Real gas(unit = "J/(mol.K)") = 8.31446261815324 "gas constant";
  constant Real volt(unit = "V") = 1 "unit of the fitted potentials";
  parameter Integer n(min = 2) = 20 "finite volumes of each particle";

  parameter Real area(unit = "m2", min = 0) = 0.065*1.58 "electrode surface: height times width";
  parameter Real temperature(unit = "K", min = 200) = 298.15 "temperature of the cell";

  parameter Real thickness_n(unit = "m", min = 0) = 85.2e-6 "negative electrode";
  parameter Real fraction_n(unit = "1", min = 0, max = 1) = 0.75 "active material in the negative electrode";
  parameter Real radius_n(unit = "m", min = 0) = 5.86e-6 "negative particles";
  parameter Real d_n(unit = "m2/s", min = 0) = 3.3e-14 "diffusion in negative particles";
  parameter Real c_max_n(unit = "mol/m3", min = 0) = 33133 "most lithium in negative particles";
  parameter Real c0_n(unit = "mol/m3", min = 0) = 29866 "lithium in negative particles at the start";
  parameter Real j0_n(unit = "A/m2", min = 0) = 6.48e-7*33133*sqrt(1000)
    "exchange current of the negative electrode: rate constant*c_max*sqrt(electrolyte concentration)";

  parameter Real thickness_p(unit = "m", min = 0) = 75.6e-6 "positive electrode";
  parameter Real fraction_p(unit = "1", min = 0, max = 1) = 0.665 "active material in the positive electrode";
  parameter Real radius_p(unit = "m", min = 0) = 5.22e-6 "positive particles";
  parameter Real d_p(unit = "m2/s", min = 0) = 4e-15 "diffusion in positive particles";
  parameter Real c_max_p(unit = "mol/m3", min = 0) = 63104 "most lithium in positive particles";
  parameter Real c0_p(unit = "mol/m3", min = 0) = 17038 "lithium in positive particles at the start";
  parameter Real j0_p(unit = "A/m2", min = 0) = 3.42e-6*63104*sqrt(1000)
    "exchange current of the positive electrode: rate constant*c_max*sqrt(electrolyte concentration)";

  input Real i(unit = "A", start = 5) "current, positive when the cell is discharged";

  output Real v(unit = "V") "terminal voltage";
  output Real x(unit = "1") "stoichiometry at the surface of negative particles";
  output Real y(unit = "1") "stoichiometry at the surface of positive particles";
protected
  Real c_n[n](each unit = "mol/m3", each start = c0_n, each fixed = true, each nominal = 1e4) "negative, centre first";
  Real c_p[n](each unit = "mol/m3", each start = c0_p, each fixed = true, each nominal = 1e4) "positive, centre first";
  Real flux_n[n + 1](each unit = "mol/(m2.s)") "outward through the shells of the negative particle";
  Real flux_p[n + 1](each unit = "mol/(m2.s)") "outward through the shells of the positive particle";
  parameter Real dr_n(unit = "m") = radius_n/n;
  parameter Real dr_p(unit = "m") = radius_p/n;
  Real j_n(unit = "A/m2") "current through the surface of negative particles";
  Real j_p(unit = "A/m2") "current through the surface of positive particles";
  Real u_n(unit = "V") "open-circuit potential of graphite";
  Real u_p(unit = "V") "open-circuit potential of NMC";
  Real s_n(unit = "1") "sinh of the scaled overpotential, negative";
  Real s_p(unit = "1") "sinh of the scaled overpotential, positive";
  Real eta_n(unit = "V") "overpotential of the negative electrode";
  Real eta_p(unit = "V") "overpotential of the positive electrode";
equation
  j_n = i/(area*thickness_n*3*fraction_n/radius_n);
  j_p = -i/(area*thickness_p*3*fraction_p/radius_p);

  flux_n[1] = 0;
  flux_p[1] = 0;
  for k in 2:n loop
    flux_n[k] = -d_n*(c_n[k] - c_n[k - 1])/dr_n;
    flux_p[k] = -d_p*(c_p[k] - c_p[k - 1])/dr_p;
  end for;
  flux_n[n + 1] = j_n/faraday;
  flux_p[n + 1] = j_p/faraday;
  for k in 1:n loop
    der(c_n[k]) = 3*((k - 1)^2*flux_n[k] - k^2*flux_n[k + 1])/((k^3 - (k - 1)^3)*dr_n);
    der(c_p[k]) = 3*((k - 1)^2*flux_p[k] - k^2*flux_p[k + 1])/((k^3 - (k - 1)^3)*dr_p);
  end for;

  // Surface by straight continuation of the two outermost volumes.
  x = (3*c_n[n] - c_n[n - 1])/(2*c_max_n);
  y = (3*c_p[n] - c_p[n - 1])/(2*c_max_p);

  u_n = volt*(1.9793*exp(-39.3631*x) + 0.2482 - 0.0909*tanh(29.8538*(x - 0.1234))
    - 0.04478*tanh(14.9159*(x - 0.2769)) - 0.0205*tanh(30.4444*(x - 0.6103)));
  u_p = volt*(-0.8090*y + 4.4875 - 0.0428*tanh(18.5138*(y - 0.5542)) - 17.7326*tanh(15.7890*(y - 0.3117))
    + 17.5842*tanh(15.9308*(y - 0.3120)));

  // eta = 2*R*T/F*arsinh(j/(2*j0)), the inverse of sinh written out.
  s_n = j_n/(2*j0_n*sqrt(x*(1 - x)));
  s_p = j_p/(2*j0_p*sqrt(y*(1 - y)));
  eta_n = 2*gas*temperature/faraday*log(s_n + sqrt(s_n^2 + 1));
  eta_p = -2*gas*temperature/faraday*log(-s_p + sqrt(s_p^2 + 1));
  v = u_p + eta_p - u_n - eta_n;
end SPM;
