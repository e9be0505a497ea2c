//! Configuration texts that refuse what they do not know, with environment variables above them.

use serde::de::DeserializeOwned;

use crate::error::ConfigError;

const PREFIX: &str = "ORRERY__";

/// The variables of the environment that speak about configuration: `ORRERY__SECTION__KEY`.
pub fn variables() -> Vec<(String, String)> {
    std::env::vars().filter(|(name, _)| name.starts_with(PREFIX)).collect()
}

/// Reads a TOML text with variables above it; `place` names it in messages.
///
/// # Errors
/// Names the place, the line and the key, with the nearest known key where one was mistyped.
pub fn from_text<T: DeserializeOwned>(
    text: &str,
    place: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<T, ConfigError> {
    let refused = |place: &str, error: toml::de::Error| ConfigError::Syntax {
        place: place.to_owned(),
        message: with_nearest_key(error.to_string().trim_end()),
    };
    let mut variables = variables.into_iter().peekable();
    if variables.peek().is_none() {
        return toml::from_str(text).map_err(|error| refused(place, error));
    }
    // The text's own syntax first: its errors have line numbers, a merged table's have none.
    let mut table: toml::Table = toml::from_str(text).map_err(|error| refused(place, error))?;
    let mut names = Vec::new();
    for (name, value) in variables {
        set(&mut table, &name, &value)?;
        names.push(name);
    }
    T::deserialize(table).map_err(|error| {
        // A text that is wrong by itself is reported with its line.
        match toml::from_str::<T>(text) {
            Err(own) => refused(place, own),
            Ok(_) => refused(&format!("{place} under {}", names.join(", ")), error),
        }
    })
}

/// Puts `ORRERY__SINK__URL=x` at `sink.url`; numbers and booleans are read as such.
fn set(table: &mut toml::Table, name: &str, value: &str) -> Result<(), ConfigError> {
    let wrong = || ConfigError::Variable { name: name.to_owned() };
    let path = name.strip_prefix(PREFIX).ok_or_else(wrong)?.to_lowercase();
    let parsed = toml::from_str::<toml::Table>(&format!("v = {value}"))
        .ok()
        .and_then(|mut table| table.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let mut parts: Vec<&str> = path.split("__").collect();
    let last = parts.pop().filter(|last| !last.is_empty()).ok_or_else(wrong)?;
    let mut at = table;
    for part in parts {
        let entry = at
            .entry(part.to_owned())
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = entry.as_table_mut().ok_or_else(wrong)?;
    }
    at.insert(last.to_owned(), parsed);
    Ok(())
}

/// Adds "did you mean" to serde's list of known keys.
fn with_nearest_key(message: &str) -> String {
    // The message quotes the line first; the names come after "unknown".
    let Some(at) = message
        .find("unknown field")
        .or_else(|| message.find("unknown variant"))
    else {
        return message.to_owned();
    };
    let mut names = message[at..].split('`').skip(1).step_by(2);
    let nearest = names.next().and_then(|unknown| {
        names
            .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
            .filter(|(distance, known)| *distance <= 1 + known.len() / 3)
            .min()
    });
    match nearest {
        Some((_, known)) => format!("{message}\ndid you mean `{known}`?"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    const GOOD: &str = r#"
        [sink]
        kind = "https"
        url = "http://127.0.0.1:1"
        [[devices]]
        id = "d1"
        connector = { kind = "mqtt", url = "mqtt://localhost" }
        [[devices.streams]]
        name = "s"
        topic = "lab/x"
        nominal_rate_hz = 10
        channels = [{ name = "t", unit = "Cel", source = "/t" }]
    "#;

    fn error_of(text: &str) -> String {
        Config::parse(text, "edge.toml", Vec::new()).unwrap_err().to_string()
    }

    #[test]
    fn a_good_text_is_read_and_variables_win() {
        let config = Config::parse(GOOD, "edge.toml", Vec::new()).unwrap();
        assert_eq!(config.devices[0].streams[0].channels[0].source(), "/t");
        let variables = vec![
            ("ORRERY__SPOOL__MAX_BYTES".to_owned(), "2097152".to_owned()),
            ("ORRERY__SINK__URL".to_owned(), "https://elsewhere".to_owned()),
        ];
        let config = Config::parse(GOOD, "edge.toml", variables).unwrap();
        assert_eq!(config.spool.max_bytes, 2_097_152);
        assert!(matches!(config.sink, crate::config::SinkConfig::Https { url, .. } if url == "https://elsewhere"));
        let stray = vec![("ORRERY__SPOOL__MAX_BYTE".to_owned(), "1".to_owned())];
        let error = Config::parse(GOOD, "edge.toml", stray).unwrap_err().to_string();
        assert!(error.contains("did you mean `max_bytes`"), "{error}");
        assert!(error.contains("edge.toml under ORRERY__SPOOL__MAX_BYTE"), "{error}");
    }

    #[test]
    fn a_mistyped_key_is_named_with_its_line_and_the_nearest_key() {
        let error = error_of(&GOOD.replace("unit =", "unitt ="));
        assert!(
            error.contains("edge.toml") && error.contains("unitt") && error.contains("did you mean `unit`?"),
            "{error}"
        );
        let error = error_of(&GOOD.replace("url = \"mqtt", "ulr = \"mqtt"));
        assert!(error.contains("did you mean `url`?"), "{error}");
        let error = error_of(&GOOD.replace("kind = \"mqtt\"", "kind = \"mqt\""));
        assert!(error.contains("did you mean `mqtt`?"), "{error}");
        let error = error_of("heartbeat_mss = 1\n");
        assert!(
            error.contains("line 1") && error.contains("did you mean `heartbeat_ms`?"),
            "{error}"
        );
    }

    #[test]
    fn a_unit_that_is_none_is_warned_of_with_the_nearest() {
        let warnings = |text: &str| Config::parse(text, "edge.toml", Vec::new()).unwrap().warnings();
        assert_eq!(warnings(GOOD), Vec::<String>::new());
        let wanted = "d1/s: the unit `Celsius` of `t` is not one of UCUM; write `Cel`?";
        assert_eq!(warnings(&GOOD.replace("\"Cel\"", "\"Celsius\"")), [wanted]);
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        for (from, to, wanted) in [
            ("topic = \"lab/x\"", "", "stream `s` has no topic"),
            ("name = \"t\"", "name = \"received\"", "belongs to Orrery"),
            ("name = \"t\"", "name = \"a-b\"", "use letters, digits and _"),
            ("mqtt://localhost", "http://localhost", "is not an MQTT address"),
            ("id = \"d1\"", "id = \"d1\"\nbatch = { max_rows = 0 }", "max_rows"),
            ("lab/x", "lab/#/x", "is not a topic filter"),
            (
                "kind = \"mqtt\", url = \"mqtt://localhost\"",
                "kind = \"lines\", port = \"\"",
                "port is empty",
            ),
        ] {
            let error = error_of(&GOOD.replace(from, to));
            assert!(error.contains(wanted), "{to}: {error}");
        }
        let error = error_of(&format!("{GOOD}{}", &GOOD[GOOD.find("[[devices]]").unwrap()..]));
        assert!(error.contains("two devices are called `d1`"), "{error}");
    }
}
