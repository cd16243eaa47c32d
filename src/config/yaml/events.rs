//! The parser of YAML: a text as a stream of events, each with its place.
//!
//! The parser is libyaml, translated to Rust, because it reads every file that the archived server reads. Parsers of
//! YAML 1.2 refuse some of these files, such as JSON that is indented with tabs. Its interface is that of C; this
//! module is the one place that calls it.

#![expect(unsafe_code, reason = "the parser has the interface of C")]

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::slice;

use libyaml_rs as sys;
use zeroize::Zeroizing;

use super::Position;

/// A piece of a file.
pub(super) struct Event {
    pub(super) kind: Kind,
    /// Where it begins.
    pub(super) position: Position,
    /// How many bytes of the text lie before its end.
    pub(super) end: usize,
}

pub(super) enum Kind {
    StreamStart,
    StreamEnd,
    DocumentStart,
    DocumentEnd,
    Alias(String),
    Scalar { text: Zeroizing<String>, is_plain: bool, properties: Properties },
    ListStart(Properties),
    ListEnd,
    MapStart(Properties),
    MapEnd,
}

/// What may stand before a value.
pub(super) struct Properties {
    /// The name in `&name`.
    pub(super) anchor: Option<String>,
    /// The tag as it is resolved: `!!int` is `tag:yaml.org,2002:int`.
    pub(super) tag: Option<String>,
}

/// The events of a text.
pub(super) struct Events<'t> {
    /// Allocated by `new`, freed by `drop`. It holds pointers to itself and into `text`.
    parser: *mut sys::yaml_parser_t,
    text: &'t str,
}

impl<'t> Events<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let parser = Box::into_raw(Box::new(MaybeUninit::<sys::yaml_parser_t>::uninit())).cast();
        // SAFETY: `parser` points to memory for one parser, which stays where it is until `drop`. The text outlives it.
        unsafe {
            assert!(sys::yaml_parser_initialize(parser).ok, "it does nothing that can fail");
            sys::yaml_parser_set_encoding(parser, sys::YAML_UTF8_ENCODING);
            sys::yaml_parser_set_input_string(parser, text.as_ptr(), text.len() as u64);
        }
        Self { parser, text }
    }

    /// The next event; fails with the place where the text is no YAML.
    pub(super) fn next(&mut self) -> Result<Event, Position> {
        let mut event = MaybeUninit::uninit();
        // SAFETY: the parser was initialised. It writes the event before it reads it, and whatever it allocates for the
        // event is valid until `yaml_event_delete`.
        let read = unsafe {
            if sys::yaml_parser_parse(self.parser, event.as_mut_ptr()).fail {
                return Err(self.fault());
            }
            let read = read(event.assume_init_ref());
            sys::yaml_event_delete(event.as_mut_ptr());
            read
        };
        read.ok_or_else(|| self.fault())
    }

    /// Where the parser stopped.
    fn fault(&self) -> Position {
        // SAFETY: the parser was initialised, and nothing else refers to it.
        let parser = unsafe { &*self.parser };
        match parser.error {
            // A character that no file may have: the parser knows its offset only.
            sys::YAML_READER_ERROR => {
                let offset = usize::try_from(parser.problem_offset).unwrap_or(usize::MAX);
                Position::after(&self.text.as_bytes()[..offset.min(self.text.len())])
            }
            _ => position(parser.problem_mark),
        }
    }
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        // SAFETY: `new` initialised the parser, in a box of this type.
        unsafe {
            sys::yaml_parser_delete(self.parser);
            drop(Box::from_raw(self.parser.cast::<MaybeUninit<sys::yaml_parser_t>>()));
        }
    }
}

fn position(mark: sys::yaml_mark_t) -> Position {
    let from_one = |number| usize::try_from(number).unwrap_or(usize::MAX).saturating_add(1);
    Position { line: from_one(mark.line), column: from_one(mark.column) }
}

/// Copies an event out; `None` for a text that is not UTF-8.
///
/// # Safety
/// The parser has made the event, and it was not deleted.
unsafe fn read(event: &sys::yaml_event_t) -> Option<Event> {
    // SAFETY: the type says which part of the union is valid; texts end with a zero byte or have a length.
    let kind = unsafe {
        match event.type_ {
            sys::YAML_STREAM_START_EVENT => Kind::StreamStart,
            sys::YAML_DOCUMENT_START_EVENT => Kind::DocumentStart,
            sys::YAML_DOCUMENT_END_EVENT => Kind::DocumentEnd,
            sys::YAML_ALIAS_EVENT => Kind::Alias(text(event.data.alias.anchor)?),
            sys::YAML_SCALAR_EVENT => {
                let scalar = &event.data.scalar;
                let bytes = slice::from_raw_parts(scalar.value, usize::try_from(scalar.length).ok()?);
                Kind::Scalar {
                    text: Zeroizing::new(str::from_utf8(bytes).ok()?.to_owned()),
                    is_plain: scalar.style == sys::YAML_PLAIN_SCALAR_STYLE,
                    properties: Properties { anchor: text(scalar.anchor), tag: text(scalar.tag) },
                }
            }
            sys::YAML_SEQUENCE_START_EVENT => {
                let list = &event.data.sequence_start;
                Kind::ListStart(Properties { anchor: text(list.anchor), tag: text(list.tag) })
            }
            sys::YAML_SEQUENCE_END_EVENT => Kind::ListEnd,
            sys::YAML_MAPPING_START_EVENT => {
                let map = &event.data.mapping_start;
                Kind::MapStart(Properties { anchor: text(map.anchor), tag: text(map.tag) })
            }
            sys::YAML_MAPPING_END_EVENT => Kind::MapEnd,
            _ => Kind::StreamEnd,
        }
    };
    Some(Event { kind, position: position(event.start_mark), end: usize::try_from(event.end_mark.index).ok()? })
}

/// A copy of a text of the parser's; `None` when there is none.
///
/// # Safety
/// The pointer is null, or leads to a text that ends with a zero byte.
unsafe fn text(text: *const u8) -> Option<String> {
    // SAFETY: as the caller promises.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text.cast::<c_char>()) }.to_string_lossy().into_owned())
}
