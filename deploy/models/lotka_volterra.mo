model LotkaVolterra "prey and predators"
  // Lotka (1920), Volterra (1926). Along a solution delta*x - gamma*log(x) + beta*y - alpha*log(y) is constant. Numbers
  // are relative to a reference population, and the model's second stands for whatever the rates are given per.
  parameter Real alpha(unit = "1/s", min = 0) = 1.5 "growth of the prey";
  parameter Real beta(unit = "1/s", min = 0) = 1 "prey eaten, per predator";
  parameter Real gamma(unit = "1/s", min = 0) = 3 "death of the predators";
  parameter Real delta(unit = "1/s", min = 0) = 1 "predators born, per prey";
  parameter Real x0(unit = "1", min = 0) = 1 "prey at the start";
  parameter Real y0(unit = "1", min = 0) = 1 "predators at the start";

  output Real x(unit = "1", start = x0, fixed = true, nominal = 1, min = 0) "prey";
  output Real y(unit = "1", start = y0, fixed = true, nominal = 1, min = 0) "predators";
equation
  der(x) = alpha*x - beta*x*y;
  der(y) = delta*x*y - gamma*y;
end LotkaVolterra;
