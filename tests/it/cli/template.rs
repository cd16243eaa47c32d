//! Recorded texts, in which `<placeholders>` stand for what differs each time; `<text>` is any text at all.

use serde_json::Value;

/// Whether `text` is what was recorded, white space at the ends of lines apart. JSON is compared by value.
pub fn matches(recorded: &str, text: &str) -> Result<(), String> {
    let (recorded, text) = (trimmed(recorded), trimmed(text));
    if recorded == "<text>" {
        return if text.is_empty() { Err("nothing".to_owned()) } else { Ok(()) };
    }
    let (expected, lines): (Vec<_>, Vec<_>) = (recorded.split('\n').collect(), text.split('\n').collect());
    if let (Some(recorded), Ok(value)) = (json(&recorded), serde_json::from_str::<Value>(&text)) {
        return json_matches(&recorded, &value).then_some(()).ok_or_else(|| format!("{recorded} is not {value}"));
    }
    if expected.len() != lines.len() {
        return Err(format!("{} lines, not {}:\n{text}\ninstead of\n{recorded}", lines.len(), expected.len()));
    }
    // Random identities stand beside random keys.
    let random = recorded.contains("<api key>");
    match expected.iter().zip(&lines).find(|(expected, line)| !line_matches(expected, line, random)) {
        None => Ok(()),
        Some((expected, line)) => Err(format!("{line:?} instead of {expected:?} in\n{text}")),
    }
}

fn trimmed(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(str::trim_end).collect();
    lines.join("\n")
}

/// The recorded text as JSON, if it is a JSON object or array. Numbers that differ stand in it without quotes.
fn json(recorded: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(&recorded.replace("<number>", "\"<number>\"")).ok()?;
    (value.is_object() || value.is_array()).then_some(value)
}

fn json_matches(recorded: &Value, value: &Value) -> bool {
    match (recorded, value) {
        (Value::String(text), Value::Number(_)) => text == "<number>",
        (Value::String(recorded), Value::String(text)) => line_matches(recorded, text, false),
        (Value::Array(recorded), Value::Array(values)) => {
            // A list of API routes comes in any order.
            let sorted = |values: &[Value]| {
                let mut values = values.to_vec();
                values.sort_by_key(|value| value["path"].to_string());
                values
            };
            let (recorded, values) = (sorted(recorded), sorted(values));
            recorded.len() == values.len() && recorded.iter().zip(&values).all(|(a, b)| json_matches(a, b))
        }
        (Value::Object(recorded), Value::Object(values)) => {
            let known = |(name, value): (&String, &Value)| recorded.get(name).is_some_and(|a| json_matches(a, value));
            recorded.len() == values.len() && values.iter().all(known)
        }
        (recorded, value) => recorded == value,
    }
}

fn line_matches(recorded: &str, line: &str, random: bool) -> bool {
    if let Some(rest) = recorded.strip_prefix("<prose>") {
        return rest.is_empty() && !line.trim().is_empty();
    }
    // JSON inside a line, and whole lines of JSON.
    if let (Some(recorded), Ok(value)) = (json(recorded), serde_json::from_str::<Value>(line)) {
        return json_matches(&recorded, &value);
    }
    let Some(at) = recorded.find('<').filter(|at| placeholder(&recorded[*at..]).is_some()) else {
        return if random { without_identities(recorded) == without_identities(line) } else { recorded == line };
    };
    let (before, rest) = recorded.split_at(at);
    let before_matches = line.get(..at).is_some_and(|start| line_matches(before, start, random));
    let (len, fits) = placeholder(rest).expect("it is one");
    before_matches
        && (at..=line.len())
            .rev()
            .filter(|end| line.is_char_boundary(*end))
            .any(|end| fits(&line[at..end]) && line_matches(&rest[len..], &line[end..], random))
}

type Fits = Box<dyn Fn(&str) -> bool>;

/// The placeholder that the text begins with: its length, and what it stands for.
fn placeholder(text: &str) -> Option<(usize, Fits)> {
    let name = &text[1..text.find('>')?];
    let fits: Fits = match name {
        "time" => Box::new(|text| text.len() >= 20 && text.as_bytes()[10] == b'T' && text.ends_with('Z')),
        "local time" => Box::new(is_moment),
        "api key" => Box::new(|text| text.len() == 51 && text.starts_with("kes:v1:A")),
        "number" => Box::new(|text| text.parse::<f64>().is_ok()),
        // The archived server was built without a version.
        "value" | "..." | "unknown" => Box::new(|text| !text.is_empty()),
        "version" => Box::new(|text| text == env!("CARGO_PKG_VERSION")),
        "base64" => Box::new(|text| decoded(text).is_some()),
        "identity" => Box::new(is_identity),
        _ => {
            let len: usize = name.strip_prefix("base64 of ")?.strip_suffix(" bytes")?.parse().ok()?;
            Box::new(move |text| decoded(text).is_some_and(|bytes| bytes.len() == len))
        }
    };
    Some((name.len() + 2, fits))
}

/// `2026-11-22 07:28:45`
fn is_moment(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00 00:00:00"
}

fn is_identity(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

fn without_identities(line: &str) -> String {
    line.split(' ').map(|word| if is_identity(word) { "<identity>" } else { word }).collect::<Vec<_>>().join(" ")
}
