//! Text that others wrote: cut to a length, and made harmless for logs and terminals.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// The text; where it is longer than `most` bytes, its beginning with a mark that something is missing.
pub fn cut(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return text.into();
    }
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end]).into()
}

/// The text with a sign in the place of each character that could move a cursor, or make a line read otherwise than it is.
pub fn printable(text: &str) -> String {
    text.chars().map(|char| if is_deceptive(char) { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

/// The same for text of several lines with styles: line breaks and tabs stay, and the few styles that this program uses,
/// which hide nothing.
pub struct Lines<W>(pub W);

/// Reset, bold, dimmed, underlined, red, green and yellow.
const STYLES: [&str; 7] = ["[0m", "[1m", "[2m", "[4m", "[31m", "[32m", "[33m"];

impl<W: Write> Write for Lines<W> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let is_style = |at: usize| STYLES.iter().any(|style| piece[at + 1..].starts_with(style));
        piece.char_indices().try_for_each(|(at, char)| {
            let is_ours = matches!(char, '\n' | '\t') || char == '\u{1b}' && is_style(at);
            self.0.write_char(if is_ours || !is_deceptive(char) { char } else { char::REPLACEMENT_CHARACTER })
        })
    }
}

/// The same JSON, in which such characters are written as escapes.
pub fn printable_json(json: Vec<u8>) -> Vec<u8> {
    // Those below 0x20 are escaped already, but for the line breaks between values.
    if json.iter().all(|byte| byte.is_ascii() && *byte != 0x7f) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 64);
    for char in String::from_utf8_lossy(&json).chars() {
        if is_deceptive(char) && char != '\n' {
            let mut units = [0; 2];
            char.encode_utf16(&mut units).iter().for_each(|unit| escaped.push_str(&format!("\\u{unit:04x}")));
        } else {
            escaped.push(char);
        }
    }
    escaped.into_bytes()
}

/// Whether a terminal may obey this character rather than show it, or show its neighbours elsewhere than they are: control
/// characters, those that change the direction of writing, those that are not seen, and separators of lines.
pub fn is_deceptive(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECEPTIVE: &str = "a\u{1b}[2Jb\u{9b}1mc\u{202e}d\u{2066}e\u{200b}f\u{7f}g\u{e0041}h";

    #[test]
    fn nothing_that_a_terminal_obeys_is_printed() {
        assert_eq!(printable(DECEPTIVE), "a\u{fffd}[2Jb\u{fffd}1mc\u{fffd}d\u{fffd}e\u{fffd}f\u{fffd}g\u{fffd}h");
        assert_eq!(printable("Schlüssel 鍵 🔑"), "Schlüssel 鍵 🔑");
    }

    #[test]
    fn json_means_the_same_and_shows_what_it_means() {
        let json = serde_json::to_vec_pretty(&[DECEPTIVE, "é"]).expect("writing to memory");
        let escaped = printable_json(json);
        let text = std::str::from_utf8(&escaped).expect("text");
        assert!(text.chars().all(|char| char == '\n' || !is_deceptive(char)), "{text}");
        assert!(text.contains("\\u009b1mc\\u202ed") && text.contains("\\udb40\\udc41") && text.contains("é"), "{text}");
        assert_eq!(serde_json::from_slice::<Vec<String>>(&escaped).expect("JSON"), [DECEPTIVE, "é"]);
    }

    #[test]
    fn of_several_lines_breaks_and_our_styles_stay() {
        let mut text = String::new();
        let style = anstyle::Style::new().bold();
        let (hidden, reversed) = ("\u{1b}[8mb", "\r\u{202e}c");
        write!(Lines(&mut text), "{style}a{style:#}\n\t{hidden}{reversed}").expect("a String grows");
        assert_eq!(text, "\u{1b}[1ma\u{1b}[0m\n\t\u{fffd}[8mb\u{fffd}\u{fffd}c");
    }

    #[test]
    fn what_is_cut_ends_at_a_character() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "abc…");
        assert_eq!(cut("aüü", 2), "a…");
    }
}
