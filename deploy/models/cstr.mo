model CSTR "a stirred tank with an exothermic reaction and a cooling jacket"
  // Seborg, Edgar, Mellichamp and Doyle, Process Dynamics and Control, example 2.5: A -> B of first order. The steady
  // state at 300 K of coolant (0.5 mol/L, 350 K) is stable; at 305 K the reactor runs into a large oscillation.
  parameter Real volume(unit = "m3", min = 0) = 0.1 "of the liquid";
  parameter Real q(unit = "m3/s", min = 0) = 0.1/60 "flow through the tank: 100 L/min";
  parameter Real density(unit = "kg/m3", min = 0) = 1000;
  parameter Real specific_heat(unit = "J/(kg.K)", min = 0) = 239;
  parameter Real k0(unit = "1/s", min = 0) = 7.2e10/60 "frequency factor: 7.2e10 per minute";
  parameter Real e_over_r(unit = "K", min = 0) = 8750 "activation energy by the gas constant";
  parameter Real heat(unit = "J/mol") = 5e4 "heat set free by the reaction";
  parameter Real ua(unit = "W/K", min = 0) = 5e4/60 "heat transfer to the jacket: 5e4 J/(min.K)";
  parameter Real c0(unit = "mol/m3", min = 0) = 500 "A in the tank at the start";
  parameter Real t0(unit = "K", min = 200) = 350 "temperature at the start";

  input Real coolant(unit = "K", start = 300, min = 250, max = 400) "temperature of the coolant";
  input Real feed(unit = "mol/m3", start = 1000, min = 0) "A in the feed";
  input Real feed_temperature(unit = "K", start = 350, min = 250, max = 450);

  output Real c(unit = "mol/m3", start = c0, fixed = true, nominal = 500, min = 0) "A in the tank";
  output Real temperature(unit = "K", start = t0, fixed = true, nominal = 350, min = 200) "in the tank";
protected
  Real rate(unit = "mol/(m3.s)") "A that reacts";
equation
  rate = k0*exp(-e_over_r/temperature)*c;
  volume*der(c) = q*(feed - c) - volume*rate;
  volume*density*specific_heat*der(temperature) = q*density*specific_heat*(feed_temperature - temperature)
    + heat*volume*rate + ua*(coolant - temperature);
end CSTR;
