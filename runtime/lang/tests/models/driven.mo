model Driven "A damped pendulum pushed by an input"
  parameter Real damping(unit = "1/s") = 0.3;
  parameter Real stiffness(unit = "1/s2") = 9.81;
  input Real push(unit = "1/s2", start = 0.5);
  output Real angle(start = 1, fixed = true);
  Real speed(unit = "1/s", start = 0, fixed = true);
  Real energy(unit = "1/s2");
equation
  der(angle) = speed;
  der(speed) = push - damping*speed - stiffness*sin(angle);
  energy = 0.5*speed^2 + stiffness*(1 - cos(angle));
end Driven;
