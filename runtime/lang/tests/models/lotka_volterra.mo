model LotkaVolterra "Predators and prey"
  parameter Real a = 1.5 "growth of prey";
  parameter Real b = 1.0 "capture";
  parameter Real c = 1.0 "death of predators";
  parameter Real d = 1.0 "predators born per prey caught";
  output Real x(start = 1, fixed = true) "prey";
  output Real y(start = 1, fixed = true) "predators";
equation
  der(x) = a*x - b*x*y;
  der(y) = d*x*y - c*y;
end LotkaVolterra;
