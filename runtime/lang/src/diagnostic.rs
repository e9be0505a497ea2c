//! Messages about a source text: what is wrong, where, how the line looks, and what to do about it.

use std::fmt::Write as _;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// One error, placed in the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Stable short name of the kind of error, e.g. `undefined-variable`.
    pub code: String,
    /// What is wrong, naming the thing.
    pub message: String,
    /// File as given to the compiler.
    pub file: String,
    /// Line from 1.
    pub line: u32,
    /// Column from 1, counted in characters.
    pub column: u32,
    /// How many characters of the line are meant.
    pub length: u32,
    /// The line as it stands in the source.
    pub source_line: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// Other places that matter for it.
    pub notes: Vec<Note>,
}

/// Another place that a diagnostic points to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// What is there.
    pub message: String,
    /// Line from 1.
    pub line: u32,
    /// Column from 1.
    pub column: u32,
}

/// Long lines are shown as a window of this many characters around the place.
const WINDOW: usize = 120;

impl Diagnostic {
    /// A diagnostic about the bytes `span` of `source`.
    pub fn at(source: &str, file: &str, span: Range<usize>, code: &str, message: impl Into<String>) -> Diagnostic {
        let place = Place::of(source, span.start);
        let end_of_line = place.line_start + place.text.len();
        let shown_end = span.end.clamp(span.start.min(end_of_line), end_of_line);
        let length = source
            .get(span.start..shown_end)
            .map_or(0, |text| text.chars().count())
            .max(1);
        Diagnostic {
            code: code.to_string(),
            message: message.into(),
            file: file.to_string(),
            line: place.line,
            column: place.column,
            length: length as u32,
            source_line: place.text.to_string(),
            remedy: None,
            notes: Vec::new(),
        }
    }

    /// Adds what to do about it.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Diagnostic {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds another place.
    pub fn note(mut self, source: &str, offset: usize, message: impl Into<String>) -> Diagnostic {
        let place = Place::of(source, offset);
        self.notes.push(Note {
            message: message.into(),
            line: place.line,
            column: place.column,
        });
        self
    }

    /// The diagnostic as text for a terminal: message, place, picture of the line, notes, remedy.
    pub fn render(&self) -> String {
        let characters: Vec<char> = self
            .source_line
            .chars()
            .map(|c| if c == '\t' { ' ' } else { c })
            .collect();
        let column = (self.column as usize).saturating_sub(1);
        let first = if characters.len() <= WINDOW {
            0
        } else {
            column.saturating_sub(WINDOW / 2)
        };
        let shown: String = characters.iter().skip(first).take(WINDOW).collect();
        let marks = "^".repeat((self.length as usize).min(WINDOW.saturating_sub(column - first)).max(1));
        let gutter = self.line.to_string();
        let blank = " ".repeat(gutter.len());
        let mut text = format!("error[{}]: {}\n", self.code, self.message);
        let _ = writeln!(text, "{blank}--> {}:{}:{}", self.file, self.line, self.column);
        let _ = writeln!(text, "{blank} |");
        let _ = writeln!(text, "{gutter} | {}", shown.trim_end());
        let _ = writeln!(text, "{blank} | {}{marks}", " ".repeat(column - first));
        for note in &self.notes {
            let _ = writeln!(text, "{blank} = note: {}:{}: {}", note.line, note.column, note.message);
        }
        if let Some(remedy) = &self.remedy {
            let _ = writeln!(text, "{blank} = help: {remedy}");
        }
        text
    }
}

struct Place<'a> {
    line: u32,
    column: u32,
    line_start: usize,
    text: &'a str,
}

impl Place<'_> {
    fn of(source: &str, offset: usize) -> Place<'_> {
        let offset = offset.min(source.len());
        let before = source.get(..offset).unwrap_or(source);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let text = source.get(line_start..).unwrap_or("").lines().next().unwrap_or("");
        Place {
            line: before.matches('\n').count() as u32 + 1,
            column: before.get(line_start..).unwrap_or("").chars().count() as u32 + 1,
            line_start,
            text,
        }
    }
}

/// Line and column, both from 1, of a byte offset.
pub(crate) fn line_column(source: &str, offset: usize) -> (u32, u32) {
    let place = Place::of(source, offset);
    (place.line, place.column)
}
