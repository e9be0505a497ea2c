//! `orrery model new`.

use std::io::Write as _;
use std::path::PathBuf;

use crate::commands::say;
use crate::error::{Exit, Failure};

/// Two coupled balances with units: small, but with everything a model of a rig has.
const TEMPLATE: &str = r#"model NAME "a heated tank with an outflow"
  // Every quantity has a unit; `orrery model check` refuses what does not fit.
  constant Real g(unit = "m/s2") = 9.80665 "standard gravity";

  // Parameters can be changed without recompiling: --set area=2.
  parameter Real area(unit = "m2", min = 1e-6) = 0.5 "cross section of the tank";
  parameter Real hole(unit = "m2", min = 0) = 1e-4 "cross section of the outlet";
  parameter Real capacity(unit = "J/(m3.K)") = 4.18e6 "heat that one cubic metre takes up per kelvin";
  parameter Real loss(unit = "W/K", min = 0) = 5 "heat lost to the room per kelvin";

  // Inputs come from outside: from streams in a graph, or --set heater=500. Until then they keep their start.
  input Real inflow(unit = "m3/s", min = 0, start = 2e-4) "water that flows in";
  input Real cold(unit = "degC", start = 12) "its temperature";
  input Real room(unit = "degC", start = 21) "temperature of the room";
  input Real heater(unit = "W", min = 0, start = 2000) "heat put in";

  // Outputs are the first columns of a result. States, those with a derivative, start at `start`.
  output Real level(unit = "m", start = 0.4, fixed = true, min = 0) "height of the water";
  output Real temperature(unit = "degC", start = 20, fixed = true, nominal = 50) "temperature of the water";
protected
  Real outflow(unit = "m3/s") "water that flows out";
equation
  outflow = hole*sqrt(2*g*level) "Torricelli's law";
  // What flows in stays or flows out.
  area*der(level) = inflow - outflow;
  // What is put in warms the water; what flows in is colder.
  capacity*area*level*der(temperature) = heater - loss*(temperature - room) + capacity*inflow*(cold - temperature);
end NAME;
"#;

/// Writes NAME.mo, never over an existing file.
pub fn new(name: &str) -> Result<(), Failure> {
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let whole = name.chars().all(|other| other.is_ascii_alphanumeric() || other == '_');
    if !starts_well || !whole {
        let message = format!("`{name}` is not a name in Modelica: a letter, then letters, digits and _");
        return Err(Failure::new(Exit::Usage, message));
    }
    let text = TEMPLATE.replace("NAME", name);
    // Keywords and the names of built-in types are no names of models.
    orrery_runtime::solver::format(&text, name).map_err(|refused| {
        let message = format!("`{name}` cannot name a model: {}", refused.message);
        Failure::new(Exit::Usage, message)
    })?;
    let path = PathBuf::from(format!("{name}.mo"));
    let mut file = std::fs::File::create_new(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            let message = format!("{} exists already: choose another name", path.display());
            Failure::new(Exit::Conflict, message)
        }
        _ => Failure::from_error(format!("{}: {error}", path.display())),
    })?;
    let written = file.write_all(text.as_bytes());
    written.map_err(|error| Failure::from_error(format!("{}: {error}", path.display())))?;
    let shown = path.display();
    say(format_args!(
        "{shown} written. Try: orrery model run {shown} --until 3600 --every 600"
    ))?;
    Ok(())
}
