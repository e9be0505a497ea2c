model BallDrag "a ball that bounces in air"
  parameter Real e(unit = "1") = 0.8 "restitution";
  parameter Real g(unit = "m/s2") = 9.81;
  parameter Real c(unit = "1/m") = 0.15 "drag over mass";
  parameter Real h0(unit = "m") = 1;
  parameter Real v0(unit = "m/s") = 0.5;
  output Real h(unit = "m", start = h0, fixed = true);
  output Real v(unit = "m/s", start = v0, fixed = true);
equation
  der(h) = v;
  der(v) = -g - c*v*abs(v);
  when h <= 0 then
    reinit(v, -e*pre(v));
  end when;
end BallDrag;
