//! The log: one JSON object a line.

/// How important an event is: the numbers of Go's `slog` (DEBUG -4, INFO 0, WARN 4, ERROR 8), so that
/// levels in between, such as `INFO+2`, have a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(pub i8);
