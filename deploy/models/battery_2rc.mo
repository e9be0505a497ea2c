model Battery2RC "equivalent circuit of a lithium-ion cell with its temperature, charged by constant current, then voltage"
  // Chen and Rincon-Mora (2006), equations (2) to (7) and their fit to an 850 mAh polymer cell; a lumped heat balance;
  // resistances that follow Arrhenius' law about 25 degC. The charger holds i_cc until the terminal reaches v_max, then
  // v_max until the current has fallen to i_cut, then rests.
  constant Real gas(unit = "J/(mol.K)") = 8.31446261815324 "gas constant";
  constant Real volt(unit = "V") = 1 "unit of the fitted voltages";
  constant Real ohm(unit = "Ohm") = 1 "unit of the fitted resistances";
  constant Real farad(unit = "F") = 1 "unit of the fitted capacitances";
  constant Integer cc = 1 "mode: constant current";
  constant Integer cv = 2 "mode: constant voltage";
  constant Integer rest = 3 "mode: charged";

  parameter Real capacity(unit = "C", min = 1) = 3060 "charge of the full cell: 850 mAh";
  parameter Real soc0(unit = "1", min = 0, max = 1) = 0.2 "state of charge at the start";
  parameter Real i_cc(unit = "A", min = 0) = 0.85 "charging current: 1 C";
  parameter Real i_cut(unit = "A", min = 0) = 0.0425 "current that ends the charge: C/20";
  parameter Real v_max(unit = "V", min = 0) = 4.1 "voltage of the second phase";
  parameter Real activation(unit = "J/mol", min = 0) = 2e4 "activation energy of the resistances";
  parameter Real heat_capacity(unit = "J/K", min = 0) = 20 "mass times specific heat";
  parameter Real loss(unit = "W/K", min = 0) = 0.04 "surface times heat transfer";
  parameter Real entropic(unit = "V/K") = -1e-4 "change of the open-circuit voltage with temperature";
  parameter Real t_ref(unit = "K", min = 200) = 298.15 "temperature to which the resistances belong";

  input Real ambient(unit = "K", start = 298.15) "temperature around the cell";

  output Real v(unit = "V") "terminal voltage";
  output Real i(unit = "A") "charging current";
  output Real soc(unit = "1", start = soc0, fixed = true, nominal = 1, min = 0, max = 1) "state of charge";
  output Real temperature(unit = "K", start = 298.15, fixed = true, nominal = 300) "temperature of the cell";
  output Real u1(unit = "V", start = 0, fixed = true, nominal = 0.01) "voltage over the fast pair";
  output Real u2(unit = "V", start = 0, fixed = true, nominal = 0.01) "voltage over the slow pair";
  output Integer mode(start = 1, fixed = true) "1 constant current, 2 constant voltage, 3 rest";
protected
  Real ocv(unit = "V") "open-circuit voltage";
  Real warm(unit = "1") "factor of all resistances at this temperature";
  Real r0(unit = "Ohm") "series resistance";
  Real r1(unit = "Ohm") "resistance of the fast pair";
  Real r2(unit = "Ohm") "resistance of the slow pair";
  Real c1(unit = "F") "capacitance of the fast pair";
  Real c2(unit = "F") "capacitance of the slow pair";
  Real i_cv(unit = "A") "current at which the terminal is at v_max";
equation
  ocv = volt*(-1.031*exp(-35*soc) + 3.685 + 0.2156*soc - 0.1178*soc^2 + 0.3201*soc^3)
    + entropic*(temperature - t_ref);
  warm = exp(activation/gas*(1/temperature - 1/t_ref));
  r0 = ohm*(0.1562*exp(-24.37*soc) + 0.07446)*warm;
  r1 = ohm*(0.3208*exp(-29.14*soc) + 0.04669)*warm;
  r2 = ohm*(6.603*exp(-155.2*soc) + 0.04984)*warm;
  c1 = farad*(-752.9*exp(-13.51*soc) + 703.6);
  c2 = farad*(-6056*exp(-27.12*soc) + 4475);

  i_cv = (v_max - ocv - u1 - u2)/r0;
  i = if mode == cc then i_cc else if mode == cv then i_cv else 0;
  v = ocv + u1 + u2 + r0*i;

  capacity*der(soc) = i;
  c1*der(u1) = i - u1/r1;
  c2*der(u2) = i - u2/r2;
  heat_capacity*der(temperature) = r0*i^2 + u1^2/r1 + u2^2/r2 + entropic*temperature*i - loss*(temperature - ambient);

  // Both guards compare with the current that the other phase would have, so neither rests at zero after its event.
  when pre(mode) == cc and i_cv <= i_cc then
    mode = cv;
  elsewhen pre(mode) == cv and i_cv <= i_cut then
    mode = rest;
  end when;
end Battery2RC;
