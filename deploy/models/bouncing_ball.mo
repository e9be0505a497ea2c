model BouncingBall "a ball that falls, bounces and loses energy at each impact"
  // Free flight with quadratic air drag and Newton's impact law. Without drag both the flight (parabolas) and the
  // instants of impact have closed forms; with it (k > 0) they still do, by logarithms. Impacts follow each other
  // faster and faster and accumulate at a finite time, (1 + 2*e/(1 - e))*sqrt(2*h0/g) without drag: stop before it.
  parameter Real g(unit = "m/s2", min = 0) = 9.81 "gravity";
  parameter Real e(unit = "1", min = 0, max = 1) = 0.8 "coefficient of restitution";
  parameter Real k(unit = "1/m", min = 0) = 0 "drag: air density*drag coefficient*cross section/(2*mass)";
  parameter Real h0(unit = "m", min = 0) = 1 "height at the start";
  parameter Real v0(unit = "m/s") = 0 "upward velocity at the start";

  output Real h(unit = "m", start = h0, fixed = true, nominal = 1) "height above the ground";
  output Real v(unit = "m/s", start = v0, fixed = true, nominal = 1) "upward velocity";
  output Integer bounces(start = 0, fixed = true) "impacts so far";
equation
  der(h) = v;
  der(v) = -g - k*v*abs(v);
  when h <= 0 then
    reinit(v, -e*pre(v));
    bounces = pre(bounces) + 1;
  end when;
end BouncingBall;
