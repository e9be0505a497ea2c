model Bicycle "a car as a bicycle: the dynamic single-track model"
  // Rajamani, Vehicle Dynamics and Control (2nd ed.), section 2.3, with his example car, without the
  // linearisation of the frame: both wheels of an axle are one, a tyre pushes sideways in proportion to its slip angle.
  // Valid while the car drives forward, and while tyres slip little: they never saturate here.
  parameter Real mass(unit = "kg", min = 1) = 1573 "of the car";
  parameter Real inertia(unit = "kg.m2", min = 1) = 2873 "about the vertical axis";
  parameter Real lf(unit = "m", min = 0) = 1.1 "from the centre of gravity to the front axle";
  parameter Real lr(unit = "m", min = 0) = 1.58 "from the centre of gravity to the rear axle";
  parameter Real cf(unit = "N/rad", min = 0) = 160000 "cornering stiffness of the front axle: two tyres";
  parameter Real cr(unit = "N/rad", min = 0) = 160000 "cornering stiffness of the rear axle: two tyres";
  parameter Real drag(unit = "kg/m", min = 0) = 0.4 "air: density*drag coefficient*area/2";
  parameter Real speed0(unit = "m/s", min = 1) = 20 "forward speed at the start";

  input Real steer(unit = "rad", start = 0, min = -0.6, max = 0.6) "front wheel, positive to the left";
  input Real drive(unit = "N", start = 0) "force of the rear wheels, negative when braking";

  output Real x(unit = "m", start = 0, fixed = true, nominal = 10) "position, along the first heading";
  output Real y(unit = "m", start = 0, fixed = true, nominal = 10) "position, to the left of the first heading";
  output Real yaw(unit = "rad", start = 0, fixed = true, nominal = 1) "heading, positive to the left";
  output Real speed(unit = "m/s", start = speed0, fixed = true, nominal = 10) "forward velocity";
  output Real drift(unit = "m/s", start = 0, fixed = true, nominal = 1) "velocity to the left";
  output Real yaw_rate(unit = "rad/s", start = 0, fixed = true, nominal = 1) "turning, positive to the left";
protected
  Real slip_f(unit = "rad") "slip angle of the front axle";
  Real slip_r(unit = "rad") "slip angle of the rear axle";
  Real fyf(unit = "N") "side force of the front axle";
  Real fyr(unit = "N") "side force of the rear axle";
equation
  slip_f = steer - atan((drift + lf*yaw_rate)/speed);
  slip_r = -atan((drift - lr*yaw_rate)/speed);
  fyf = cf*slip_f;
  fyr = cr*slip_r;
  der(x) = speed*cos(yaw) - drift*sin(yaw);
  der(y) = speed*sin(yaw) + drift*cos(yaw);
  der(yaw) = yaw_rate;
  mass*(der(speed) - drift*yaw_rate) = drive - fyf*sin(steer) - drag*speed^2;
  mass*(der(drift) + speed*yaw_rate) = fyf*cos(steer) + fyr;
  inertia*der(yaw_rate) = lf*fyf*cos(steer) - lr*fyr;
end Bicycle;
