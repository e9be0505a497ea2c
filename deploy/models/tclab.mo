model TCLab "Temperature Control Lab: two heaters with sensors, and how far the model may be off"
  // Heaters: an energy balance each, losing heat to the air by convection and radiation and exchanging some with the
  // other one. Sensors: first-order lag. The values are fitted by least squares to the recording of a real board that
  // ships with the project (tests/fixtures), open loop from its first sample over 5,100 s.
  constant Real sigma(unit = "W/(m2.K4)") = 5.67e-8 "Stefan-Boltzmann constant";

  parameter Real C1(unit = "J/K", min = 0.1, max = 20) = 1.6024 "heat capacity of heater 1";
  parameter Real C2(unit = "J/K", min = 0.1, max = 20) = 1.5104 "heat capacity of heater 2";
  parameter Real U1(unit = "W/K", min = 0, max = 0.1) = 3.7134e-3 "convection of heater 1";
  parameter Real U2(unit = "W/K", min = 0, max = 0.1) = 6.6842e-3 "convection of heater 2";
  parameter Real U12(unit = "W/K", min = 0, max = 0.1) = 3.0054e-3 "exchange between the heaters";
  parameter Real a1(unit = "W/%", min = 0, max = 0.1) = 6.7207e-3 "power of heater 1 per percent";
  parameter Real a2(unit = "W/%", min = 0, max = 0.1) = 4.6143e-3 "power of heater 2 per percent";
  parameter Real emissivity(unit = "1", min = 0, max = 1) = 0.9;
  parameter Real A(unit = "m2") = 1.0e-3 "radiating surface of a heater";
  parameter Real A12(unit = "m2") = 2.0e-4 "surface by which the heaters see each other";
  parameter Real tau(unit = "s", min = 1, max = 120) = 44.486 "lag of the sensors";
  parameter Real T1_error(unit = "K", min = 0) = 0.5 "standard deviation of T1 run open loop for long";
  parameter Real T2_error(unit = "K", min = 0) = 0.4 "standard deviation of T2 run open loop for long";
  parameter Real sensor_error(unit = "K", min = 0) = 0.1 "standard deviation of a reading";
  parameter Real tau_error(unit = "s", min = 1) = 155 "time in which the error grows";

  input Real Q1(unit = "%", min = 0, max = 100, start = 0) "power of heater 1";
  input Real Q2(unit = "%", min = 0, max = 100, start = 0) "power of heater 2";
  input Real Tamb(unit = "degC", start = 25) "air around the board";

  Real TH1(unit = "degC", start = 25, fixed = true, nominal = 50) "temperature of heater 1";
  Real TH2(unit = "degC", start = 25, fixed = true, nominal = 50) "temperature of heater 2";
  output Real T1(unit = "degC", start = 25, fixed = true, nominal = 50) "reading of sensor 1";
  output Real T2(unit = "degC", start = 25, fixed = true, nominal = 50) "reading of sensor 2";
  output Real T1_sd(unit = "K") "standard deviation of T1 against the board";
  output Real T2_sd(unit = "K") "standard deviation of T2 against the board";
protected
  Real V1(unit = "K2", start = sensor_error^2, fixed = true) "variance of T1";
  Real V2(unit = "K2", start = sensor_error^2, fixed = true) "variance of T2";
  Real K1(unit = "K") "absolute temperature of heater 1";
  Real K2(unit = "K") "absolute temperature of heater 2";
  Real Ka(unit = "K") "absolute temperature of the air";
  Real exchange(unit = "W") "heat from heater 2 to heater 1";
equation
  K1 = TH1 + 273.15;
  K2 = TH2 + 273.15;
  Ka = Tamb + 273.15;
  exchange = U12*(TH2 - TH1) + emissivity*sigma*A12*(K2^4 - K1^4);
  C1*der(TH1) = a1*Q1 - U1*(TH1 - Tamb) - emissivity*sigma*A*(K1^4 - Ka^4) + exchange;
  C2*der(TH2) = a2*Q2 - U2*(TH2 - Tamb) - emissivity*sigma*A*(K2^4 - Ka^4) - exchange;
  tau*der(T1) = TH1 - T1;
  tau*der(T2) = TH2 - T2;
  // The variance of a lag of first order driven by noise: from what a reading leaves open to the long-run error.
  tau_error*der(V1) = 2*(T1_error^2 - V1);
  tau_error*der(V2) = 2*(T2_error^2 - V2);
  T1_sd = sqrt(V1);
  T2_sd = sqrt(V2);
end TCLab;
