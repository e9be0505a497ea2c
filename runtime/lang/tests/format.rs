//! The formatter: its style, its fixed point, and that it keeps every token and comment.

#![allow(clippy::unwrap_used)]

mod common;

use orrery_lang::format;
use proptest::prelude::*;

const UGLY: &str = "within ;
model   M \"a model\"  // the head
parameter Real k( unit=\"1/s\",min = 0 )=2 \"rate\" ;Real x[ 3 ](each start=- 1.5,
fixed={true,true,true});
   protected
     Real y ; /* block
  of two lines */

     // before the section


equation
// inside
for i in 1 :3 loop der(x[i])=-k * x[i]^2*( 1+y ) ;end for;
if  noEvent( time>1 )then y=if time>2 then -1 else+1;
// last of the branch
elseif not(time>0)then y=2 . *3;
else
y=x [1]-- 3;   end if; // tail
 annotation( Icon(x={ {1,2},{3,4} }) ) ;
end   M ;
type V=Real(unit=\"V\");
function f input Real x;output Real y; algorithm y:=x; while y<0 loop y:=y+1; end while;return;end f;
";

#[test]
fn one_statement_a_line() {
    let source = UGLY.replace("2 . *3", "2. *3").replace("-- 3", "-3");
    let formatted = format(&source, "ugly.mo").expect("valid");
    assert_eq!(
        formatted,
        "within;
model M \"a model\" // the head
  parameter Real k(unit = \"1/s\", min = 0) = 2 \"rate\";
  Real x[3](each start = -1.5,
    fixed = {true, true, true});
protected
  Real y; /* block
  of two lines */

  // before the section

equation
  // inside
  for i in 1:3 loop
    der(x[i]) = -k*x[i]^2*(1 + y);
  end for;
  if noEvent(time > 1) then
    y = if time > 2 then -1 else +1;
    // last of the branch
  elseif not (time > 0) then
    y = 2. *3;
  else
    y = x[1] - 3;
  end if; // tail
  annotation(Icon(x = {{1, 2}, {3, 4}}));
end M;
type V = Real(unit = \"V\");
function f
  input Real x;
  output Real y;
algorithm
  y := x;
  while y < 0 loop
    y := y + 1;
  end while;
  return;
end f;
"
    );
}

#[test]
fn what_ships_is_formatted() {
    for (source, file) in corpus() {
        let formatted = format(&source, &file).unwrap_or_else(|error| panic!("{}", error.render()));
        assert_eq!(formatted, source, "{file}");
    }
}

#[test]
fn what_is_not_valid_is_not_formatted() {
    let error = format("model M Real x = ; end M;", "m.mo").expect_err("not valid");
    assert_eq!(error.code, "syntax");
}

fn corpus() -> Vec<(String, String)> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let mut found = Vec::new();
    for folder in ["runtime/lang/tests/models", "deploy/models"] {
        for entry in std::fs::read_dir(format!("{root}/{folder}")).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "mo") {
                let text = std::fs::read_to_string(&path).expect("text");
                found.push((text, path.display().to_string()));
            }
        }
    }
    found
}

/// A text with other spaces, line breaks and comments between its tokens: wherever a space stands outside strings and
/// comments.
fn respaced(source: &str, choices: &[u8]) -> String {
    let mut out = String::new();
    let mut choices = choices.iter().cycle();
    let (mut string, mut line, mut block) = (false, false, false);
    let mut last = ' ';
    for character in source.chars() {
        match (last, character) {
            (_, '"') if !line && !block => string = !string,
            ('/', '/') if !string && !block => line = true,
            ('/', '*') if !string && !line => block = true,
            ('*', '/') if block => block = false,
            (_, '\n') => line = false,
            _ => {}
        }
        last = character;
        if character == '\n' && !block {
            out.push('\n');
        }
        if string || line || block || !character.is_whitespace() {
            out.push(character);
            continue;
        }
        out.push_str(match choices.next().map_or(0, |choice| choice % 8) {
            0 => "\n",
            1 => "   ",
            2 => "\n\n\n",
            3 => " /* c */ ",
            4 => " // c\n",
            5 => "\n  // own line\n",
            6 => "\t/* two\nlines */\n",
            _ => " ",
        });
    }
    out
}

/// Everything but spaces.
fn dense(text: &str) -> String {
    text.chars().filter(|character| !character.is_whitespace()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn formatting_is_a_fixed_point_and_keeps_everything(which in any::<prop::sample::Index>(), choices in prop::collection::vec(any::<u8>(), 1..200)) {
        let mut all = corpus();
        all.push((UGLY.replace("2 . *3", "2. *3").replace("-- 3", "-3"), "ugly.mo".to_string()));
        let (source, file) = &all[which.index(all.len())];
        let source = respaced(source, &choices);
        let once = match format(&source, file) {
            Ok(once) => once,
            Err(error) => return Err(TestCaseError::fail(error.render())),
        };
        prop_assert_eq!(dense(&once), dense(&source));
        let twice = format(&once, file).map_err(|error| TestCaseError::fail(error.render()))?;
        prop_assert_eq!(twice, once);
    }
}
