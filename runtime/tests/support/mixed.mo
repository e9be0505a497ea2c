// Bounces with drag, a push, doses that remember, and a hidden relation.
model Mixed
  parameter Real e = 0.9; parameter Real g = 9.81; parameter Real drag = 0.05; parameter Real target = 3;
  parameter Real twice = 2*g;
  input Real push(start = 0); input Real held(start = 0.1);
  Real h(start = g/9, fixed = true); Real v(start = 0, fixed = true); Real x(start = 1, fixed = true);
  Real w = if x > 1.5 then 2*x else x + 1.5;
  discrete Real dose(start = 0); discrete Real total(start = 0);
equation
  der(h) = v;
  der(v) = -twice/2 - drag*v*noEvent(abs(v)) + push;
  der(x) = -0.9*w + held;
  when h <= 0 then
    reinit(v, -e*pre(v));
  end when;
  when sample(0.5, 0.5) then
    dose = 0.5*(target - x);
    total = pre(total) + dose;
    reinit(x, x + dose + 0.01*total);
  end when;
end Mixed;
