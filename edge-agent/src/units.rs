//! Units as UCUM writes them: enough of it to know the units of a laboratory, and to notice `Celsius`.

/// Units that take a metric prefix.
const METRIC: &str = "m g s A K mol cd Hz N Pa J W V Ohm mho S F C Wb T H lm lx Bq Gy Sv kat U L l eV bar rad sr Cel t u cal \
                      m[Hg] m[H2O] B B[W] B[V] G P St bit By eq osm";
const PREFIXES: &str = "da Q R Y Z E P T G M k h d c m u n p f a z y";
/// Units that stand alone. What is in brackets is left to whoever wrote it: `[pH]`, `[degF]`, `[ppm]`, `[psi]`.
const PLAIN: &str = "min h d wk mo a % deg ' '' atm gon 10* 10^";
/// What people write, in small letters, and what UCUM does.
const MISTAKES: &str = "celsius=Cel degc=Cel deg_c=Cel °c=Cel kelvin=K fahrenheit=[degF] degf=[degF] °f=[degF] °=deg degree=deg \
                        degrees=deg gram=g grams=g gramm=g kilogram=kg meter=m metre=m second=s seconds=s sec=s minute=min \
                        minutes=min hour=h hours=h percent=% pct=% %rh=% volt=V volts=V ampere=A amp=A amps=A watt=W watts=W \
                        joule=J newton=N pascal=Pa hertz=Hz ohm=Ohm ohms=Ohm ω=Ohm liter=L litre=L liters=L lux=lx \
                        mmhg=mm[Hg] psi=[psi] ppm=[ppm] ppb=[ppb] ph=[pH] rpm={rev}/min counts={count} none=1 -=1 =1";

/// Whether this is a unit, and if not, the nearest there is where one is near.
///
/// # Errors
/// The nearest unit.
pub fn check(unit: &str) -> Result<(), Option<String>> {
    if is_expression(unit) {
        Ok(())
    } else {
        Err(nearest(unit))
    }
}

/// Products and quotients of powers: `m/s2`, `kg.m2`, `mol/L`, `/min`, `(m/s)2`.
fn is_expression(text: &str) -> bool {
    let mut depth = 0usize;
    let mut start = 0;
    let mut terms = Vec::new();
    for (at, c) in text.char_indices() {
        match c {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return false,
            },
            '.' | '/' if depth == 0 => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    let is_rate = text.starts_with('/') && terms.len() > 1;
    depth == 0 && terms[usize::from(is_rate)..].iter().all(|term| is_power(term))
}

fn is_power(term: &str) -> bool {
    if let Some((before, note)) = term.split_once('{') {
        // An annotation stands alone or behind a unit, and says whatever it likes.
        return note.ends_with('}') && (before.is_empty() || is_power(before));
    }
    if term.parse::<u32>().is_ok() {
        return true;
    }
    let base = term.trim_end_matches(|c: char| c.is_ascii_digit());
    let base = base
        .strip_suffix(['-', '+'])
        .filter(|_| base.len() < term.len())
        .unwrap_or(base);
    match base.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => is_expression(inner),
        None => is_unit(base),
    }
}

fn is_unit(text: &str) -> bool {
    let is_in = |table: &str, unit: &str| table.split_whitespace().any(|listed| listed == unit);
    let mut prefixes = PREFIXES.split_whitespace();
    is_in(METRIC, text)
        || is_in(PLAIN, text)
        || (text.starts_with('[') && text.ends_with(']') && text.len() > 2)
        || prefixes.any(|prefix| text.strip_prefix(prefix).is_some_and(|rest| is_in(METRIC, rest)))
}

fn nearest(text: &str) -> Option<String> {
    let small = text.to_lowercase();
    let mistakes = || {
        MISTAKES
            .split_whitespace()
            .filter_map(|mistake| mistake.split_once('='))
    };
    let listed = mistakes().find(|(written, _)| *written == small);
    // `m/sec`, `µg`, `m/s^2`: one part of it is what is wrong.
    let mut repaired = text.replace("sec", "s").replace('^', "");
    for (written, unit) in [("µ", "u"), ("μ", "u"), ("·", "."), ("*", "."), ("²", "2"), ("³", "3")] {
        repaired = repaired.replace(written, unit);
    }
    let repaired = is_expression(&repaired).then_some(repaired);
    let distance = |written: &str| strsim::damerau_levenshtein(written, &small);
    let mistyped = mistakes().filter(|(written, _)| distance(written) <= written.len() / 4);
    let mistyped = mistyped.min_by_key(|(written, _)| distance(written));
    let unit = |(_, unit): (&str, &str)| unit.to_owned();
    listed.map(unit).or(repaired).or(mistyped.map(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_a_laboratory_are_known_and_words_are_not() {
        let known = "Cel K % 1 W mW kPa mbar m/s2 kg.m2 mol/L umol/L mm[Hg] [pH] [degF] Ohm MOhm /min {rpm} {rev}/min uS/cm s-1 \
                     W/(m2.K) 10*3/uL dB L/min eV Hz m3/h 1/s kW.h ms ug/m3 [ppm]{CO2}";
        for unit in known.split_whitespace() {
            assert_eq!(check(unit), Ok(()), "{unit}");
        }
        let wrong = "Celsius=Cel Celsuis=Cel gramm=g °C=Cel m/sec=m/s µS/cm=uS/cm m/s^2=m/s2 =1 furlong m/ m//s m] { ((m (m/ ~ {{}";
        for mistake in wrong.split_whitespace() {
            let (unit, near) = mistake
                .split_once('=')
                .map_or((mistake, None), |(unit, near)| (unit, Some(near)));
            assert_eq!(check(unit), Err(near.map(str::to_owned)), "{unit}");
        }
    }
}
