model TCLab "Temperature Control Lab: two heaters with their sensors"
  // An energy balance for each heater, which loses heat to the air by convection and radiation and exchanges some with
  // the other one; a lag of first order for each sensor. The values are fitted by least squares to the recording of a
  // real board that ships with the project, open loop from its first sample over 5,100 s: RMS 0.50 and 0.41 degC.
  constant Real sigma(unit = "W/(m2.K4)") = 5.67e-8 "Stefan-Boltzmann constant";

  parameter Real c1(unit = "J/K", min = 0.1, max = 20) = 1.6024 "heat capacity of heater 1";
  parameter Real c2(unit = "J/K", min = 0.1, max = 20) = 1.5104 "heat capacity of heater 2";
  parameter Real u1(unit = "W/K", min = 0, max = 0.1) = 3.7134e-3 "convection of heater 1";
  parameter Real u2(unit = "W/K", min = 0, max = 0.1) = 6.6842e-3 "convection of heater 2";
  parameter Real u12(unit = "W/K", min = 0, max = 0.1) = 3.0054e-3 "exchange between the heaters";
  parameter Real a1(unit = "W/%", min = 0, max = 0.1) = 6.7207e-3 "power of heater 1 per percent";
  parameter Real a2(unit = "W/%", min = 0, max = 0.1) = 4.6143e-3 "power of heater 2 per percent";
  parameter Real tau(unit = "s", min = 1, max = 120) = 44.486 "lag of the sensors";
  parameter Real emissivity(unit = "1", min = 0, max = 1) = 0.9;
  parameter Real area(unit = "m2", min = 0) = 1.0e-3 "radiating surface of a heater";
  parameter Real facing(unit = "m2", min = 0) = 2.0e-4 "surface with which the heaters face each other";

  input Real q1(unit = "%", min = 0, max = 100, start = 0) "power of heater 1";
  input Real q2(unit = "%", min = 0, max = 100, start = 0) "power of heater 2";
  input Real ambient(unit = "degC", start = 25) "air around the board";

  output Real t1(unit = "degC", start = 25, fixed = true, nominal = 50) "sensor 1";
  output Real t2(unit = "degC", start = 25, fixed = true, nominal = 50) "sensor 2";
protected
  // The heaters as seen from their sensors: 0 is balance, wherever the sensors start.
  Real lead1(unit = "K", start = 0, fixed = true) "heater 1 above its sensor";
  Real lead2(unit = "K", start = 0, fixed = true) "heater 2 above its sensor";
  Real heater1(unit = "degC");
  Real heater2(unit = "degC");
  Real k1(unit = "K") "absolute temperature of heater 1";
  Real k2(unit = "K") "absolute temperature of heater 2";
  Real k0(unit = "K") "absolute temperature of the air";
  Real exchange(unit = "W") "heat from heater 2 to heater 1";
equation
  heater1 = t1 + lead1;
  heater2 = t2 + lead2;
  k1 = heater1 + 273.15;
  k2 = heater2 + 273.15;
  k0 = ambient + 273.15;
  exchange = u12*(heater2 - heater1) + emissivity*sigma*facing*(k2^4 - k1^4);
  c1*(der(t1) + der(lead1)) = a1*q1 - u1*(heater1 - ambient) - emissivity*sigma*area*(k1^4 - k0^4) + exchange;
  c2*(der(t2) + der(lead2)) = a2*q2 - u2*(heater2 - ambient) - emissivity*sigma*area*(k2^4 - k0^4) - exchange;
  tau*der(t1) = lead1;
  tau*der(t2) = lead2;
end TCLab;
