model VanDerPol "an oscillator with negative damping near rest"
  // Van der Pol (1926), y'' - mu*(1 - y^2)*y' + y = 0 in time scaled by omega. Harmless at mu near 1, a relaxation
  // oscillator and stiff at mu = 1000, where it equals the problem VDPOL (eps = 1e-6) of the IVP test set with time
  // multiplied and velocity divided by mu.
  parameter Real mu(unit = "1", min = 0) = 1000 "nonlinearity";
  parameter Real omega(unit = "1/s", min = 0) = 1 "angular frequency at mu = 0";

  output Real y(unit = "1", start = 2, fixed = true, nominal = 1) "deflection";
  output Real v(unit = "1/s", start = 0, fixed = true, nominal = 1) "its rate of change";
equation
  der(y) = v;
  der(v) = mu*omega*(1 - y^2)*v - omega^2*y;
end VanDerPol;
