model OneCompartment "pharmacokinetics of one compartment: doses by mouth, absorbed and eliminated by first order"
  // Gibaldi and Perrier, Pharmacokinetics, chapters 1 and 3. The defaults are near the mean of the twelve subjects of
  // the theophylline study (Boeckmann, Sheiner and Beal 1994). The first dose is there at the start, the next ones
  // follow every `interval`.
  parameter Real dose(unit = "mg", min = 0) = 320 "swallowed each time";
  parameter Real available(unit = "1", min = 0, max = 1) = 1 "fraction of a dose that is absorbed";
  parameter Real interval(unit = "s", min = 1) = 28800 "between doses: 8 h";
  parameter Real ka(unit = "1/h", min = 0) = 1.5 "absorption";
  parameter Real clearance(unit = "L/h", min = 0) = 2.8 "plasma freed of the drug";
  parameter Real volume(unit = "L", min = 0) = 32 "distribution";

  output Real concentration(unit = "mg/L") "in the plasma";
  output Real gut(unit = "mg", start = available*dose, fixed = true, nominal = 100, min = 0) "drug still to be absorbed";
  output Real body(unit = "mg", start = 0, fixed = true, nominal = 100, min = 0) "drug in the compartment";
equation
  concentration = body/volume;
  der(gut) = -ka/3600*gut;
  der(body) = ka/3600*gut - clearance/3600*concentration;
  when sample(interval, interval) then
    reinit(gut, pre(gut) + available*dose);
  end when;
end OneCompartment;
